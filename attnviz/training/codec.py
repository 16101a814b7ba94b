"""Train a codec of waveforms: an encoder and a decoder with residual vector quantisation in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import EncodecConfig, EncodecModel

from attnviz.audio import MEL
from attnviz.audio.mel import log_mels
from attnviz.errors import TrainingError
from attnviz.training.config import TrainingConfig, read_settings
from attnviz.training.excerpts import audible_excerpts, scaled
from attnviz.training.part import Batch, Part, Player
from attnviz.training.resynthesis import Made, audible_distance, write_resyntheses
from attnviz.training.scene_store import SceneStore
from attnviz.training.settings import refuse_unknown, within
from attnviz.training.spectral_loss import StftError, mel_error

_SET_HERE = ("sampling_rate", "audio_channels", "normalize", "chunk_length_s", "overlap", "target_bandwidths")


@dataclass(frozen=True)
class CodecModel:
    """Codec to train.

    Parameters
    ----------
    codebooks : int
        Number of codes of a frame. Each quantises what the ones before it leave.
    encodec : mapping
        Arguments of transformers' ``EncodecConfig``. Sampling rate (16 kHz), channels (1) and bandwidth follow
        from the scenes and from `codebooks`.
    """

    codebooks: int = 4
    encodec: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        within("model.codebooks", self.codebooks, 1, 32)


@dataclass(frozen=True)
class CodecObjective:
    """Loss of the codec.

    Parameters
    ----------
    columns : int
        Length of the training excerpts in columns of the spectrogram (10 ms); a whole number of frames.
    mel_weight, stft_weight, audible_db : float
        As for the vocoder: distance of log-mel spectrograms, distance of log magnitudes at several resolutions,
        and the dynamic range in dB within which they count.
    commitment_weight : float
        Weight of the squared distance of the encoder's output from its codes.
    codebook_decay : float
        Decay of the moving averages that the codebooks are; at least 0 and below 1.
    """

    columns: int = 64
    mel_weight: float = 1.0
    stft_weight: float = 0.2
    audible_db: float = 60.0
    commitment_weight: float = 0.25
    codebook_decay: float = 0.99

    def __post_init__(self) -> None:
        if not 0 <= self.codebook_decay < 1:
            raise TrainingError(
                f"objective.codebook_decay is {self.codebook_decay}; it must be at least 0 and below 1."
            )


class _Coding(Player):
    """Reconstruction through the codebooks, which follow the encoder as moving averages."""

    def __init__(self, codec: EncodecModel, quantiser: Any, objective: CodecObjective) -> None:
        super().__init__()
        self.codec, self.quantiser, self.objective = codec, quantiser, objective
        self.stft_error = StftError()

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        waves = batch["waves"]
        embedded = self.codec.encoder(waves[:, None])
        with torch.autocast(waves.device.type, enabled=False):  # distances of codes need full precision
            quantised, codes, distances = self.quantiser(embedded.float().transpose(1, 2))
        made = self.codec.decoder(quantised.transpose(1, 2))[:, 0].float()
        with torch.autocast(waves.device.type, enabled=False):  # as do the spectra of quiet sounds
            mel = mel_error(log_mels(made), batch["mels"], batch["floors"])
            stft = self.stft_error(made, waves)
        commitment = distances.mean()
        loss = self.objective.mel_weight * mel + self.objective.stft_weight * stft
        loss = loss + self.objective.commitment_weight * commitment
        used = torch.stack([torch.unique(book).numel() * torch.ones(()) for book in codes.unbind(-1)]).mean()
        return loss, {"loss": loss, "mel": mel, "stft": stft, "commitment": commitment, "codes_used": used}


class CodecPart(Part):
    """transformers' ``EncodecModel``, trained on spectrogram distances of its output.

    Differences from the original: there are no discriminators, whose training takes days; the codebooks are those
    of the package vector-quantize-pytorch while they are trained.
    """

    shipped: EncodecModel

    def __init__(self, config: TrainingConfig) -> None:
        settings = read_settings(CodecModel, config.model, "model.")
        self.objective = read_settings(CodecObjective, config.objective, "objective.")
        self.shipped = EncodecModel(codec_config(settings))
        frame = self.shipped.config.hop_length
        if self.objective.columns * MEL.hop_length % frame:
            raise TrainingError(
                f"objective.columns is {self.objective.columns}, {self.objective.columns * MEL.hop_length} "
                f"samples; it must be a whole number of frames of {frame} samples (the product of "
                "model.encodec.upsampling_ratios)."
            )
        self.quantiser = _quantiser(self.shipped.config, self.objective)
        self.players = [_Coding(self.shipped, self.quantiser, self.objective)]

    def batch(self, scenes: SceneStore, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        """Return excerpts of scenes around audible columns; see `audible_excerpts`."""
        return audible_excerpts(scenes, indices, rng, self.objective.columns, self.objective.audible_db)

    def validate(self, scenes: SceneStore, device: torch.device) -> dict[str, float]:
        """Return the mean absolute log-mel difference of whole scenes, in nats, over audible cells."""
        self._take_codebooks()
        return {"mel_distance": audible_distance(scenes, self._coded(scenes, device), self.objective.audible_db)}

    def sample(self, scenes: SceneStore, folder: Path, device: torch.device) -> None:
        """Write the original and the coded audio of three scenes, and their spectrograms."""
        self._take_codebooks()
        write_resyntheses(scenes, self._coded(scenes, device), folder, "coded")

    def export(self, folder: Path) -> None:
        """Write ``codec/``."""
        self._take_codebooks()
        self.shipped.save_pretrained(folder / "codec")

    def _coded(self, scenes: SceneStore, device: torch.device) -> Made:
        def made(number: int) -> torch.Tensor:
            codes = encoded(self.shipped, scaled(scenes.audio[number])[None].to(device))
            with torch.no_grad():
                wave = self.shipped.decode(codes[None], [None])[0]
            return wave[0, 0, : scenes.audio.shape[1]].float().cpu()

        return made

    def _take_codebooks(self) -> None:
        """Give the codec the codebooks of the quantiser that trains them."""
        with torch.no_grad():
            for layer, codes in zip(self.shipped.quantizer.layers, self.quantiser.codebooks, strict=True):
                layer.codebook.embed.copy_(codes)
                layer.codebook.embed_avg.copy_(codes)


def codec_config(settings: CodecModel) -> EncodecConfig:
    """Return the configuration of a codec.

    Raises
    ------
    TrainingError
        If ``EncodecConfig`` has no such setting, or the settings contradict each other.
    """
    known = [one.name for one in fields(EncodecConfig) if one.name not in _SET_HERE]
    refuse_unknown(settings.encodec, known, "model.encodec.")
    try:
        config = EncodecConfig(
            **settings.encodec, sampling_rate=MEL.sampling_rate, audio_channels=1, normalize=False
        )
        bits = settings.codebooks * config.codebook_nbits * config.frame_rate
        config.target_bandwidths = [bits / 1000]
        made = config.num_quantizers
    except (ValueError, TypeError, ArithmeticError, StrictDataclassError) as error:
        raise TrainingError(f"[model.encodec]: no codec has these settings: {error!r}.") from error
    if made != settings.codebooks or config.codebook_dim != config.hidden_size:
        raise TrainingError(
            f"[model.encodec]: codes of {config.codebook_dim} values, {made} for a frame; codes must have the "
            f"{config.hidden_size} values of hidden_size, and be {settings.codebooks} (model.codebooks). Leave "
            "codebook_dim out."
        )
    return config


def encoded(codec: EncodecModel, waves: torch.Tensor) -> torch.Tensor:
    """Return the codes of waveforms.

    Parameters
    ----------
    codec : EncodecModel
    waves : torch.Tensor, shape (batch, samples)
        At 16 kHz.

    Returns
    -------
    torch.Tensor of int64, shape (batch, codebooks, frames)
    """
    with torch.no_grad():
        return codec.encode(waves[:, None], return_dict=True).audio_codes[0]


def _quantiser(config: EncodecConfig, objective: CodecObjective) -> Any:
    try:
        from vector_quantize_pytorch import ResidualVQ
    except ImportError as error:
        raise TrainingError(
            "the codebooks of a codec are trained with the package vector-quantize-pytorch, which is not "
            "installed: pip install vector-quantize-pytorch."
        ) from error
    return ResidualVQ(
        dim=config.hidden_size,
        num_quantizers=config.num_quantizers,
        codebook_size=config.codebook_size,
        decay=objective.codebook_decay,
        kmeans_init=True,
        threshold_ema_dead_code=1,  # codes that are hardly used are drawn anew
    )
