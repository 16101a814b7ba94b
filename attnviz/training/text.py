"""Pretrain a text encoder by the objective of CLIP, CLAP, T5 or BERT."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from attnviz.errors import TrainingError
from attnviz.models.conditioning import Adapter, ConditionSpec, TextConditioner
from attnviz.models.conditioning.encoders import quiet
from attnviz.training.captions import CaptionFiles, scene_caption
from attnviz.training.config import TrainingConfig, read_settings
from attnviz.training.part import Batch, Part, Player
from attnviz.training.scene_store import SceneStore
from attnviz.training.text_models import (
    CONTRASTIVE,
    PRETRAINED,
    TextModel,
    make_pretraining_model,
    sounds_for,
    text_encoder_of,
    texts_for,
)
from attnviz.training.text_objectives import info_nce
from attnviz.training.text_quality import (
    corrupted,
    measure_perplexity,
    measure_retrieval,
    retrieved,
)
from attnviz.training.text_tokenizers import POSITIONS, EncoderKind, fit_tokenizer, tokenizer_digest

_SHOWN = 8  # captions of a sample
_SHARPEST = math.log(100)  # of the similarities, as in CLIP


@dataclass(frozen=True)
class TextObjective:
    """Objective and texts of a text encoder.

    Parameters
    ----------
    kind : {"clip", "clap", "t5", "bert"}
        "clip": contrast with the picture of the spectrogram. "clap": contrast with the audio's encoder. "t5":
        corrupted spans. "bert": masked tokens.
    captions : tuple of str
        Files of further captions (see `CaptionFiles`). All kinds fit their tokenizers to them; "t5" and "bert" are
        also trained on them, since they need no sounds.
    file_captions : float
        Fraction of the texts of "t5" and "bert" that are taken from these files; the others are new captions of
        the scenes.
    rate : float
        Fraction of the tokens that "t5" and "bert" predict.
    mean_length : float
        Mean length, in tokens, of the spans of "t5".
    """

    kind: EncoderKind
    captions: tuple[str, ...] = ()
    file_captions: float = 0.5
    rate: float = 0.15
    mean_length: float = 3.0

    def __post_init__(self) -> None:
        for name, highest in (("file_captions", 1), ("rate", 0.9)):
            if not 0 <= getattr(self, name) <= highest:
                raise TrainingError(
                    f"objective.{name} is {getattr(self, name)}; it must be between 0 and {highest}."
                )
        if not 1 <= self.mean_length <= POSITIONS:
            raise TrainingError(
                f"objective.mean_length is {self.mean_length}; it must be between 1 and {POSITIONS} tokens."
            )


class _Pairs(Player):
    """Contrast of captions and sounds, with the temperatures of the model."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.scales = [item for name, item in model.named_parameters() if name.startswith("logit_scale")]

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        with torch.no_grad():
            for scale in self.scales:
                scale.clamp_(max=_SHARPEST)
        output = self.model(**batch)
        of_sound = output.logits_per_image if "pixel_values" in batch else output.logits_per_audio
        loss = info_nce(output.logits_per_text, of_sound)
        own = torch.arange(len(of_sound), device=of_sound.device)
        return loss, {
            "loss": loss,
            "accuracy": (output.logits_per_text.argmax(1) == own).float().mean(),
            "temperature": (-self.scales[0]).exp().detach(),
        }


class _Predicted(Player):
    """Cross-entropy of the tokens that were removed from texts."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss = self.model(**batch).loss
        return loss, {"loss": loss}


class TextPart(Part):
    """A text encoder with its tokenizer, and the model that pretrains it."""

    shipped: PreTrainedModel

    def __init__(self, config: TrainingConfig, scenes: SceneStore, cache: Path) -> None:
        self.settings = read_settings(TextModel, config.model, "model.")
        self.objective = objective = read_settings(TextObjective, config.objective, "objective.")
        self.kind = kind = objective.kind
        self.files = CaptionFiles.read(objective.captions)
        self.tokenizer: PreTrainedTokenizerBase = fit_tokenizer(
            kind, [*_captions(scenes), *self.files.training], self.settings.vocabulary, cache
        )
        self.frozen = _digest(self.files.training, tokenizer_digest(self.tokenizer))
        self.shipped = make_pretraining_model(kind, self.settings, self.tokenizer, scenes.images.shape[2])
        self.adapter = Adapter(self.settings.hidden_size, self.settings.cross_attention_dim)
        self.players = [(_Pairs if kind in CONTRASTIVE else _Predicted)(self.shipped)]

    def batch(self, scenes: SceneStore, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        """Return the input of the model: token ids and sounds, or corrupted tokens and labels."""
        texts = [self._text(scenes, int(i), rng) for i in indices]
        if self.kind not in CONTRASTIVE:
            return self._corrupted(texts, rng)
        images = torch.from_numpy(np.asarray(scenes.images[indices], dtype=np.float32))
        return {**texts_for(self.tokenizer, texts), **sounds_for(self.kind, images)}

    def _text(self, scenes: SceneStore, i: int, rng: np.random.Generator) -> str:
        known = self.files.training
        if known and self.kind not in CONTRASTIVE and rng.random() < self.objective.file_captions:
            return known[rng.integers(len(known))]
        return scene_caption(scenes, i, rng)

    def _corrupted(self, texts: list[str], rng: np.random.Generator) -> Batch:
        objective = self.objective
        return corrupted(
            self.kind, self.tokenizer, texts, rng, rate=objective.rate, mean_length=objective.mean_length
        )

    def validate(self, scenes: SceneStore, device: torch.device) -> dict[str, float]:
        """Return retrieval scores, or the perplexity of captions: of scenes, and held out of the files."""
        if self.kind in CONTRASTIVE:
            return measure_retrieval(self.shipped, self.tokenizer, self.kind, scenes, device)
        found = {"perplexity_scenes": self._perplexity(scenes.captions, device)}
        if self.files.held_out:
            found["perplexity_files"] = self._perplexity(self.files.held_out, device)
        return found

    def _perplexity(self, captions: Sequence[str], device: torch.device) -> float:
        rate, length = self.objective.rate, self.objective.mean_length
        return measure_perplexity(
            self.shipped, self.tokenizer, self.kind, captions, device, rate=rate, mean_length=length
        )

    def sample(self, scenes: SceneStore, folder: Path, device: torch.device) -> None:
        """Write what is found for some scenes, or predicted in some captions, as text."""
        if self.kind in CONTRASTIVE:
            lines = retrieved(self.shipped, self.tokenizer, self.kind, scenes, device, count=_SHOWN)
        else:
            lines = self._predicted(scenes.captions[:_SHOWN], device)
        (folder / "samples.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _predicted(self, captions: list[str], device: torch.device) -> list[str]:
        batch = self._corrupted(captions, np.random.default_rng(0))
        logits = self.shipped(**{name: item.to(device) for name, item in batch.items()}).logits
        told = logits.argmax(-1).cpu()
        lines = []
        for given, wanted, made in zip(batch["input_ids"], batch["labels"], told, strict=True):
            places = wanted >= 0
            decode: Any = self.tokenizer.decode
            kept = given[given != self.tokenizer.pad_token_id]
            lines.append(f"{decode(kept)} | wanted: {decode(wanted[places])} | predicted: {decode(made[places])}")
        return lines

    def export(self, folder: Path) -> None:
        """Write ``text_encoder_0`` with an untrained adapter in Auffusion's layout, and the whole model."""
        spec = ConditionSpec(
            text_encoder_name="text_encoder_0",
            condition_adapter_name="condition_adapter_0",
            condition_max_length=POSITIONS,
            condition_dim=self.settings.hidden_size,
            cross_attention_dim=self.settings.cross_attention_dim,
            condition_type=self.kind,
        )
        encoder = text_encoder_of(self.shipped)
        TextConditioner([spec], [encoder], [self.tokenizer], [self.adapter]).save_pretrained(folder)
        with quiet():
            self.shipped.save_pretrained(folder / PRETRAINED)


def _captions(scenes: SceneStore) -> list[str]:
    """Return the captions of scenes, and one more wording of each, so that rare phrases have pieces as well."""
    rng = np.random.default_rng(0)
    return [*scenes.captions, *(scene_caption(scenes, i, rng) for i in range(len(scenes)) if scenes.sounds[i])]


def _digest(captions: Sequence[str], tokenizer: str) -> str:
    return hashlib.sha256("\n".join([tokenizer, *captions]).encode()).hexdigest()[:16]
