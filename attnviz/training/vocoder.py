"""Train the vocoder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.parametrizations import weight_norm

from attnviz.audio import MEL
from attnviz.audio.mel import log_mels
from attnviz.errors import CheckpointError, TrainingError
from attnviz.models.vocoder import HifiGan, HifiGanConfig
from attnviz.training.config import TrainingConfig, read_settings
from attnviz.training.excerpts import audible_excerpts, scene_log_mel
from attnviz.training.part import Batch, Part, Player
from attnviz.training.resynthesis import Made, audible_distance, write_resyntheses
from attnviz.training.scene_store import SceneStore
from attnviz.training.spectral_loss import StftError, mel_error

# Mean and spread of log-mel values, which standardise the input of the first convolution.
_MEAN, _SPREAD = -5.0, 3.0
_QUIET = 0.1


@dataclass(frozen=True)
class VocoderObjective:
    """Loss of the vocoder.

    Parameters
    ----------
    columns : int
        Length of the training excerpts in columns of the spectrogram (10 ms).
    mel_weight : float
        Weight of the distance of log-mel spectrograms.
    stft_weight : float
        Weight of the distance of log magnitudes at several resolutions.
    audible_db : float
        Dynamic range in dB. Cells of the spectrogram further below the maximum of the scene must only stay below
        that level.
    """

    columns: int = 64
    mel_weight: float = 1.0
    stft_weight: float = 0.2
    audible_db: float = 60.0


class _Resynthesis(Player):
    def __init__(self, vocoder: HifiGan, objective: VocoderObjective) -> None:
        super().__init__()
        self.vocoder, self.objective = vocoder, objective
        self.stft_error = StftError()

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        mels, waves = batch["mels"], batch["waves"]
        made = self.vocoder(mels).float()
        with torch.autocast(made.device.type, enabled=False):  # the spectra of quiet sounds need full precision
            mel = mel_error(log_mels(made), mels, batch["floors"])
            stft = self.stft_error(made, waves)
        loss = self.objective.mel_weight * mel + self.objective.stft_weight * stft
        return loss, {"loss": loss, "mel": mel, "stft": stft}


class VocoderPart(Part):
    """A HiFi-GAN generator trained on spectrogram distances of its output.

    Differences from the original: there are no discriminators, whose training takes days.
    """

    shipped: HifiGan

    def __init__(self, config: TrainingConfig) -> None:
        self.objective = read_settings(VocoderObjective, config.objective, "objective.")
        try:
            self.shipped = HifiGan(HifiGanConfig.from_dict(config.model))
        except CheckpointError as error:
            raise TrainingError(f"[model]: {error}") from error
        if self.shipped.mel != MEL:
            raise TrainingError(
                f"[model]: the vocoder expects {self.shipped.mel}, but scenes are stored as {MEL}."
            )
        _prepare(self.shipped)
        self.players = [_Resynthesis(self.shipped, self.objective)]

    def batch(self, scenes: SceneStore, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        """Return excerpts of scenes around audible columns.

        ``mels`` ``(batch, 256, columns)``, ``waves`` ``(batch, columns x 160)``, ``floors`` ``(batch, 1, 1)``: the
        minimum log-mel value of audible cells.
        """
        return audible_excerpts(scenes, indices, rng, self.objective.columns, self.objective.audible_db)

    def validate(self, scenes: SceneStore, device: torch.device) -> dict[str, float]:
        """Return the mean absolute log-mel difference of whole scenes, in nats, over audible cells."""
        return {"mel_distance": audible_distance(scenes, self._made(scenes, device), self.objective.audible_db)}

    def sample(self, scenes: SceneStore, folder: Path, device: torch.device) -> None:
        """Write the original and the resynthesised audio of three scenes, and their spectrograms."""
        write_resyntheses(scenes, self._made(scenes, device), folder, "vocoded")

    def _made(self, scenes: SceneStore, device: torch.device) -> Made:
        return lambda number: self.shipped(scene_log_mel(scenes, number)[None].to(device)).cpu()[0]

    def export(self, folder: Path) -> None:
        """Write ``vocoder/``."""
        self.shipped.save_pretrained(folder / "vocoder")


def _prepare(vocoder: HifiGan) -> None:
    """Initialise a new generator for training.

    The upsampling layers preserve the spread of their input (PyTorch's default weights shrink it at every stage).
    ``(x - mean) / spread`` is folded into the first convolution, which expects values around 0. The last
    convolution has small weights, because most of the output is quiet. All weights are split into norm and
    direction, as in the training of HiFi-GAN, and combined again when the model is saved.
    """
    with torch.no_grad():
        for up in vocoder.ups:
            _keep_spread(up)
        first, last = vocoder.conv_pre, vocoder.conv_post
        first.weight /= _SPREAD
        last.weight *= _QUIET
        if (
            first.bias is not None and last.bias is not None
        ):  # they are never None, but torch's types do not say so
            first.bias -= _MEAN * first.weight.sum(dim=(1, 2))
            last.bias.zero_()
    for module in list(vocoder.modules()):
        if isinstance(module, (torch.nn.Conv1d, torch.nn.ConvTranspose1d)):
            weight_norm(module)


def _keep_spread(up: torch.nn.Module) -> None:
    """Draw the weights of an upsampling layer for inputs after a leaky ReLU (He et al. 2015, arXiv 1502.01852).

    Each output sample depends on every `stride`-th weight of the kernel, which PyTorch's default ignores.
    """
    if not isinstance(up, torch.nn.ConvTranspose1d):
        raise TrainingError(
            f"the upsampling layer of a vocoder is a {type(up).__name__} instead of a transposed convolution."
        )
    seen = up.in_channels * up.kernel_size[0] / up.stride[0]
    torch.nn.init.normal_(up.weight, std=math.sqrt(2 / seen))
