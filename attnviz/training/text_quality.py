"""Measure pretrained text encoders by themselves: retrieval of sounds and texts, and perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from attnviz.errors import TrainingError
from attnviz.training.scene_store import SceneStore
from attnviz.training.text_models import sounds_for, texts_for
from attnviz.training.text_objectives import IGNORED, corrupt_spans, mask_tokens
from attnviz.training.text_tokenizers import SENTINELS, EncoderKind

_BATCH = 32


def retrieval_scores(similarities: np.ndarray) -> dict[str, float]:
    """Return recall and rank of the own partner, in both directions.

    Parameters
    ----------
    similarities : numpy.ndarray
        Shape ``(pairs, pairs)``: of each text (row) to each sound (column); text `i` belongs to sound `i`.

    Returns
    -------
    dict of str to float
        ``text_to_sound_...`` (find the sound of a text) and ``sound_to_text_...``: ``recall_at_1`` and
        ``recall_at_10``, fractions in [0, 1], and ``median_rank``, from 1. Equal similarities share their mean
        rank. By chance, of n pairs, recall at k is k / n, and the median rank (n + 1) / 2.

    Raises
    ------
    TrainingError
        If the array is not square, is empty, or contains NaN.
    """
    similarities = np.asarray(similarities, dtype=float)
    if similarities.ndim != 2 or similarities.shape[0] != similarities.shape[1] or not similarities.size:
        raise TrainingError(f"similarities has shape {similarities.shape}; expected (pairs, pairs).")
    if np.isnan(similarities).any():
        raise TrainingError("similarities contains NaN.")
    found = {}
    for name, table in (("text_to_sound", similarities), ("sound_to_text", similarities.T)):
        own = np.diagonal(table)[:, None]
        ranks = 1 + (table > own).sum(1) + ((table == own).sum(1) - 1) / 2
        for k in (1, 10):
            found[f"{name}_recall_at_{k}"] = float((ranks <= k).mean())
        found[f"{name}_median_rank"] = float(np.median(ranks))
    return found


@torch.no_grad()
def similarities_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    kind: EncoderKind,
    captions: Sequence[str],
    images: np.ndarray,
    device: torch.device,
) -> np.ndarray:
    """Return the cosines of texts (rows) and sounds (columns) by a ``CLIPModel`` or ``ClapModel``.

    Parameters
    ----------
    model, tokenizer, kind
        See `load_pretraining_model`.
    captions : sequence of str
        Texts.
    images : numpy.ndarray
        Mel images in [0, 1], shape ``(sounds, 256, columns)``.
    device : torch.device
    """
    texts = [
        _features(model.get_text_features(**_moved(texts_for(tokenizer, list(captions[i : i + _BATCH])), device)))
        for i in range(0, len(captions), _BATCH)
    ]
    sounds = []
    see = model.get_image_features if kind == "clip" else model.get_audio_features
    for i in range(0, len(images), _BATCH):
        batch = torch.from_numpy(np.asarray(images[i : i + _BATCH], dtype=np.float32))
        sounds.append(_features(see(**_moved(sounds_for(kind, batch), device))))
    return (torch.cat(texts) @ torch.cat(sounds).T).cpu().numpy()


def measure_retrieval(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    kind: EncoderKind,
    scenes: SceneStore,
    device: torch.device,
) -> dict[str, float]:
    """Return the `retrieval_scores` of scenes and their captions.

    Only the scene of which a caption was written counts as found, though others may fit it as well.
    """
    return retrieval_scores(similarities_of(model, tokenizer, kind, scenes.captions, scenes.images, device))


def retrieved(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    kind: EncoderKind,
    scenes: SceneStore,
    device: torch.device,
    *,
    count: int,
) -> list[str]:
    """Return, for the first `count` scenes, the caption and the three most similar of these captions, as text."""
    count = min(count, len(scenes))
    captions = scenes.captions[:count]
    table = similarities_of(model, tokenizer, kind, captions, scenes.images[:count], device)
    lines = []
    for caption, column in zip(captions, table.T, strict=True):
        found = (f"{captions[i]} ({column[i]:.2f})" for i in np.argsort(-column)[:3])
        lines.append(f"{caption} | " + " | ".join(found))
    return lines


@torch.no_grad()
def measure_perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    kind: EncoderKind,
    captions: Sequence[str],
    device: torch.device,
    *,
    rate: float,
    mean_length: float,
) -> float:
    """Return the perplexity of what the objective predicts, with the same masks every time.

    Parameters
    ----------
    model, tokenizer
        ``T5ForConditionalGeneration`` or ``BertForMaskedLM``, and its tokenizer.
    kind : {"t5", "bert"}
    captions : sequence of str
        Texts that are not empty.
    device : torch.device
    rate, mean_length : float
        See `corrupt_spans` and `mask_tokens`.

    Returns
    -------
    float
        Exponential of the mean cross-entropy of the predicted tokens; the size of the vocabulary for uniform
        predictions. Encoders with different tokenizers or objectives predict different tokens: compare a number
        with those of the same kind only.
    """
    rng = np.random.default_rng(0)
    total, count = 0.0, 0
    for i in range(0, len(captions), _BATCH):
        batch = corrupted(kind, tokenizer, list(captions[i : i + _BATCH]), rng, rate=rate, mean_length=mean_length)
        logits = model(**_moved(batch, device)).logits.float()
        labels = batch["labels"].to(device)
        total += float(
            cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        )
        count += int((labels != IGNORED).sum())
    if not count:
        raise TrainingError("there are no captions to measure the perplexity on.")
    return math.exp(min(total / count, 700))


def corrupted(
    kind: EncoderKind,
    tokenizer: Any,
    texts: list[str],
    rng: np.random.Generator,
    *,
    rate: float,
    mean_length: float,
) -> dict[str, torch.Tensor]:
    """Return the input and ``labels`` of T5 or BERT for texts."""
    encoded = texts_for(tokenizer, texts)
    if kind == "bert":
        ids, special = encoded["input_ids"].numpy(), np.array(tokenizer.all_special_ids)
        masked, labels = mask_tokens(
            ids, ~np.isin(ids, special), rng, rate=rate, mask=tokenizer.mask_token_id, vocabulary=len(tokenizer)
        )
        return {**encoded, "input_ids": torch.from_numpy(masked), "labels": torch.from_numpy(labels)}
    sentinels = tokenizer.convert_tokens_to_ids([f"<extra_id_{i}>" for i in range(SENTINELS)])
    end = tokenizer.eos_token_id
    pairs = []
    for ids, mask in zip(encoded["input_ids"].tolist(), encoded["attention_mask"], strict=True):
        tokens = ids[: int(mask.sum()) - 1]
        if not tokens:
            raise TrainingError("a caption has no tokens, so no span of it can be removed.")
        given, wanted = corrupt_spans(tokens, rng, rate=rate, mean_length=mean_length, sentinels=sentinels)
        pairs.append(([*given, end], [*wanted, end]))
    inputs = _padded([given for given, _ in pairs], tokenizer.pad_token_id)
    mask = _padded([[1] * len(given) for given, _ in pairs], 0)
    return {
        "input_ids": inputs,
        "attention_mask": mask,
        "labels": _padded([wanted for _, wanted in pairs], IGNORED),
    }


def _padded(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def _features(output: Any) -> torch.Tensor:
    """Return unit vectors; transformers 5 wraps the features in an output."""
    return normalize(getattr(output, "pooler_output", output).float(), dim=-1)


def _moved(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: item.to(device) if isinstance(item, torch.Tensor) else item for name, item in batch.items()}
