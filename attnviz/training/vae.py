"""Train the auto-encoder between mel images and latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import torch
from diffusers import AutoencoderKL

from attnviz.audio.settings import LOG_CEILING, LOG_FLOOR
from attnviz.errors import TrainingError
from attnviz.training.config import TrainingConfig, read_settings
from attnviz.training.critic import PatchCritic, balanced_weight, hinge_loss
from attnviz.training.models import make_model
from attnviz.training.part import Batch, Part, Player
from attnviz.training.scene_store import SceneStore

ENCODER = ("encoder.", "quant_conv.")
"""Name prefixes of the encoder's weights; all others belong to the decoder."""

_BLOCK = 8  # hop in pixels between the blocks whose levels are compared; their size is twice that
_POWER = LOG_CEILING - LOG_FLOOR  # log power per unit of image value

_STANDARDISED = 200  # number of scenes for standardising the latents


@dataclass(frozen=True)
class VaeObjective:
    """Loss of the auto-encoder.

    Parameters
    ----------
    columns : int
        Width of the image excerpts for training; a multiple of the downsampling factor.
    kl_weight : float
        Weight of the Kullback-Leibler divergence of the latents from a standard normal distribution, summed over
        the latent and divided by the number of image pixels, relative to the squared error of an image in [-1, 1].
    ridge_weight : float
        Weight of the squared error after averaging over 9 columns, and after averaging over 9 rows. Averaging
        removes noise, which cannot be encoded, and keeps harmonics, which are long in time, and onsets, which are
        wide in frequency.
    level_weight : float
        Weight of the squared error of the level (logarithm of the mean power) of blocks of 16 x 16 pixels. The
        squared error alone blurs details that cannot be encoded, and the mean of logarithms is below the
        logarithm of the mean: blurred harmonics become many dB quieter. This loss restores their power.
    adversarial_weight : float
        Weight of the loss of a critic of patches (`PatchCritic`), relative to the gradient of the other losses. A
        decoder that only minimises errors returns the mean of all textures that share a latent, which is smooth:
        rain becomes a hum. 0 disables it.
    decoder_only : bool
        Whether to keep the encoder, and thus the latents, unchanged, so that existing denoisers remain valid.
    """

    columns: int = 256
    kl_weight: float = 1e-6
    ridge_weight: float = 0.0
    level_weight: float = 0.0
    adversarial_weight: float = 0.0
    decoder_only: bool = False


class _Reconstruction(Player):
    def __init__(self, vae: AutoencoderKL, objective: VaeObjective, critic: PatchCritic | None) -> None:
        super().__init__()
        self.vae, self.objective = vae, objective
        self.critic = [critic]  # in a list, so that it is trained by its own player only

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images = batch["images"].to(memory_format=torch.channels_last)
        posterior = self.vae.encode(images).latent_dist
        decoded = self.vae.decode(posterior.sample()).sample.float()
        error = (decoded - images).square().mean()
        divergence = posterior.kl().mean() / images[0, 0].numel()
        loss = error + self.objective.kl_weight * divergence
        if self.objective.ridge_weight:
            loss = loss + self.objective.ridge_weight * _ridge_error(decoded - images)
        psnr = -10 * torch.log10(error.detach() / 4)
        told = {"psnr": psnr, "kl": divergence}
        if self.objective.level_weight:
            told["level"] = (block_levels(decoded) - block_levels(images)).square().mean()
            loss = loss + self.objective.level_weight * told["level"]
        told["loss"] = loss
        if (critic := self.critic[0]) is not None:
            told["deceit"] = -critic(decoded).float().mean()
            weight = balanced_weight(loss, told["deceit"], self.vae.decoder.conv_out.weight)
            loss = loss + self.objective.adversarial_weight * weight * told["deceit"]
        return loss, told


class _Criticism(Player):
    """A critic that tells recorded from decoded images."""

    def __init__(self, vae: AutoencoderKL, critic: PatchCritic) -> None:
        super().__init__()
        self.critic = critic
        self.vae = [vae]  # in a list, so that it is trained by its own player only

    def forward(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images = batch["images"].to(memory_format=torch.channels_last)
        with torch.no_grad():
            decoded = self.vae[0].decode(self.vae[0].encode(images).latent_dist.sample()).sample
        recorded, made = (self.critic(given.float()).float() for given in (images, decoded))
        told = hinge_loss(recorded, made)
        return told, {"critic": told}


def _ridge_error(error: torch.Tensor) -> torch.Tensor:
    long, high = (torch.nn.functional.avg_pool2d(error, size, stride=1) for size in ((1, 9), (9, 1)))
    return long.square().mean() + high.square().mean()


def block_levels(images: torch.Tensor) -> torch.Tensor:
    """Return the levels of blocks of 16 x 16 pixels (50 % overlap): the value of a uniform block of equal power.

    Parameters
    ----------
    images : torch.Tensor, shape (batch, channels, rows, columns)
        Mel images in [-1, 1] with at least 16 rows and columns.

    Returns
    -------
    torch.Tensor, shape (batch, channels, rows // 8 - 1, columns // 8 - 1)
        Levels on the scale of the images.
    """
    # The pipelines clamp decoded values to [-1, 1] as well.
    power = torch.exp(_POWER * (images.float().clamp(max=1.0) - 1))
    return torch.nn.functional.avg_pool2d(power, 2 * _BLOCK, stride=_BLOCK).log() / _POWER + 1


class VaePart(Part):
    """A diffusers ``AutoencoderKL`` on excerpts of mel images over all bands.

    At export, every latent channel is standardised to mean 0 and standard deviation 1 over training images by
    folding a shift and a scale into the 1 x 1 convolutions before and after the latents, so the scaling factor is
    1. (Stable Diffusion has one scaling factor for all channels, and no shift.)
    """

    def __init__(self, config: TrainingConfig, scenes: SceneStore) -> None:
        objective = read_settings(VaeObjective, config.objective, "objective.")
        vae: AutoencoderKL = make_model(AutoencoderKL, config.model, "vae")
        self.shipped: AutoencoderKL = vae.to(memory_format=torch.channels_last)
        factor = 2 ** (len(self.shipped.config.block_out_channels) - 1)
        if objective.columns % factor or objective.columns < factor:
            raise TrainingError(
                f"objective.columns is {objective.columns}; it must be a multiple of the downsampling factor "
                f"{factor}."
            )
        self.columns, self.decoder_only = objective.columns, objective.decoder_only
        if self.decoder_only:
            if "pretrained" not in config.model:
                raise TrainingError("objective.decoder_only needs a pretrained encoder: set model.pretrained.")
            for name, parameter in self.shipped.named_parameters():
                parameter.requires_grad_(not name.startswith(ENCODER))
        critic = PatchCritic(self.shipped.config.in_channels) if objective.adversarial_weight else None
        self.players: list[Player] = [_Reconstruction(self.shipped, objective, critic)]
        if critic is not None:
            self.players.append(_Criticism(self.shipped, critic))
        self.scenes = scenes

    def batch(self, scenes: SceneStore, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        """Return ``images``: ``(batch, 3, 256, columns)`` in [-1, 1], a random excerpt of each scene."""
        starts = rng.integers(0, scenes.images.shape[-1] - self.columns + 1, size=len(indices))
        pieces = [
            scenes.images[i, :, start : start + self.columns] for i, start in zip(indices, starts, strict=True)
        ]
        return {"images": to_vae(np.stack(pieces))}

    def validate(self, scenes: SceneStore, device: torch.device) -> dict[str, float]:
        """Return the mean peak signal-to-noise ratio of whole images in dB, decoded from the latent means."""
        ratios = [psnr(image, reconstruct(self.shipped, image[None], device)[0]) for image in scenes.images]
        return {"psnr": float(np.mean(ratios))}

    def sample(self, scenes: SceneStore, folder: Path, device: torch.device) -> None:
        """Write four images, each with its reconstruction below."""
        images = np.asarray(scenes.images[:4], dtype=np.float32)
        back = reconstruct(self.shipped, images, device)
        pairs = np.concatenate([np.concatenate(pair) for pair in zip(images, back, strict=True)])
        matplotlib.image.imsave(folder / "reconstructions.png", pairs, cmap="magma", vmin=0, vmax=1)

    def export(self, folder: Path) -> None:
        """Write ``vae/``, with standardised latents unless only the decoder was trained."""
        if not self.decoder_only:
            images = [self.scenes.images[i : i + 1] for i in range(min(_STANDARDISED, len(self.scenes)))]
            standardise_latents(self.shipped, images)
        self.shipped.save_pretrained(folder / "vae")


def standardise_latents(vae: AutoencoderKL, images: Sequence[np.ndarray]) -> None:
    """Standardise each latent channel to mean 0 and standard deviation 1, without changing the decoded images.

    Parameters
    ----------
    vae : AutoencoderKL
        Auto-encoder with a 1 x 1 convolution before and after its latents (``use_quant_conv``,
        ``use_post_quant_conv``).
    images : sequence of numpy.ndarray
        Images in [0, 1], shape ``(n, rows, columns)``, from which mean and deviation are computed.
    """
    channels = vae.config.latent_channels
    with torch.no_grad():
        latents = [
            vae.encode(to_vae(image).to(vae.device)).latent_dist.mean.transpose(0, 1).flatten(1)
            for image in images
        ]
        deviation, mean = torch.std_mean(torch.cat(latents, dim=1), dim=1)
        before, after = vae.quant_conv, vae.post_quant_conv
        before.weight[:channels] /= deviation[:, None, None, None]
        before.bias[:channels] = (before.bias[:channels] - mean) / deviation
        before.bias[channels:] -= 2 * deviation.log()  # log variance of the posterior
        after.bias += after.weight[:, :, 0, 0] @ mean
        after.weight *= deviation[None, :, None, None]
    vae.register_to_config(scaling_factor=1.0)


def to_vae(images: np.ndarray) -> torch.Tensor:
    """Convert images ``(n, rows, columns)`` in [0, 1] to ``(n, 3, rows, columns)`` float32 in [-1, 1]."""
    return (
        torch.from_numpy(np.asarray(images, dtype=np.float32) * 2 - 1)[:, None].expand(-1, 3, -1, -1).contiguous()
    )


def reconstruct(vae: AutoencoderKL, images: np.ndarray, device: torch.device | str = "cpu") -> np.ndarray:
    """Encode and decode images.

    Parameters
    ----------
    vae : AutoencoderKL
        The auto-encoder.
    images : numpy.ndarray
        ``(n, rows, columns)`` in [0, 1].
    device : torch.device or str
        Device of the auto-encoder.

    Returns
    -------
    numpy.ndarray
        ``(n, rows, columns)`` float32 in [0, 1]: the first channel, as in the pipelines.
    """
    with torch.no_grad():
        latents = vae.encode(to_vae(images).to(device)).latent_dist.mean
        decoded = vae.decode(latents).sample
    return (decoded[:, 0] / 2 + 0.5).clamp(0, 1).float().cpu().numpy()


def psnr(image: Any, other: Any) -> float:
    """Return the peak signal-to-noise ratio in dB of two images in [0, 1]."""
    error = np.mean(np.square(np.asarray(image, dtype=np.float64) - np.asarray(other, dtype=np.float64)))
    return float(-10 * np.log10(error))
