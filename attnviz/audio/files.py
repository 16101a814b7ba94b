"""Read and write audio files."""

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

AudioSource = str | os.PathLike[str] | np.ndarray | torch.Tensor
"""What is read as audio: a file, or samples."""

_FULL_SCALE = 32768  # 2**15: the 16-bit magnitude of 1.0
_BITS_24, _BITS_32 = 2**23, 2**31
_SLOWEST = 100  # times slower than what is asked for, no recording is
_LOUDEST = 100.0  # 40 dB above full scale
_MOST_CHANNELS = 64  # a longer second axis holds samples, not channels


@public
def load_audio(
    source: AudioSource,
    sampling_rate: int = MEL.sampling_rate,
    *,
    source_rate: int | None = None,
    channels: int = 1,
) -> np.ndarray:
    """Load audio at `sampling_rate`, by default as one channel.

    Parameters
    ----------
    source : path, numpy.ndarray or torch.Tensor
        A WAV, FLAC, OGG (or other libsndfile) file of any sampling rate and number of channels; or samples of
        shape ``(samples,)`` or ``(samples, channels)``. Floating-point samples are used as they are. int16 and
        int8 are divided by their full scale, and so is uint8 around 128. For int32 and int64 the full scale
        follows from the values: a peak above 2**23 means 32 bits. A smaller peak could be of 16, 24 or 32 bits,
        which is an error.
    sampling_rate : int
        Sampling rate of the result, in Hz.
    source_rate : int, optional
        Sampling rate of an array, in Hz; default: `sampling_rate`. A file states its sampling rate.
    channels : int
        Channels of the result. If the source has another number of them, each is the mean of all its channels.

    Returns
    -------
    numpy.ndarray
        ``(samples,)`` float32, or ``(samples, channels)`` of several channels, resampled with soxr's high
        quality. Not normalized.

    Raises
    ------
    AudioError
        If the file is missing, is not audio, or ends before its stated length (MP3 without a Xing or Info tag
        states none); if there are no samples, or NaN; if an array has another shape or type, or the full scale of
        its values is ambiguous.
    """
    sampling_rate = whole_number("sampling_rate", sampling_rate)
    channels = whole_number("channels", channels, most=_MOST_CHANNELS)
    if isinstance(source, (np.ndarray, torch.Tensor)):
        where = "the audio array"
        samples = _from_array(source)
        rate = sampling_rate if source_rate is None else whole_number("source_rate", source_rate)
        if rate * _SLOWEST < sampling_rate:
            raise AudioError(
                f"source_rate is {rate} Hz, below 1/{_SLOWEST} of the sampling rate, {sampling_rate} Hz. Was it "
                "given in kHz?"
            )
    elif isinstance(source, (str, os.PathLike)):
        where = f"audio file {os.fspath(source)}"
        if source_rate is not None:
            raise AudioError(
                f"source_rate is {source_rate}, but {where} states its own sampling rate: omit source_rate."
            )
        samples, rate = _from_file(checked_path(source, "the path of an audio file", AudioError), where)
    else:
        raise AudioError(f"audio is a {type(source).__name__}; expected a path, a numpy array or a torch tensor.")
    if samples.size == 0:
        raise AudioError(f"{where} has 0 samples; at least one is needed.")
    if not np.isfinite(samples).all():
        raise AudioError(f"{where} has samples that are NaN or infinite; all must be finite.")
    if channels == 1 or samples.ndim == 1 or samples.shape[1] != channels:
        mono = samples.mean(axis=1, dtype=np.float64).astype(np.float32) if samples.ndim == 2 else samples
        resampled = _resampled(mono, rate, sampling_rate)
        return resampled if channels == 1 else np.repeat(resampled[:, None], channels, axis=1)
    return np.stack([_resampled(channel, rate, sampling_rate) for channel in samples.T], axis=1)


def _resampled(mono: np.ndarray, rate: int, sampling_rate: int) -> np.ndarray:
    if rate == sampling_rate:
        return mono
    return librosa.resample(mono, orig_sr=rate, target_sr=sampling_rate, res_type="soxr_hq")


def _from_file(path: Path, where: str) -> tuple[np.ndarray, int]:
    try:
        # Given bytes without a name, libsndfile detects the format from the content, not from the file extension.
        content = io.BytesIO(path.read_bytes())
    except FileNotFoundError as error:
        raise AudioError(f"{where} does not exist. Is the path relative to another folder?") from error
    except (OSError, ValueError) as error:
        raise AudioError(f"{where} cannot be opened: {error}.") from error
    damage = missing_bytes(content.getvalue())
    try:
        with soundfile.SoundFile(content) as file:
            stated, rate = file.frames, file.samplerate
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError, ValueError, MemoryError) as error:
        if not content.getbuffer():
            raise AudioError(f"{where} is empty (0 bytes).") from error
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else f"{error}."
        raise AudioError(
            f"{where} is not audio that can be read: {reason} WAV, FLAC, OGG, MP3 and AIFF can; convert other "
            "formats, for example with ffmpeg."
        ) from error
    damage = damage or missing_samples(content.getvalue(), stated, len(samples))
    if damage is not None:
        raise AudioError(
            f"{where} breaks off: {damage}. Was it copied or downloaded only in part? To use the remaining "
            "samples, convert the file with another program."
        )
    return samples, int(rate)


def _from_array(source: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(source, torch.Tensor):
        source = source.detach().cpu()
        source = (source.float() if source.is_floating_point() else source).numpy()
    if source.ndim not in (1, 2) or (source.ndim == 2 and source.shape[1] > _MOST_CHANNELS):
        raise AudioError(
            f"the audio array has the shape {source.shape}; expected (samples,) or (samples, channels). "
            "If the channels come first, transpose it."
        )
    if source.dtype == np.uint8:  # the only unsigned format of audio files; silence is 128
        return (source.astype(np.float32) - 128) / 128
    if np.issubdtype(source.dtype, np.signedinteger):
        return (source / _full_scale(source)).astype(np.float32)
    if np.issubdtype(source.dtype, np.floating):
        _check_level(source)
        return source.astype(np.float32)
    raise AudioError(f"the audio array has the type {source.dtype}; expected floating point or signed integers.")


def _full_scale(source: np.ndarray) -> float:
    """Return the magnitude of 1.0. NumPy makes int64 of any list, so the dtype alone does not determine it."""
    if source.dtype.itemsize <= 2:
        return float(np.iinfo(source.dtype).max) + 1
    peak = max(-int(source.min()), int(source.max())) if source.size else 0
    if peak == 0:
        return 1.0
    if _BITS_24 < peak <= _BITS_32:
        return float(_BITS_32)
    raise AudioError(
        f"the audio array is {source.dtype} with a peak of {peak}, which does not determine its full scale: 16, "
        "24 or 32 bits? Pass int16, audio.astype(numpy.int16), or floats in [-1, 1], audio / 32768 for 16 bits."
    )


def _check_level(samples: np.ndarray) -> None:
    peak = float(np.abs(samples[np.isfinite(samples)]).max(initial=0.0))
    if peak > _LOUDEST:
        raise AudioError(
            f"the audio array is {samples.dtype} with a peak of {peak:g}; floating-point samples are in [-1, 1]. "
            "If these are 16-bit samples, divide them by 32768."
        )


@public
def to_int16(audio: np.ndarray) -> np.ndarray:
    """Convert samples in [-1, 1] to 16 bits.

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
    # Clip before scaling, or the largest floats would overflow. float16 cannot represent 32767.
    wide = np.clip(samples.astype(np.result_type(samples.dtype, np.float32)), -1.0, 1.0) * _FULL_SCALE
    return np.clip(np.trunc(wide), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


@public
def write_wav(path: str | os.PathLike[str], audio: np.ndarray, sampling_rate: int = MEL.sampling_rate) -> None:
    """Write audio as a 16-bit WAV file, completely or not at all.

    Parameters
    ----------
    path : path
        The file; an existing one is replaced. Its folder must exist.
    audio : numpy.ndarray
        ``(samples,)`` or ``(samples, channels)`` floating point in [-1, 1]; values outside are clipped
        (:func:`to_int16`).
    sampling_rate : int
        Sampling rate in Hz.

    Raises
    ------
    AudioError
        If `audio` is not of finite floating-point samples in at most 64 channels, or `sampling_rate` is not a
        positive int.
    OutputError
        If the file cannot be written: no such folder, no permission, no space. An existing file is then unchanged.
    """
    sampling_rate = whole_number("sampling_rate", sampling_rate)
    channels = audio.shape[1] if np.ndim(audio) == 2 else 1
    if not 1 <= channels <= _MOST_CHANNELS:
        raise AudioError(
            f"audio has the shape {np.shape(audio)}; expected (samples,) or (samples, channels). If the channels "
            "come first, transpose it."
        )
    samples = np.ravel(audio) if np.ndim(audio) == 2 else audio  # a WAV file interleaves its channels
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(sampling_rate)
        file.writeframes(to_int16(samples).astype("<i2").tobytes())
    write_whole(path, buffer.getvalue())


def is_wav(path: Path) -> bool:
    """Return whether a path is a WAV file, which may be replaced by one."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"RIFF"
