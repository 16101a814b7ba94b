"""Join a regenerated part of a clip with the original waveform without clicks."""

from __future__ import annotations

import librosa
import numpy as np
import torch

from attnviz.audio import MEL
from attnviz.errors import AudioError

FADE_SECONDS = 0.02
"""Maximum length of the cross-fade at a seam, which is inside the regenerated part."""

_N_FFT = 1024


def join_kept(original: np.ndarray, drawn: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Restore the original outside the regenerated part.

    Parameters
    ----------
    original : numpy.ndarray, shape (samples,)
        The clip at 16 kHz. If it is shorter than `drawn`, silence is appended.
    drawn : numpy.ndarray, shape (samples,)
        Generated waveform at the level of the original.
    mask : numpy.ndarray, shape (bands, frames), bool
        Regenerated part of the spectrogram, lowest band first; frames of 10 ms.

    Returns
    -------
    numpy.ndarray, shape (samples,), float32
        Waveform with the length of `drawn`. Frames without a masked band are bit-identical to the original. Frames
        in which all bands are masked are equal to `drawn`, except for a cross-fade of at most 20 ms at each seam.
        In other frames, each frequency is from one or the other, by the short-time Fourier transform of their
        difference.

    Raises
    ------
    AudioError
        If the mask has fewer frames than the audio.

    Notes
    -----
    The cross-fade is a raised cosine. Each waveform has its full level and slope at its end of the cross-fade, so
    neither a jump nor a kink is added.
    """
    samples = len(drawn)
    frames = -(-samples // MEL.hop_length)
    if mask.shape[1] < frames:
        raise AudioError(f"The mask has {mask.shape[1]} frames of 10 ms, and the audio {frames}.")
    mask = np.asarray(mask[:, :frames], dtype=bool)
    kept = np.zeros(samples, dtype=np.float32)
    kept[: min(samples, len(original))] = original[:samples]
    difference = drawn.astype(np.float32) - kept
    touched, full = (np.asarray(some(mask, axis=0)) for some in (np.any, np.all))
    if not np.array_equal(touched, full):
        difference = _of_masked_bands(difference, mask)
    gate = _gate(touched, samples)
    # Where the gate is open, use `drawn` itself and not the sum of the original and the difference.
    joined = kept + gate * difference
    whole = (gate == 1) & np.repeat(full, MEL.hop_length)[:samples]
    joined[whole] = drawn[whole]
    return joined.astype(np.float32)


def _gate(touched: np.ndarray, samples: int) -> np.ndarray:
    """Return a gate that rises and falls in each run of touched frames, without fades at the ends of the clip."""
    gate = np.repeat(touched, MEL.hop_length)[:samples].astype(np.float32)
    edges = np.flatnonzero(np.diff(np.r_[0, gate, 0]))
    for start, end in edges.reshape(-1, 2):
        length = min(round(FADE_SECONDS * MEL.sampling_rate), (end - start) // 2)
        fade = (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32)
        if start > 0:
            gate[start : start + length] = fade
        if end < samples:
            gate[end - length : end] = fade[::-1]
    return gate


def _of_masked_bands(signal: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the part of a signal in the masked bands of each frame."""
    window = torch.hann_window(_N_FFT)
    spectrum = torch.stft(
        torch.from_numpy(signal), _N_FFT, MEL.hop_length, window=window, center=True, return_complex=True
    )
    hertz = np.fft.rfftfreq(_N_FFT, 1 / MEL.sampling_rate)
    low, high = (librosa.hz_to_mel(each) for each in (MEL.fmin, MEL.fmax))
    bands = ((librosa.hz_to_mel(hertz) - low) / (high - low) * len(mask)).astype(int).clip(0, len(mask) - 1)
    # Transforms are centred on the first sample of each frame, and one more on the end.
    chosen = mask[bands][:, np.arange(spectrum.shape[1]).clip(max=mask.shape[1] - 1)]
    part = torch.istft(
        spectrum * torch.from_numpy(chosen), _N_FFT, MEL.hop_length, window=window, length=len(signal)
    )
    return part.numpy()
