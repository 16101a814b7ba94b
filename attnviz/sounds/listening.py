"""Sound events of any audio, heard by a trained listener."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from attnviz.audio import MEL, SpectrogramGrid, fit_width, load_audio, log_mel, mel_to_image
from attnviz.audio.levels import INAUDIBLE_DBFS, levels
from attnviz.errors import AudioError
from attnviz.events import event_table
from attnviz.sounds.decoding import Decoding
from attnviz.sounds.hearing import Hearing
from attnviz.sounds.listener_folder import trained_listener
from attnviz.sounds.listener_model import Listener

_WINDOW = 1024  # columns: the 10.24 s that the listener was trained on
_OVERLAP = 256  # columns that neighbouring windows share: 2.56 s
_CONTEXT = -(-MEL.pad // MEL.hop_length)  # hops around a window that its outermost columns look at

_logger = logging.getLogger(__name__)


def listen(
    audio: str | os.PathLike[str] | np.ndarray | torch.Tensor,
    *,
    sample_rate: int | None = None,
    model: str | os.PathLike[str] | Listener | None = None,
    decoding: Decoding | None = None,
) -> Hearing:
    """Find the sound events of a clip.

    Parameters
    ----------
    audio : path, numpy.ndarray or torch.Tensor
        A WAV, FLAC or OGG file of any sample rate and number of channels; or samples, ``(samples,)`` or
        ``(samples, channels)``. Of any length from 0.06 s.
    sample_rate : int, optional
        Samples a second of an array; None: 16 000. A file says its own.
    model : path-like or Listener, optional
        Folder of a trained listener, or one that is loaded; None: the bundled one. The folder holds
        ``config.json`` and ``listener.safetensors``, and may hold ``decoding.json`` and ``quality.json``.
    decoding : Decoding, optional
        How probabilities become events; None: the folder's own, or the defaults.

    Returns
    -------
    Hearing
        Probabilities, events, and the listener's measured quality, which is printed with them. Of a `Listener`
        that was given as an object, the quality is unknown.

    Raises
    ------
    AudioError
        Audio that cannot be read, is too short, or holds NaN.
    CheckpointError
        The listener is missing or damaged.
    EventsError
        `decoding` has no threshold for one of the listener's classes.

    Notes
    -----
    The listener hears the ten classes of ESC-10 (`attnviz.sounds.CLASSES`) and no others: another sound is
    taken for one of them, or for none; ``Hearing.doubt`` says where that is likely.

    Nothing is reported where the audio is inaudible: where the 0.4 s around a frame are below -50 dB of full scale
    (`attnviz.audio.levels`), every probability is 0.

    The level of the audio is left alone. The listener was trained on mixtures that peak at up to 0.95, of
    sounds whose loudest 10 ms are 28 to 12 dB below full scale; much quieter audio is better amplified first.

    Audio of more than 10.24 s, the length of a training scene, is heard in windows of 10.24 s, which overlap
    by 2.56 s (the last, which ends with the audio, by more); where they do, they are cross-faded. Shorter
    audio is heard at its own length. A frame is reported where its centre lies within the audio.
    """
    trained = trained_listener(model)
    samples = _samples(audio, sample_rate)
    seconds = samples.size / MEL.sample_rate
    step = trained.listener.config.columns_per_frame
    frames = -(-MEL.frames(samples.size) // step)
    columns = frames * step
    grid = SpectrogramGrid(width=columns, audio_seconds=min(seconds, columns * MEL.hop_length / MEL.sample_rate))
    heard = ~grid.padding(frames)
    heard[0] = True  # of a listener whose frames are longer than the audio
    level = levels(samples, step * MEL.hop_length)[:frames][heard]
    probabilities = xr.DataArray(
        _probabilities(samples, trained.listener, frames)[:, heard] * (level >= INAUDIBLE_DBFS).astype(np.float32),
        {"sound": list(trained.listener.config.classes), "time": grid.time(frames)[heard]},
        ("sound", "time"),
        name="probability",
    )
    clip = _clip_name(audio)
    events = _events(probabilities, decoding or trained.decoding, clip, seconds, step)
    _logger.info("heard %d events in %.2f s of %s", len(events), seconds, clip)
    level_over_time = xr.DataArray(level, {"time": grid.time(frames)[heard]}, ("time",), name="level")
    return Hearing(
        clip, seconds, probabilities, events, grid.column_seconds(frames), trained.quality, level_over_time
    )


def _samples(audio: Any, sample_rate: int | None) -> np.ndarray:
    if sample_rate is not None and isinstance(audio, (str, os.PathLike)):
        raise AudioError(f"sample_rate is {sample_rate}, but the file {audio} states its own: leave it out.")
    samples = load_audio(audio, source_rate=sample_rate)
    if samples.size < MEL.shortest:
        raise AudioError(
            f"the clip has {samples.size} samples at {MEL.sample_rate} Hz; at least {MEL.shortest} "
            f"({MEL.shortest / MEL.sample_rate:.3f} s) are needed."
        )
    return samples


def _clip_name(audio: Any) -> str:
    if not isinstance(audio, (str, os.PathLike)):
        return "audio"
    # A file's name need not be Unicode, but must be in a table that is written as text.
    return Path(audio).name.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _probabilities(samples: np.ndarray, listener: Listener, frames: int) -> np.ndarray:
    """Return ``(classes, frames)`` float32."""
    step = listener.config.columns_per_frame
    window, overlap = max(1, _WINDOW // step), _OVERLAP // step
    total = np.zeros((len(listener.config.classes), frames))
    weights = np.zeros(frames)
    with _evaluating(listener), torch.inference_mode():
        for first, last in _windows(frames, window, overlap):
            image = torch.from_numpy(_image(samples, first * step, last * step))
            heard = listener(image[None].to(next(listener.parameters()))).float().sigmoid()[0].cpu().numpy()
            weight = _fades(last - first, overlap)
            total[:, first:last] += weight * heard
            weights[first:last] += weight
    return (total / weights).astype(np.float32)


def _windows(frames: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """Return the first frame of each window and the first after it; all are of one length, if frames suffice."""
    last = max(0, frames - window)
    return [(start, min(start + window, frames)) for start in [*range(0, last, window - overlap), last]]


def _fades(length: int, overlap: int) -> np.ndarray:
    """Return weights that rise over the overlap, stay at 1, and fall; never 0."""
    ramp = np.arange(1, length + 1) / (overlap + 1)
    return np.minimum(1.0, np.minimum(ramp, ramp[::-1]))


def _image(samples: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Return columns of the whole clip's mel image, silent beyond its end, without computing the others."""
    first = max(0, start - _CONTEXT)
    piece = samples[first * MEL.hop_length : (stop + _CONTEXT) * MEL.hop_length]
    return fit_width(mel_to_image(log_mel(piece))[:, start - first :], stop - start)


def _events(probabilities: xr.DataArray, decoding: Decoding, clip: str, seconds: float, step: int) -> pd.DataFrame:
    classes = [str(name) for name in probabilities["sound"].values]
    hop = step * MEL.hop_length  # samples of a frame
    found = decoding.intervals(probabilities.values, classes, hop / MEL.sample_rate)
    rows = [
        {
            "clip": clip,
            "label": label,
            "onset": first * hop / MEL.sample_rate,
            "offset": min(last * hop / MEL.sample_rate, seconds),
        }
        for label, intervals in zip(classes, found, strict=True)
        for first, last in intervals
    ]
    return event_table(sorted(rows, key=lambda row: row["onset"]))


@contextmanager
def _evaluating(listener: Listener) -> Iterator[None]:
    """Switch dropout and batch statistics off, and back as they were."""
    training = listener.training
    listener.eval()
    try:
        yield
    finally:
        listener.train(training)
