"""Waveforms brought nearer to the mel spectrogram they were made from."""

from __future__ import annotations

import torch

from attnviz.audio.mel import mel_filters, mel_of_spectra, spectra
from attnviz.audio.settings import MEL, MelConfig

# In one round a cell becomes at most 22 dB louder and 35 dB softer (natural logarithms): where there is next to
# nothing, the phase is arbitrary, and the next round sees better.
_SOFTER, _LOUDER = -4.0, 2.5
_COVERED = 1e-3  # samples that the squared windows cover less are in the padding


def correct_mel(waves: torch.Tensor, log_mel: torch.Tensor, mel: MelConfig = MEL, *, rounds: int) -> torch.Tensor:
    """Scale the spectra of waveforms to a log-mel spectrogram, and keep their phases.

    Parameters
    ----------
    waves : torch.Tensor
        ``(batch, frames * hop_length)`` float32, what a vocoder made of `log_mel`.
    log_mel : torch.Tensor
        ``(batch, bands, frames)`` natural-log mel that they are to have.
    mel : MelConfig
        Its parameters.
    rounds : int
        How often; 0 gives back `waves`.

    Returns
    -------
    torch.Tensor
        ``(batch, frames * hop_length)`` float32 in [-1, 1].

    Notes
    -----
    A round multiplies each frequency bin by the mean, over the bands it is in, of the logarithms of wanted over
    present mel magnitude, and goes back by least squares (overlap and add, over the sum of squared windows), as a
    round of Griffin-Lim does (Griffin and Lim 1984, doi:10.1109/TASSP.1984.1164317). Differences from the
    original: the phases are the vocoder's and not drawn, and the magnitudes are its own, scaled, instead of those
    that are solved for from the bands.
    """
    filters = torch.tensor(mel_filters(mel), device=waves.device).T
    shares = filters / filters.sum(dim=1, keepdim=True).clamp(min=torch.finfo(filters.dtype).tiny)
    for _ in range(rounds):
        spectrum = spectra(waves, mel)
        missing = (log_mel - mel_of_spectra(spectrum, mel)).clamp(_SOFTER, _LOUDER)
        waves = _waves(spectrum * torch.exp(torch.matmul(shares, missing)), mel).clamp(-1, 1)
    return waves


def _waves(spectrum: torch.Tensor, mel: MelConfig) -> torch.Tensor:
    """Return the waveforms whose transform is nearest to `spectrum`."""
    surplus = mel.n_fft - mel.win_length
    window = torch.hann_window(mel.win_length, device=spectrum.device)
    window = torch.nn.functional.pad(window, (surplus // 2, surplus - surplus // 2))[:, None]
    frames = torch.fft.irfft(spectrum, n=mel.n_fft, dim=1) * window
    weight = _overlapped(window.square().expand(1, -1, frames.shape[-1]), mel)
    waves = _overlapped(frames, mel) / weight.clamp(min=_COVERED)
    return waves[:, mel.pad : waves.shape[1] - mel.pad]


def _overlapped(frames: torch.Tensor, mel: MelConfig) -> torch.Tensor:
    """Add up ``(batch, n_fft, frames)`` a hop apart."""
    length = (frames.shape[-1] - 1) * mel.hop_length + mel.n_fft
    stride = (1, mel.hop_length)
    return torch.nn.functional.fold(frames, (1, length), (1, mel.n_fft), stride=stride)[:, 0, 0]
