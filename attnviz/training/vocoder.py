"""Training of the vocoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib.image
import numpy as np
import torch
from torch.nn.utils.parametrizations import weight_norm

from attnviz.audio import MEL, HifiGan, HifiGanConfig, image_to_mel, mel_to_image, write_wav
from attnviz.audio.mel import log_mels
from attnviz.errors import CheckpointError, TrainingError
from attnviz.training.config import TrainingConfig, read_settings
from attnviz.training.part import Batch, Part, Player
from attnviz.training.scene_store import SceneStore
from attnviz.training.spectral_loss import StftError, mel_error

# Mean and spread of log-mel values: what the first convolution sees is brought to about 0 and 1.
_MEAN, _SPREAD = -5.0, 3.0
_QUIET = 0.1


@dataclass(frozen=True)
class VocoderObjective:
    """Loss of the vocoder.

    Parameters
    ----------
    columns : int
        Length of the pieces it is trained on, in columns of the spectrogram (10 ms).
    mel_weight : float
        Of the distance of log-mel spectrograms.
    stft_weight : float
        Of the distance of log magnitudes at several resolutions.
    floor : float
        Log-mel value (natural logarithm) below which nothing needs to be right.
    """

    columns: int = 64
    mel_weight: float = 1.0
    stft_weight: float = 0.5
    floor: float = -9.0


class _Resynthesis(Player):
    def __init__(self, vocoder: HifiGan, objective: VocoderObjective) -> None:
        super().__init__()
        self.vocoder, self.objective = vocoder, objective
        self.stft_error = StftError()

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        mels, waves = batch["mels"], batch["waves"]
        made = self.vocoder(mels).float()
        with torch.autocast(made.device.type, enabled=False):  # the spectra of quiet sounds need all digits
            mel = mel_error(log_mels(made), mels, self.objective.floor)
            stft = self.stft_error(made, waves)
        loss = self.objective.mel_weight * mel + self.objective.stft_weight * stft
        return loss, {"loss": loss, "mel": mel, "stft": stft}


class VocoderPart(Part):
    """A HiFi-GAN generator, trained on what its audio looks like when it is analysed again.

    Differences from the original: no discriminators, whose training takes days; distances of spectrograms alone.
    """

    shipped: HifiGan

    def __init__(self, config: TrainingConfig) -> None:
        self.objective = read_settings(VocoderObjective, config.objective, "objective.")
        try:
            self.shipped = HifiGan(HifiGanConfig.from_dict(config.model))
        except CheckpointError as error:
            raise TrainingError(f"[model]: {error}") from error
        if self.shipped.mel != MEL:
            raise TrainingError(f"[model]: the vocoder reads {self.shipped.mel}, and scenes are stored as {MEL}.")
        _prepare(self.shipped)
        self.players = [_Resynthesis(self.shipped, self.objective)]

    def batch(self, scenes: SceneStore, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        """Return pieces of scenes: ``mels`` ``(batch, 256, columns)`` and ``waves`` ``(batch, columns x 160)``."""
        width = self.objective.columns
        starts = rng.integers(0, scenes.images.shape[-1] - width + 1, size=len(indices))
        images = [scenes.images[i, :, start : start + width] for i, start in zip(indices, starts, strict=True)]
        hop = MEL.hop_length
        waves = [
            scenes.audio[i, start * hop : (start + width) * hop] for i, start in zip(indices, starts, strict=True)
        ]
        return {
            "mels": image_to_mel(torch.from_numpy(np.stack(images).astype(np.float32))),
            "waves": torch.from_numpy(np.stack(waves).astype(np.float32) / 32768),
        }

    def validate(self, scenes: SceneStore, device: torch.device) -> dict[str, float]:
        """Return the mean absolute log-mel difference of whole scenes, in nats, where they are not silent."""
        errors = []
        for image in scenes.images[:20]:
            mel = image_to_mel(torch.from_numpy(np.asarray(image, dtype=np.float32)))[None]
            again = log_mels(self.shipped(mel.to(device)).cpu())
            errors.append(float((again - mel).abs()[mel > self.objective.floor].mean()))
        return {"mel_distance": float(np.mean(errors))}

    def sample(self, scenes: SceneStore, folder: Path, device: torch.device) -> None:
        """Write the audio of three scenes as it was and as it comes back, and their spectrograms."""
        rows = []
        for i in range(min(3, len(scenes))):
            image = np.asarray(scenes.images[i], dtype=np.float32)
            mel = image_to_mel(torch.from_numpy(image))[None]
            made = self.shipped(mel.to(device)).cpu()
            write_wav(folder / f"{i}-original.wav", np.asarray(scenes.audio[i], dtype=np.float32) / 32768)
            write_wav(folder / f"{i}-vocoded.wav", made[0].numpy())
            rows += [image, mel_to_image(log_mels(made)[0].numpy())]
        matplotlib.image.imsave(folder / "spectrograms.png", np.concatenate(rows), cmap="magma", vmin=0, vmax=1)

    def export(self, folder: Path) -> None:
        """Write ``vocoder/``."""
        self.shipped.save_pretrained(folder / "vocoder")


def _prepare(vocoder: HifiGan) -> None:
    """Make a fresh generator fit to be trained.

    ``(x - mean) / spread`` is folded into the first convolution, which expects values around 0; the last one is
    made small, because most of what is to come out is quiet; every weight is split into length and direction, as
    HiFi-GAN is trained (folded again when it is saved).
    """
    with torch.no_grad():
        first, last = vocoder.conv_pre, vocoder.conv_post
        first.weight /= _SPREAD
        last.weight *= _QUIET
        if first.bias is not None and last.bias is not None:  # they are never; torch's types cannot say so
            first.bias -= _MEAN * first.weight.sum(dim=(1, 2))
            last.bias.zero_()
    for module in list(vocoder.modules()):
        if isinstance(module, (torch.nn.Conv1d, torch.nn.ConvTranspose1d)):
            weight_norm(module)
