"""Correct waveforms towards the mel spectrogram they were generated from."""

from __future__ import annotations

import torch

from attnviz.audio.mel import mel_filters, mel_of_spectra, spectra
from attnviz.audio.settings import MEL, MelConfig

# Limits of one round in natural logarithms: 22 dB louder, 35 dB softer. Where a cell is almost silent, its phase
# is arbitrary, and the next round has a better estimate.
_SOFTER, _LOUDER = -4.0, 2.5
_COVERED = 1e-3  # samples where the sum of squared windows is smaller lie in the padding


def correct_mel(waves: torch.Tensor, log_mel: torch.Tensor, mel: MelConfig = MEL, *, rounds: int) -> torch.Tensor:
    """Scale the spectra of waveforms to match a log-mel spectrogram, and keep their phases.

    Parameters
    ----------
    waves : torch.Tensor
        ``(batch, frames * hop_length)`` float32, a vocoder's output for `log_mel`.
    log_mel : torch.Tensor
        ``(batch, bands, frames)`` natural-log mel to match.
    mel : MelConfig
        Parameters of the spectrogram.
    rounds : int
        Number of rounds; 0 returns `waves`.

    Returns
    -------
    torch.Tensor
        ``(batch, frames * hop_length)`` float32 in [-1, 1].

    Notes
    -----
    A round multiplies each frequency bin by the mean, over the bands that contain it, of the log ratio of target
    to current mel magnitude. It then inverts the transform by least squares (overlap-add divided by the sum of
    squared windows), as a round of Griffin-Lim does (Griffin and Lim 1984, doi:10.1109/TASSP.1984.1164317).
    Differences from the original: the phases are the vocoder's instead of random ones, and the magnitudes are the
    vocoder's, scaled, instead of a solution for the bands.
    """
    filters = torch.tensor(mel_filters(mel), device=waves.device).T
    shares = filters / filters.sum(dim=1, keepdim=True).clamp(min=torch.finfo(filters.dtype).tiny)
    for _ in range(rounds):
        spectrum = spectra(waves, mel)
        missing = (log_mel - mel_of_spectra(spectrum, mel)).clamp(_SOFTER, _LOUDER)
        waves = _waves(spectrum * torch.exp(torch.matmul(shares, missing)), mel).clamp(-1, 1)
    return waves


def _waves(spectrum: torch.Tensor, mel: MelConfig) -> torch.Tensor:
    """Return the waveforms whose transform is closest to `spectrum`."""
    surplus = mel.n_fft - mel.win_length
    window = torch.hann_window(mel.win_length, device=spectrum.device)
    window = torch.nn.functional.pad(window, (surplus // 2, surplus - surplus // 2))[:, None]
    frames = torch.fft.irfft(spectrum, n=mel.n_fft, dim=1) * window
    weight = _overlapped(window.square().expand(1, -1, frames.shape[-1]), mel)
    waves = _overlapped(frames, mel) / weight.clamp(min=_COVERED)
    return waves[:, mel.pad : waves.shape[1] - mel.pad]


def _overlapped(frames: torch.Tensor, mel: MelConfig) -> torch.Tensor:
    """Overlap-add frames ``(batch, n_fft, frames)`` at hop distance."""
    length = (frames.shape[-1] - 1) * mel.hop_length + mel.n_fft
    stride = (1, mel.hop_length)
    return torch.nn.functional.fold(frames, (1, length), (1, mel.n_fft), stride=stride)[:, 0, 0]
