"""Compute natural-log mel spectrograms with Auffusion's parameters."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from librosa.filters import mel as slaney_filters

from attnviz.arguments import public
from attnviz.audio.settings import MEL, MelConfig, finite_number
from attnviz.errors import AudioError

_POWER_FLOOR = 1e-9  # added inside the root, so that its gradient is finite in silence


@public
def peak_normalize(audio: np.ndarray, peak: float = 0.95) -> np.ndarray:
    """Scale audio so that its largest magnitude is `peak`.

    Parameters
    ----------
    audio : numpy.ndarray
        ``(samples,)`` floating point.
    peak : float
        Largest magnitude of the result, above 0; 0.95 in Auffusion.

    Returns
    -------
    numpy.ndarray
        ``(samples,)`` float32. Silence stays silent.

    Raises
    ------
    AudioError
        If `audio` is not one channel of finite floating-point samples, or `peak` is not above 0.

    Notes
    -----
    Computed in float64 and rounded once, because rounding errors of the samples change the logarithm by up to
    0.002 in the quietest cells of a spectrogram.
    """
    peak = finite_number("peak", peak)
    if peak <= 0:
        raise AudioError(f"peak is {peak:g}; it must be above 0 (Auffusion uses 0.95).")
    wide = checked_audio(audio).astype(np.float64)
    largest = float(np.abs(wide).max())
    return (wide / largest * peak if largest > 0 else wide).astype(np.float32)


@public
def log_mel(audio: np.ndarray, mel: MelConfig = MEL) -> np.ndarray:
    """Compute the natural-log mel spectrogram of one channel of audio.

    Parameters
    ----------
    audio : numpy.ndarray
        ``(samples,)`` floating point, usually in [-1, 1], at ``mel.sampling_rate``; at least ``mel.shortest``
        samples (945 with the defaults).
    mel : MelConfig
        Parameters of the transform.

    Returns
    -------
    numpy.ndarray
        ``(bands, frames)`` float32, natural logarithm of the mel magnitude, lowest band first, never below
        ln 1e-5; ``frames = samples // hop_length``.

    Raises
    ------
    AudioError
        If `audio` is not one channel of finite floating-point samples, or is too short.

    Notes
    -----
    The audio is mirrored by ``(n_fft - hop_length) / 2`` at both ends, without further centring; the magnitude
    is ``sqrt(re^2 + im^2 + 1e-9)``; the filter bank is librosa's default (Slaney's scale and norm).
    Source: Auffusion (arXiv 2401.01044), after HiFi-GAN (arXiv 2010.05646).
    """
    samples = checked_audio(audio).astype(np.float32)
    if samples.size < mel.shortest:
        raise AudioError(
            f"audio has {samples.size} samples, but a spectrogram needs at least {mel.shortest} "
            f"({mel.shortest / mel.sampling_rate:.3f} s at {mel.sampling_rate} Hz). "
            "Does the audio have another sampling rate?"
        )
    with torch.no_grad():
        return log_mels(torch.from_numpy(samples)[None], mel)[0].numpy()


def log_mels(waves: torch.Tensor, mel: MelConfig = MEL) -> torch.Tensor:
    """Compute :func:`log_mel` for a batch, with gradients.

    Parameters
    ----------
    waves : torch.Tensor
        ``(batch, samples)`` float32. Length and finiteness are not checked.
    mel : MelConfig
        Parameters of the transform.

    Returns
    -------
    torch.Tensor
        ``(batch, bands, frames)`` float32, on the device of `waves`.
    """
    return mel_of_spectra(spectra(waves, mel), mel)


def spectra(waves: torch.Tensor, mel: MelConfig = MEL) -> torch.Tensor:
    """Return the short-time Fourier transform behind :func:`log_mels`, ``(batch, n_fft // 2 + 1, frames)``."""
    padded = torch.nn.functional.pad(waves[None], (mel.pad, mel.pad), mode="reflect")[0]
    return torch.stft(
        padded,
        mel.n_fft,
        hop_length=mel.hop_length,
        win_length=mel.win_length,
        window=torch.hann_window(mel.win_length, device=waves.device),
        center=False,
        return_complex=True,
    )


def mel_of_spectra(spectrum: torch.Tensor, mel: MelConfig = MEL) -> torch.Tensor:
    """Return the natural-log mel of :func:`spectra`, ``(batch, bands, frames)``."""
    magnitude = torch.sqrt(torch.view_as_real(spectrum).square().sum(-1) + _POWER_FLOOR)
    # Copy: torch warns about read-only memory.
    filters = torch.tensor(mel_filters(mel), device=spectrum.device)
    with torch.autocast(spectrum.device.type, enabled=False):  # 16-bit products would show in the logarithm
        return torch.log(torch.matmul(filters, magnitude).clamp(min=1e-5))


@lru_cache(maxsize=8)
def mel_filters(mel: MelConfig = MEL) -> np.ndarray:
    """Return the mel filter bank: ``(bands, n_fft // 2 + 1)`` float32. The array is cached: do not write to it."""
    return slaney_filters(sr=mel.sampling_rate, n_fft=mel.n_fft, n_mels=mel.n_mels, fmin=mel.fmin, fmax=mel.fmax)


def checked_audio(audio: np.ndarray) -> np.ndarray:
    """Return `audio` as an array, or raise AudioError unless it is one channel of finite floats."""
    samples = np.asarray(audio)
    if not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"audio has the type {samples.dtype}; expected floating-point samples in [-1, 1]. "
            "If these are 16-bit samples, divide them by 32768 (load_audio does that)."
        )
    if samples.ndim != 1:
        raise AudioError(
            f"audio has the shape {samples.shape}; expected one channel, (samples,). "
            "load_audio averages the channels."
        )
    if samples.size == 0:
        raise AudioError("audio has 0 samples; at least one is needed.")
    if not np.isfinite(samples).all():
        bad = int(samples.size - np.isfinite(samples).sum())
        raise AudioError(f"{bad} of {samples.size} audio samples are NaN or infinite; all must be finite.")
    return samples
