"""How far a waveform's spectrograms are from those it should have."""

from __future__ import annotations

import torch
from torch import nn

_FLOOR = 1e-3  # magnitude added below the logarithm
_EDGE = 4  # frames at each end whose window reaches beyond a piece of audio


def mel_error(given: torch.Tensor, wanted: torch.Tensor, floors: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference of log-mel spectrograms over audible cells, in nats.

    What should not be audible and is counts as well: by how far it is above the floor.

    Parameters
    ----------
    given, wanted : torch.Tensor
        ``(batch, bands, frames)``. Frames at the ends, which saw no more than a part of the sound, are left out.
    floors : torch.Tensor
        ``(batch, 1, 1)``: the value of `wanted` from which on a cell is audible.
    """
    given, wanted = given[..., _EDGE:-_EDGE], wanted[..., _EDGE:-_EDGE]
    audible = wanted >= floors
    error = torch.where(audible, (given - wanted).abs(), (given - floors).clamp(min=0))
    return error.sum() / audible.sum().clamp(min=1)


class StftError(nn.Module):
    """Mean absolute difference of log magnitudes, in nats, averaged over transforms of 256 to 2048 samples.

    Notes
    -----
    Source: Yamamoto et al. 2020, Parallel WaveGAN (arXiv 1910.11480). Differences from the original: its spectral
    convergence is left out: it divides by the energy there is, and scenes have long silences.
    """

    def __init__(self, sizes: tuple[int, ...] = (256, 512, 1024, 2048)) -> None:
        super().__init__()
        self.sizes = sizes
        for size in sizes:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)

    def forward(self, given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Return the distance of ``(batch, samples)`` from the wanted ones."""
        total = given.new_zeros(())
        for size in self.sizes:
            total = total + (self._log_magnitudes(given, size) - self._log_magnitudes(wanted, size)).abs().mean()
        return total / len(self.sizes)

    def _log_magnitudes(self, waves: torch.Tensor, size: int) -> torch.Tensor:
        window = getattr(self, f"window_{size}")
        spectra = torch.stft(waves, size, hop_length=size // 4, window=window, return_complex=True)
        return 0.5 * torch.log(torch.view_as_real(spectra).square().sum(-1) + _FLOOR**2)
