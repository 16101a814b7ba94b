"""Audio in and out of files."""

from __future__ import annotations

import io
import os
import wave
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch

from attnviz.arguments import public
from attnviz.audio.mel import checked_audio
from attnviz.audio.settings import MEL, whole_number
from attnviz.audio.truncation import missing_bytes, missing_samples
from attnviz.errors import AudioError
from attnviz.io.paths import checked_path
from attnviz.io.storage import write_whole

_FULL_SCALE = 32768  # 2**15: the magnitude that 16 bits give the value 1.0
_BITS_24, _BITS_32 = 2**23, 2**31
_LOUDEST = 100.0  # 40 dB above full scale
_MOST_CHANNELS = 64  # more than this is samples in the place of channels


@public
def load_audio(
    source: str | os.PathLike[str] | np.ndarray | torch.Tensor,
    sample_rate: int = MEL.sample_rate,
    *,
    source_rate: int | None = None,
) -> np.ndarray:
    """Read audio as one channel at `sample_rate`.

    Parameters
    ----------
    source : path, numpy.ndarray or torch.Tensor
        A WAV, FLAC, OGG (or other libsndfile) file of any sample rate and number of channels; or samples,
        ``(samples,)`` or ``(samples, channels)``: floating point is taken as it is; int16 and int8 are divided
        by their full scale, as is uint8 around 128. Of int32 and int64 the values tell: those beyond 2**23 are of
        32 bits, and anything smaller could be of 16, 24 or 32 bits, so it is refused.
    sample_rate : int
        Samples a second wanted.
    source_rate : int, optional
        Samples a second of an array; None: `sample_rate`. A file says its own.

    Returns
    -------
    numpy.ndarray
        ``(samples,)`` float32, channels averaged, resampled with soxr's high quality. Not normalised.

    Raises
    ------
    AudioError
        No such file, not an audio file, one that breaks off before the end that it states (MP3 without a Xing
        or Info tag states none), no samples, NaN, an array of another shape or type, or values whose full scale
        cannot be told.
    """
    sample_rate = whole_number("sample_rate", sample_rate)
    if isinstance(source, (np.ndarray, torch.Tensor)):
        where = "the audio array"
        samples = _from_array(source)
        rate = sample_rate if source_rate is None else whole_number("source_rate", source_rate)
    elif isinstance(source, (str, os.PathLike)):
        where = f"audio file {os.fspath(source)}"
        if source_rate is not None:
            raise AudioError(
                f"source_rate is {source_rate}, but {where} states its own sample rate: leave it out."
            )
        samples, rate = _from_file(checked_path(source, "the path of an audio file", AudioError), where)
    else:
        raise AudioError(f"audio is a {type(source).__name__}; a path, a numpy array or a torch tensor is needed.")
    if samples.size == 0:
        raise AudioError(f"{where} has 0 samples; at least one is needed.")
    if not np.isfinite(samples).all():
        raise AudioError(f"{where} holds samples that are NaN or infinite; all must be finite.")
    mono = samples.mean(axis=1, dtype=np.float64).astype(np.float32) if samples.ndim == 2 else samples
    if rate != sample_rate:
        mono = librosa.resample(mono, orig_sr=rate, target_sr=sample_rate, res_type="soxr_hq")
    return mono


def _from_file(path: Path, where: str) -> tuple[np.ndarray, int]:
    try:
        # Given bytes without a name, libsndfile goes by the content and not by the name's ending.
        content = io.BytesIO(path.read_bytes())
    except FileNotFoundError as error:
        raise AudioError(f"there is no {where}. Is the path relative to another folder?") from error
    except (OSError, ValueError) as error:
        raise AudioError(f"{where} cannot be opened: {error}.") from error
    damage = missing_bytes(content.getvalue())
    try:
        with soundfile.SoundFile(content) as file:
            stated, rate = file.frames, file.samplerate
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError, ValueError, MemoryError) as error:
        raise AudioError(f"{where} is not audio that can be read (WAV, FLAC and OGG can): {error}") from error
    damage = damage or missing_samples(content.getvalue(), stated, len(samples))
    if damage is not None:
        raise AudioError(
            f"{where} breaks off: {damage}. Was it copied or downloaded only in part? To use what is there, have "
            "another program write it anew."
        )
    return samples, int(rate)


def _from_array(source: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu()
        source = (source.float() if source.is_floating_point() else source).numpy()
    if source.ndim not in (1, 2) or (source.ndim == 2 and source.shape[1] > _MOST_CHANNELS):
        raise AudioError(
            f"the audio array has the shape {source.shape}; (samples,) or (samples, channels) is needed. "
            "Are the channels first? Then transpose it."
        )
    if source.dtype == np.uint8:  # the one unsigned format of audio files, silent at 128
        return (source.astype(np.float32) - 128) / 128
    if np.issubdtype(source.dtype, np.signedinteger):
        return (source / _full_scale(source)).astype(np.float32)
    if np.issubdtype(source.dtype, np.floating):
        _check_level(source)
        return source.astype(np.float32)
    raise AudioError(f"the audio array has the type {source.dtype}; floating point or signed integers are needed.")


def _full_scale(source: np.ndarray) -> float:
    """Return the magnitude of 1.0. NumPy makes int64 of any list, so that the container alone says nothing."""
    if source.dtype.itemsize <= 2:
        return float(np.iinfo(source.dtype).max) + 1
    peak = max(-int(source.min()), int(source.max())) if source.size else 0
    if peak == 0:
        return 1.0
    if _BITS_24 < peak <= _BITS_32:
        return float(_BITS_32)
    raise AudioError(
        f"the audio array is {source.dtype} with a peak of {peak}, which does not tell its full scale: 16, 24 or "
        "32 bits? Give int16, audio.astype(numpy.int16), or floating point in [-1, 1], audio / 32768 for 16 bits."
    )


def _check_level(samples: np.ndarray) -> None:
    peak = float(np.abs(samples[np.isfinite(samples)]).max(initial=0.0))
    if peak > _LOUDEST:
        raise AudioError(
            f"the audio array is {samples.dtype} with a peak of {peak:g}; floating-point samples are in [-1, 1]. "
            "Are they those of 16 bits? Then divide them by 32768."
        )


@public
def to_int16(audio: np.ndarray) -> np.ndarray:
    """Turn samples in [-1, 1] into 16-bit ones.

    Parameters
    ----------
    audio : numpy.ndarray
        ``(samples,)`` floating point.

    Returns
    -------
    numpy.ndarray
        ``(samples,)`` int16: ``x * 32768`` truncated toward zero and clipped to [-32768, 32767].

    Raises
    ------
    AudioError
        `audio` is not one channel of finite floating-point samples.

    Notes
    -----
    Differences from the original: the authors' code does not clip, so +1.0 wraps around to -32768.

    Examples
    --------
    >>> to_int16(np.array([-1.0, -0.00005, 0.5, 1.0])).tolist()
    [-32768, -1, 16384, 32767]
    """
    samples = checked_audio(audio)
    # Scaled only after clipping, or the largest floats would overflow. float16 cannot hold 32767.
    wide = np.clip(samples.astype(np.result_type(samples.dtype, np.float32)), -1.0, 1.0) * _FULL_SCALE
    return np.clip(np.trunc(wide), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


@public
def write_wav(path: str | os.PathLike[str], audio: np.ndarray, sample_rate: int = MEL.sample_rate) -> None:
    """Write one channel of audio as a 16-bit WAV file, whole or not at all.

    Parameters
    ----------
    path : path
        The file; one that is there already is replaced. Its folder must exist.
    audio : numpy.ndarray
        ``(samples,)`` floating point in [-1, 1]; beyond is clipped (:func:`to_int16`).
    sample_rate : int
        Samples a second.

    Raises
    ------
    AudioError
        `audio` is not one channel of finite floating-point samples, or `sample_rate` is not a positive int.
    OutputError
        The file cannot be written: no such folder, no permission, no space. What was there is untouched.
    """
    sample_rate = whole_number("sample_rate", sample_rate)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(to_int16(audio).astype("<i2").tobytes())
    write_whole(path, buffer.getvalue())
