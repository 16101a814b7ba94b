"""Train a language model of audio codes with cross-attention to a text encoder, as AudioGen and MusicGen are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    EncodecFeatureExtractor,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForCausalLM,
    MusicgenForConditionalGeneration,
    PreTrainedTokenizerBase,
)

from attnviz.audio import mel_to_image, write_wav
from attnviz.audio.mel import log_mels
from attnviz.capture.identity import Digests, weights_digest
from attnviz.errors import TrainingError
from attnviz.io.paths import checked_path
from attnviz.models.conditioning.encoders import load_encoder, load_tokenizer
from attnviz.training.captions import scene_caption
from attnviz.training.codes import cached_codes, read_codec
from attnviz.training.config import TrainingConfig, read_settings
from attnviz.training.part import Batch, Part, Player
from attnviz.training.scene_store import SceneStore
from attnviz.training.settings import refuse_unknown
from attnviz.training.text_tokenizers import tokenizer_digest

_PROMPTS = ("a dog barks", "rain falls", "a rooster crows, then a baby cries")
_GUIDANCE = 3.0  # as MusicGen recommends
_VALIDATED = 64  # scenes
_SET_HERE = ("vocab_size", "num_codebooks", "audio_channels", "pad_token_id", "bos_token_id", "is_decoder")


@dataclass(frozen=True)
class MusicgenModel:
    """Model to train.

    Parameters
    ----------
    codec : str
        Folder of an ``EncodecModel`` (`attnviz train codec` writes ``model/codec``). It is kept unchanged.
    encoder : str
        Folder of a text encoder with its tokenizer (`attnviz train text` writes ``model/text_encoder_0``). It is
        kept unchanged, as in MusicGen.
    decoder : mapping
        Arguments of transformers' ``MusicgenDecoderConfig``. Codebooks and special tokens follow from the codec.
    """

    codec: str
    encoder: str
    decoder: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MusicgenObjective:
    """Loss of the language model: cross-entropy of the codes, averaged over codebooks.

    Parameters
    ----------
    condition_dropout : float
        Fraction of captions that are left out, for classifier-free guidance. As in MusicGen's generation, their
        hidden states are zero.
    new_captions : bool
        Whether to generate a new caption of a scene each time it is used: other phrases with the same meaning.
    """

    condition_dropout: float = 0.1
    new_captions: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.condition_dropout < 1:
            raise TrainingError(
                f"objective.condition_dropout is {self.condition_dropout}; it must be at least 0 and below 1."
            )


class _Writing(Player):
    def __init__(self, model: MusicgenForConditionalGeneration, objective: MusicgenObjective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def train(self, mode: bool = True) -> _Writing:
        """Set the mode of the decoder; codec and text encoder use no dropout."""
        super().train(mode)
        self.model.text_encoder.eval()
        self.model.audio_encoder.eval()
        return self

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        tokens = batch["attention_mask"]
        kept = torch.rand(len(tokens), device=tokens.device) >= self.objective.condition_dropout
        loss = self.loss(batch["codes"], batch["input_ids"], tokens * kept[:, None])
        return loss, {"loss": loss}

    def loss(self, codes: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of codes ``(batch, codebooks, frames)``, in nats."""
        labels = delayed_labels(codes, self.model.config.decoder.pad_token_id)
        return self.model(input_ids=input_ids, attention_mask=attention_mask, labels=labels).loss.float()


class MusicgenPart(Part):
    """transformers' ``MusicgenForConditionalGeneration``; its decoder and projection are trained."""

    shipped: MusicgenForConditionalGeneration

    def __init__(self, config: TrainingConfig, scenes: SceneStore, cache: Path, device: torch.device) -> None:
        settings = read_settings(MusicgenModel, config.model, "model.")
        self.objective = read_settings(MusicgenObjective, config.objective, "objective.")
        folder = checked_path(settings.encoder, "the folder of a text encoder", TrainingError)
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(folder)
        self.shipped = make_musicgen(settings, load_encoder(folder))
        self.cache = cache
        self.codes = self._coded(scenes, device)
        positions = self.shipped.config.decoder.max_position_embeddings
        frames = self.codes.shape[2]
        self.longest = frames + self.codes.shape[1]  # with the start token and the delays of the codebooks
        if positions < self.longest:
            raise TrainingError(
                f"model.decoder.max_position_embeddings is {positions}; scenes of {frames} frames need "
                f"{self.longest}."
            )
        kept = (self.shipped.audio_encoder, self.shipped.text_encoder)
        weights = [str(weights_digest(part, Digests())) for part in kept]
        self.frozen = "-".join([*weights, tokenizer_digest(self.tokenizer)])
        self._writing = _Writing(self.shipped, self.objective)
        self.players = [self._writing]

    def batch(self, scenes: SceneStore, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        """Return ``codes`` ``(batch, codebooks, frames)`` and tokens of captions with their mask."""
        captions = [
            scene_caption(scenes, int(i), rng) if self.objective.new_captions else scenes.captions[i]
            for i in indices
        ]
        return {"codes": torch.from_numpy(self.codes[indices].astype(np.int64)), **self._tokens(captions)}

    def validate(self, scenes: SceneStore, device: torch.device) -> dict[str, float]:
        """Return the cross-entropy of the codes of validation scenes in nats, given their captions."""
        codes = self._coded(scenes, device)[:_VALIDATED]
        losses = []
        for number in range(len(codes)):
            tokens = self._tokens([scenes.captions[number]], device)
            given = torch.from_numpy(codes[number : number + 1].astype(np.int64)).to(device)
            with torch.no_grad():
                losses.append(float(self._writing.loss(given, **tokens)))
        return {"cross_entropy": float(np.mean(losses))}

    def sample(self, scenes: SceneStore, folder: Path, device: torch.device) -> None:
        """Write the audio of three prompts, and an image of their spectrograms."""
        tokens = self._tokens(list(_PROMPTS), device)
        torch.manual_seed(0)
        made = self.shipped.generate(**tokens, max_new_tokens=self.longest - 1, **_SAMPLED).float().cpu()
        images = [mel_to_image(log_mels(wave)[0].numpy()) for wave in made]
        for prompt, wave in zip(_PROMPTS, made, strict=True):
            write_wav(folder / f"{prompt.replace(',', '').replace(' ', '-')}.wav", wave[0].numpy())
        matplotlib.image.imsave(folder / "prompts.png", np.concatenate(images), cmap="magma", vmin=0, vmax=1)

    def export(self, folder: Path) -> None:
        """Write a checkpoint of transformers: the model, its tokenizer and its feature extractor."""
        self.shipped.generation_config.update(max_length=self.longest, **_SAMPLED)
        self.shipped.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        rate = self.shipped.config.audio_encoder.sampling_rate
        EncodecFeatureExtractor(feature_size=1, sampling_rate=rate).save_pretrained(folder)

    def _coded(self, scenes: SceneStore, device: torch.device) -> np.ndarray:
        return cached_codes(self.shipped.audio_encoder, scenes, self.cache, device)

    def _tokens(self, captions: list[str], device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
        found = self.tokenizer(captions, padding=True, return_tensors="pt").to(device)
        return {name: found[name] for name in ("input_ids", "attention_mask")}


_SAMPLED = {"do_sample": True, "top_k": 250, "guidance_scale": _GUIDANCE}


def make_musicgen(settings: MusicgenModel, encoder: Any) -> MusicgenForConditionalGeneration:
    """Return a model with a new decoder, whose codec and text encoder are frozen.

    Raises
    ------
    CheckpointError, TrainingError
        If the codec or the settings of the decoder do not fit.
    """
    refuse_unknown(
        settings.decoder,
        [name for name in MusicgenDecoderConfig().to_dict() if name not in _SET_HERE],
        "model.decoder.",
    )
    codec = read_codec(settings.codec)
    size = codec.config.codebook_size
    try:
        decoder = MusicgenDecoderConfig(
            **settings.decoder,
            vocab_size=size,
            num_codebooks=codec.config.num_quantizers,
            audio_channels=1,
            pad_token_id=size,
            bos_token_id=size,
        )
        decoder.decoder_start_token_id = size
        config = MusicgenConfig(
            text_encoder=encoder.config.to_dict(), audio_encoder=codec.config.to_dict(), decoder=decoder.to_dict()
        )
        model = MusicgenForConditionalGeneration(config, encoder, codec, MusicgenForCausalLM(decoder))
    except (ValueError, TypeError, ArithmeticError, StrictDataclassError) as error:
        raise TrainingError(f"[model.decoder]: no decoder has these settings: {error!r}.") from error
    for frozen in (model.text_encoder, model.audio_encoder):
        frozen.requires_grad_(False)
    model.generation_config.update(decoder_start_token_id=size, pad_token_id=size, bos_token_id=size)
    return model


def delayed_labels(codes: torch.Tensor, pad: int) -> torch.Tensor:
    """Return the codes that each position of MusicGen's sequence predicts.

    Parameters
    ----------
    codes : torch.Tensor of int64, shape (batch, codebooks, frames)
    pad : int
        Token where a codebook has not begun, or has ended; such labels are ignored.

    Returns
    -------
    torch.Tensor of int64, shape (batch, frames + codebooks - 1, codebooks)
        Codebook `k` of frame `f` at position ``f + k``.
    """
    batch, books, frames = codes.shape
    labels = codes.new_full((batch, frames + books - 1, books), pad)
    for book in range(books):
        labels[:, book : book + frames, book] = codes[:, book]
    return labels
