"""Distances between the spectrograms of two waveforms."""

from __future__ import annotations

import torch
from torch import nn

_FLOOR = 1e-3  # added to magnitudes before the logarithm
_EDGE = 4  # frames at each end whose window extends beyond the excerpt


def mel_error(given: torch.Tensor, wanted: torch.Tensor, floors: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference of log-mel spectrograms over audible cells, in nats.

    Cells that are audible but should not be are included, with their level above the floor.

    Parameters
    ----------
    given, wanted : torch.Tensor
        Spectrograms, shape ``(batch, bands, frames)``. Frames at both ends are ignored, since they contain only a
        part of the sound.
    floors : torch.Tensor
        Minimum value of audible cells of `wanted`, shape ``(batch, 1, 1)``.
    """
    given, wanted = given[..., _EDGE:-_EDGE], wanted[..., _EDGE:-_EDGE]
    audible = wanted >= floors
    error = torch.where(audible, (given - wanted).abs(), (given - floors).clamp(min=0))
    return error.sum() / audible.sum().clamp(min=1)


class StftError(nn.Module):
    """Mean absolute difference of log magnitudes in nats, averaged over transforms of 256 to 2048 samples.

    Notes
    -----
    Source: Yamamoto et al. 2020, Parallel WaveGAN (arXiv 1910.11480). Differences from the original: there is no
    spectral convergence loss, which divides by the energy of the signal, and scenes contain long silences.
    """

    def __init__(self, sizes: tuple[int, ...] = (256, 512, 1024, 2048)) -> None:
        super().__init__()
        self.sizes = sizes
        for size in sizes:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)

    def forward(self, given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Return the distance between two batches of waveforms, shape ``(batch, samples)``."""
        total = given.new_zeros(())
        for size in self.sizes:
            total = total + (self._log_magnitudes(given, size) - self._log_magnitudes(wanted, size)).abs().mean()
        return total / len(self.sizes)

    def _log_magnitudes(self, waves: torch.Tensor, size: int) -> torch.Tensor:
        window = getattr(self, f"window_{size}")
        spectra = torch.stft(waves, size, hop_length=size // 4, window=window, return_complex=True)
        return 0.5 * torch.log(torch.view_as_real(spectra).square().sum(-1) + _FLOOR**2)
