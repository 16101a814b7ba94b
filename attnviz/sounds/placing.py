"""One recording as one sound of a scene: cut, pitched, set to a level, and put in its place."""

from __future__ import annotations

import librosa
import numpy as np

from attnviz.audio import MEL
from attnviz.errors import AudioError
from attnviz.sounds.audibility import audible_frames, frame_levels
from attnviz.sounds.config import ComposerConfig
from attnviz.sounds.recordings import RECORDING_RATE, Recording

_FADE = MEL.sample_rate // 200  # 5 ms at both ends, so that a cut makes no click
_BEFORE, _AFTER = 2, 5  # inaudible frames kept around the sound: its attack, its decay
_MARGIN = 0.02  # seconds between the loudest moment and where a recording may be cut


def cut_sound(
    recording: Recording, *, seconds: float, semitones: float, level: float, where: float, config: ComposerConfig
) -> np.ndarray:
    """Return a piece of a recording, pitched, scaled, and without inaudible ends.

    Parameters
    ----------
    recording : Recording
        What is cut.
    seconds : float
        Length of the piece; less where the recording is shorter.
    semitones : float
        Change of pitch by resampling.
    level : float
        Level of the loudest frame, in dB relative to full scale, bass and all.
    where : float
        0 to 1: from the earliest to the latest piece that holds the recording's loudest frame. So the piece
        holds the sound, and "audible" is measured against the same loudest frame.
    config : ComposerConfig
        For the rule of what is audible.

    Returns
    -------
    numpy.ndarray
        ``(samples,)`` float32 at 16 kHz, a whole number of frames, faded at both ends.

    Raises
    ------
    AudioError
        The recording cannot be read any more, or nothing of it is audible by the rule of `config`.
    """
    rate = RECORDING_RATE * 2 ** (semitones / 12)
    audio, (loudest, over) = recording.audio, recording.loudest
    wanted = min(audio.size, round(seconds * rate))
    margin = round(_MARGIN * rate)
    latest = max(0, min(loudest - margin, audio.size - wanted))
    earliest = min(max(0, over + margin - wanted), latest)
    start = earliest + round(where * (latest - earliest))
    piece = audio[start : start + wanted]
    piece = librosa.resample(piece, orig_sr=rate, target_sr=MEL.sample_rate, res_type="soxr_hq")
    piece = piece[: max(1, piece.size // MEL.hop_length) * MEL.hop_length].copy()
    piece *= np.float32(10 ** ((level - frame_levels(piece, weighted=False).max()) / 20))
    audible = np.flatnonzero(heard(piece, config))
    if audible.size == 0:
        raise AudioError(
            f"nothing of {recording.path} is above the audible_floor of {config.audible_floor:g} dB when its "
            f"loudest 10 ms are set to {level:.1f} dB. Is it all bass? Raise levels, or lower audible_floor."
        )
    first, last = max(0, audible[0] - _BEFORE), audible[-1] + 1 + _AFTER
    piece = piece[first * MEL.hop_length : last * MEL.hop_length]
    ramp = np.linspace(0, 1, _FADE, endpoint=False, dtype=np.float32)
    piece[:_FADE] *= ramp
    piece[-_FADE:] *= ramp[::-1]
    return piece


def heard(audio: np.ndarray, config: ComposerConfig) -> np.ndarray:
    """Return in which frames of the spectrogram a sound is audible, by the rule of `config`."""
    return audible_frames(
        audio, range_db=config.audible_range, floor_db=config.audible_floor, min_gap=config.min_gap
    )


def place(piece: np.ndarray, start: int, frames: int) -> np.ndarray:
    """Return ``(frames * hop,)`` float32: silence, and `piece` from frame `start` on."""
    stem = np.zeros(frames * MEL.hop_length, dtype=np.float32)
    begin = start * MEL.hop_length
    stem[begin : begin + piece.size] = piece[: stem.size - begin]
    return stem


def starts_in_sequence(lengths: list[int], frames: int, rng: np.random.Generator) -> list[int]:
    """Return first frames of sounds one after another, with gaps by chance, that fit `frames` together."""
    room = frames - sum(lengths)
    gaps = np.sort(rng.integers(0, room + 1, size=len(lengths)))
    return [int(gap) + sum(lengths[:i]) for i, gap in enumerate(gaps)]


def starts_anywhere(lengths: list[int], frames: int, rng: np.random.Generator) -> list[int]:
    """Return a first frame for each sound, independent of the others; each ends within `frames`."""
    return [int(rng.integers(0, frames - length + 1)) for length in lengths]


def coloured_noise(samples: int, level: float, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Return steady noise.

    Parameters
    ----------
    samples : int
        Length.
    level : float
        Root mean square, in dB relative to full scale.
    slope : float
        Power falls with frequency to this exponent: 0 is white, 1 pink, 2 brown noise (level below 40 Hz).
    rng : numpy.random.Generator
        Where the noise comes from.
    """
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    freq = np.fft.rfftfreq(samples, 1 / MEL.sample_rate)
    spectrum *= np.maximum(freq, 40.0) ** (-slope / 2)
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, samples)
    return (noise * (10 ** (level / 20) / np.sqrt(np.mean(noise**2)))).astype(np.float32)
