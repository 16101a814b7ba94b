"""Pretrain the text encoder on the meaning of words before the denoiser is trained, as published encoders are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, mse_loss, normalize

from attnviz.models.conditioning import TextConditioner
from attnviz.scenes import CLASSES
from attnviz.scenes.captions import Heard, write_caption

_CAPTIONS = 3000
_BATCH = 32
_LEARNING_RATE = 1e-3
_SHARPNESS = 10.0  # factor of the cosines; a small one requires well separated embeddings
_TIME_WEIGHT = 5.0
_NO_SOUND = len(CLASSES)  # the label of connectives
_UNLABELLED = -100  # start, end and padding tokens: excluded from the loss


def teach_words(
    conditioner: TextConditioner, scenes: Sequence[Sequence[Mapping[str, Any]]], *, steps: int, seed: int
) -> float:
    """Train a text encoder and its adapter to predict, for every token, the sound class and when it sounds.

    A denoiser alone teaches a new encoder slowly, because its loss is mostly noise. The encoders of Stable
    Diffusion and Auffusion are pretrained on pairs of text and image or audio. Here, the composer knows which
    sound each phrase names and when it sounds. "X, then Y" only determines that X comes first, so this is all that
    is learnt about time. Classes are predicted by the cosine to one direction per class: a linear layer would
    separate embeddings that are almost identical, and the denoiser would then confuse the classes.

    Parameters
    ----------
    conditioner : TextConditioner
        Text conditioner with one encoder, which is trained in place.
    scenes : sequence of sequence of mapping
        Sounds of each scene (``class``, ``onset``, ``offset``), as in a `SceneStore`, from which captions are
        generated.
    steps : int
        Number of optimiser steps with 32 captions each.
    seed : int
        Seed of the captions and their order. The global random state of torch is not used.

    Returns
    -------
    float
        Fraction of correctly classified text tokens in the last tenth of the steps.
    """
    rng = np.random.default_rng((seed, 0x7E47))
    captions, labels, times = _labelled(conditioner, scenes, rng)
    width = conditioner.cross_attention_dim
    classes, clock = (
        torch.nn.Parameter(torch.from_numpy(rng.normal(0, 0.05, (count, width)).astype(np.float32)))
        for count in (len(CLASSES) + 1, 2)
    )
    parameters = [*conditioner.parameters(), classes, clock]
    optimizer = torch.optim.AdamW(parameters, lr=_LEARNING_RATE)
    right: list[float] = []
    with torch.enable_grad():
        for step in range(steps):
            chosen = rng.integers(len(captions), size=_BATCH)
            embeddings = conditioner.encode([captions[i] for i in chosen], warn=False).float()
            told = _SHARPNESS * normalize(embeddings, dim=2) @ normalize(classes, dim=1).T
            wanted = labels[chosen]
            loss = cross_entropy(told.transpose(1, 2), wanted, ignore_index=_UNLABELLED)
            timed = torch.isfinite(times[chosen])
            loss = loss + _TIME_WEIGHT * mse_loss((0.5 + embeddings @ clock.T)[timed], times[chosen][timed])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step >= int(0.9 * steps):
                right.append(float((told.argmax(2) == wanted)[wanted != _UNLABELLED].float().mean()))
    return float(np.mean(right))


def _labelled(
    conditioner: TextConditioner, scenes: Sequence[Sequence[Mapping[str, Any]]], rng: np.random.Generator
) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Return captions with the class and the time of the sound of each token.

    Classes have the shape ``(captions, keys)``. Times have the shape ``(captions, keys, 2)``: first onset and last
    offset, relative to the last offset of all sounds, or NaN for tokens without a sound.
    """
    captions = []
    labels = np.full((min(_CAPTIONS, len(scenes)), conditioner.num_keys), _UNLABELLED)
    times = np.full((*labels.shape, 2), np.nan, dtype=np.float32)
    longest = max(sound["offset"] for sounds in scenes for sound in sounds)
    for row, moments, sounds in zip(labels, times, scenes, strict=False):
        heard = [Heard(sound["class"], sound["onset"], sound["offset"]) for sound in sounds]
        caption, spans = write_caption(heard, rng)
        tokens = conditioner.token_table(caption, warn=False).rows
        text = (tokens["kind"] == "text").to_numpy()
        row[text] = _NO_SOUND
        for one, (start, end) in zip(heard, spans, strict=True):
            inside = (tokens["start"] < end) & (tokens["end"] > start)
            row[text & inside.to_numpy()] = CLASSES.index(one.sound)
            moments[text & inside.to_numpy()] = np.array([one.first, one.last]) / longest
        captions.append(caption)
    return captions, torch.from_numpy(labels), torch.from_numpy(times)
