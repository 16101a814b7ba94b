"""Prepare a recording for a scene: cut it, shift its pitch, set its level and place it."""

from __future__ import annotations

import librosa
import numpy as np

from attnviz.audio import MEL
from attnviz.errors import AudioError
from attnviz.scenes.audibility import audible_frames, frame_levels
from attnviz.scenes.config import ComposerConfig
from attnviz.scenes.recordings import RECORDING_RATE, Recording

_FADE = MEL.sampling_rate // 200  # 5 ms at both ends, to avoid clicks
_BEFORE, _AFTER = 2, 5  # inaudible frames kept for the attack and the decay
_MARGIN = 0.02  # minimum seconds between the loudest frame and a cut


def cut_sound(
    recording: Recording, *, seconds: float, semitones: float, level: float, where: float, config: ComposerConfig
) -> np.ndarray:
    """Return an excerpt of a recording with changed pitch and level and without inaudible ends.

    Parameters
    ----------
    recording : Recording
        Source of the excerpt.
    seconds : float
        Length of the excerpt in seconds, limited to the length of the recording.
    semitones : float
        Pitch change by resampling.
    level : float
        Level of the loudest frame, in dB relative to full scale, without frequency weighting.
    where : float
        Position from 0 (earliest) to 1 (latest) among the excerpts that contain the loudest frame of the
        recording, so that audibility is always relative to the same frame.
    config : ComposerConfig
        Settings that define audibility.

    Returns
    -------
    numpy.ndarray
        ``(samples,)`` float32 at 16 kHz, a whole number of frames, faded at both ends.

    Raises
    ------
    AudioError
        If the recording can no longer be read, or is inaudible with the settings of `config`.
    """
    rate = RECORDING_RATE * 2 ** (semitones / 12)
    audio, (loudest, over) = recording.audio, recording.loudest
    wanted = min(audio.size, round(seconds * rate))
    margin = round(_MARGIN * rate)
    latest = max(0, min(loudest - margin, audio.size - wanted))
    earliest = min(max(0, over + margin - wanted), latest)
    start = earliest + round(where * (latest - earliest))
    piece = audio[start : start + wanted]
    piece = librosa.resample(piece, orig_sr=rate, target_sr=MEL.sampling_rate, res_type="soxr_hq")
    piece = piece[: max(1, piece.size // MEL.hop_length) * MEL.hop_length].copy()
    piece *= np.float32(10 ** ((level - frame_levels(piece, weighted=False).max()) / 20))
    audible = np.flatnonzero(heard(piece, config))
    if audible.size == 0:
        raise AudioError(
            f"{recording.path} stays below the audible_floor of {config.audible_floor:g} dB when its loudest 10 "
            f"ms are set to {level:.1f} dB. Does it contain bass only? Raise levels, or lower audible_floor."
        )
    first, last = max(0, audible[0] - _BEFORE), audible[-1] + 1 + _AFTER
    piece = piece[first * MEL.hop_length : last * MEL.hop_length]
    ramp = np.linspace(0, 1, _FADE, endpoint=False, dtype=np.float32)
    piece[:_FADE] *= ramp
    piece[-_FADE:] *= ramp[::-1]
    return piece


def heard(audio: np.ndarray, config: ComposerConfig) -> np.ndarray:
    """Return the spectrogram frames in which a sound is audible with the settings of `config`."""
    return audible_frames(
        audio, range_db=config.audible_range, floor_db=config.audible_floor, min_gap=config.min_gap
    )


def place(piece: np.ndarray, start: int, frames: int) -> np.ndarray:
    """Return ``(frames * hop,)`` float32: silence with `piece` placed at frame `start`."""
    stem = np.zeros(frames * MEL.hop_length, dtype=np.float32)
    begin = start * MEL.hop_length
    stem[begin : begin + piece.size] = piece[: stem.size - begin]
    return stem


def starts_in_sequence(lengths: list[int], frames: int, rng: np.random.Generator) -> list[int]:
    """Return first frames of consecutive sounds with random gaps, within `frames`."""
    room = frames - sum(lengths)
    gaps = np.sort(rng.integers(0, room + 1, size=len(lengths)))
    return [int(gap) + sum(lengths[:i]) for i, gap in enumerate(gaps)]


def starts_anywhere(lengths: list[int], frames: int, rng: np.random.Generator) -> list[int]:
    """Return independent random first frames of sounds that end within `frames`."""
    return [int(rng.integers(0, frames - length + 1)) for length in lengths]


def coloured_noise(samples: int, level: float, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Return stationary noise.

    Parameters
    ----------
    samples : int
        Number of samples.
    level : float
        Root mean square, in dB relative to full scale.
    slope : float
        Exponent of the decrease of power with frequency: 0 for white, 1 for pink and 2 for brown noise. The
        spectrum is flat below 40 Hz.
    rng : numpy.random.Generator
        Random generator.
    """
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    freq = np.fft.rfftfreq(samples, 1 / MEL.sampling_rate)
    spectrum *= np.maximum(freq, 40.0) ** (-slope / 2)
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, samples)
    return (noise * (10 ** (level / 20) / np.sqrt(np.mean(noise**2)))).astype(np.float32)
