"""Detect sound events in audio with a trained listener."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from attnviz.arguments import public
from attnviz.audio import MEL, SpectrogramGrid, fit_width, load_audio, log_mel, mel_to_image
from attnviz.audio.files import AudioSource
from attnviz.audio.levels import INAUDIBLE_DBFS, levels
from attnviz.errors import AudioError
from attnviz.events import event_table
from attnviz.events.origin import LISTENER, ORIGIN
from attnviz.listener.decoding import Decoding
from attnviz.listener.folder import trained_listener
from attnviz.listener.hearing import Hearing
from attnviz.listener.model import Listener

_WINDOW = 1024  # columns: the 10.24 s of a training scene
_OVERLAP = 256  # columns shared by adjacent windows: 2.56 s
_CONTEXT = -(-MEL.pad // MEL.hop_length)  # hops around a window that its outermost columns depend on

_logger = logging.getLogger(__name__)


@public
def listen(
    audio: AudioSource,
    *,
    sampling_rate: int | None = None,
    model: str | os.PathLike[str] | Listener | None = None,
    decoding: Decoding | None = None,
) -> Hearing:
    """Detect the sound events of a clip.

    Parameters
    ----------
    audio : path, numpy.ndarray or torch.Tensor
        A WAV, FLAC or OGG file with any sampling rate and number of channels, or samples of shape ``(samples,)``
        or ``(samples, channels)``. The length is at least 0.06 s.
    sampling_rate : int, optional
        Sampling rate of an array in Hz. By default, 16 000. Not allowed for files.
    model : path-like or Listener, optional
        Folder of a trained listener, or a loaded listener. By default, the bundled one. The folder contains
        ``config.json`` and ``listener.safetensors``, and optionally ``decoding.json`` and ``quality.json``.
    decoding : Decoding, optional
        Settings that decode probabilities into events. By default, those of the folder, or the defaults of
        `Decoding`.

    Returns
    -------
    Hearing
        Probabilities, events and the measured quality of the listener. The quality is unknown if `model` is a
        `Listener` object.

    Raises
    ------
    AudioError
        If the audio cannot be read, is too short, or contains NaN.
    CheckpointError
        If the listener is missing or damaged.
    EventsError
        If `decoding` has no threshold for a class of the listener.

    Notes
    -----
    The bundled listener detects the ten classes of ESC-10 (`attnviz.scenes.CLASSES`) only. It may mistake other
    sounds for one of these; ``Hearing.doubt`` reports when this is likely.

    Probabilities are 0 where the audio is inaudible, that is, where the 0.4 s around a frame are below -50 dBFS
    (`attnviz.audio.levels`).

    The audio is not normalised. The listener was trained on mixtures with peaks of up to 0.95, in which the
    loudest 10 ms of each sound are 28 to 12 dB below full scale. Amplify much quieter audio first.

    Audio longer than 10.24 s, the length of a training scene, is processed in windows of 10.24 s that overlap by
    2.56 s and are cross-faded. The last window ends with the audio and may overlap by more. Shorter audio is
    processed at its own length. The result contains the frames with their centre within the audio.
    """
    trained = trained_listener(model)
    samples = _samples(audio, sampling_rate)
    seconds = samples.size / MEL.sampling_rate
    step = trained.listener.config.columns_per_frame
    grid, heard = _frames(samples.size, step)
    frames = heard.size
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


def mean_features(audio: np.ndarray, listener: Listener) -> np.ndarray:
    """Compute the mean over time of a listener's features, an embedding of the clip.

    Parameters
    ----------
    audio : numpy.ndarray, shape (samples,)
        Waveform at 16 kHz of at least 0.06 s. Long audio is processed in windows, as by `listen`.
    listener : Listener

    Returns
    -------
    numpy.ndarray, shape (2 * hidden,), float32
        Mean over the frames with their centre within the audio.

    Raises
    ------
    AudioError
        If the audio is too short, or contains NaN.
    """
    samples = _samples(audio, None)
    _, heard = _frames(samples.size, listener.config.columns_per_frame)
    found = _over_windows(samples, listener, heard.size, lambda image: listener.features(image).transpose(1, 2))
    return found[:, heard].mean(axis=1)


def _samples(audio: Any, sampling_rate: int | None) -> np.ndarray:
    if sampling_rate is not None and isinstance(audio, (str, os.PathLike)):
        raise AudioError(
            f"sampling_rate is {sampling_rate}, but the file {audio} has its own. Omit sampling_rate."
        )
    samples = load_audio(audio, source_rate=sampling_rate)
    if samples.size < MEL.shortest:
        raise AudioError(
            f"the clip has {samples.size} samples at {MEL.sampling_rate} Hz; at least {MEL.shortest} "
            f"({MEL.shortest / MEL.sampling_rate:.3f} s) are needed."
        )
    return samples


def _frames(samples: int, step: int) -> tuple[SpectrogramGrid, np.ndarray]:
    """Return the grid of a clip's frames, and which frames have their centre within the audio."""
    columns = -(-MEL.frames(samples) // step) * step
    seconds = min(samples / MEL.sampling_rate, columns * MEL.hop_length / MEL.sampling_rate)
    grid = SpectrogramGrid(width=columns, audio_seconds=seconds)
    heard = ~grid.padding(columns // step)
    heard[0] = True  # in case a frame is longer than the audio
    return grid, heard


def _clip_name(audio: Any) -> str:
    if not isinstance(audio, (str, os.PathLike)):
        return "audio"
    # File names may contain invalid Unicode, which a text table cannot.
    return Path(audio).name.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _probabilities(samples: np.ndarray, listener: Listener, frames: int) -> np.ndarray:
    """Return ``(classes, frames)`` float32."""
    return _over_windows(samples, listener, frames, lambda image: listener(image).float().sigmoid())


def _over_windows(
    samples: np.ndarray, listener: Listener, frames: int, compute: Callable[[torch.Tensor], torch.Tensor]
) -> np.ndarray:
    """Return what is computed of images, ``(1, rows, frames)``, cross-faded over windows: ``(rows, frames)``."""
    step = listener.config.columns_per_frame
    window, overlap = max(1, _WINDOW // step), _OVERLAP // step
    total: np.ndarray | None = None
    weights = np.zeros(frames)
    device = next(listener.parameters()).device
    # What is heard does not depend on the precision that surrounds the call.
    with _evaluating(listener), torch.inference_mode(), torch.autocast(device.type, enabled=False):
        for first, last in _windows(frames, window, overlap):
            image = torch.from_numpy(_image(samples, first * step, last * step))
            found = compute(image[None].to(next(listener.parameters())))[0].float().cpu().numpy()
            weight = _fades(last - first, overlap)
            total = np.zeros((len(found), frames)) if total is None else total
            total[:, first:last] += weight * found
            weights[first:last] += weight
    return (np.asarray(total) / weights).astype(np.float32)


def _windows(frames: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """Return the first frame of each window and the frame after its last. All windows have the same length."""
    last = max(0, frames - window)
    return [(start, min(start + window, frames)) for start in [*range(0, last, window - overlap), last]]


def _fades(length: int, overlap: int) -> np.ndarray:
    """Return positive weights that rise over the overlap, stay at 1, and fall."""
    ramp = np.arange(1, length + 1) / (overlap + 1)
    return np.minimum(1.0, np.minimum(ramp, ramp[::-1]))


def _image(samples: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Return columns of the mel image of the clip, computing these only. Columns beyond its end are silent."""
    first = max(0, start - _CONTEXT)
    piece = samples[first * MEL.hop_length : (stop + _CONTEXT) * MEL.hop_length]
    return fit_width(mel_to_image(log_mel(piece))[:, start - first :], stop - start)


def _events(probabilities: xr.DataArray, decoding: Decoding, clip: str, seconds: float, step: int) -> pd.DataFrame:
    classes = [str(name) for name in probabilities["sound"].values]
    hop = step * MEL.hop_length  # samples per frame
    found = decoding.intervals(probabilities.values, classes, hop / MEL.sampling_rate)
    rows = [
        {
            "clip": clip,
            "label": label,
            "onset": first * hop / MEL.sampling_rate,
            "offset": min(last * hop / MEL.sampling_rate, seconds),
        }
        for label, intervals in zip(classes, found, strict=True)
        for first, last in intervals
    ]
    return event_table(sorted(rows, key=lambda row: row["onset"])).assign(**{ORIGIN: LISTENER})


@contextmanager
def _evaluating(listener: Listener) -> Iterator[None]:
    """Put the listener into evaluation mode temporarily."""
    training = listener.training
    listener.eval()
    try:
        yield
    finally:
        listener.train(training)
