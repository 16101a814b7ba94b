"""Read a saved run from its folder. No model is loaded."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attnviz.audio import load_audio
from attnviz.errors import AttnVizError, EventsError, MapsError
from attnviz.events import read_events
from attnviz.io.choices import check_run
from attnviz.io.json_files import read_json
from attnviz.io.paths import checked_path
from attnviz.maps import AttentionMaps
from attnviz.wording import short_repr

_SCORED = ("phrase", "label", "method", "undefined")


@dataclass(frozen=True)
class SavedRun:
    """Contents of a run folder.

    Attributes
    ----------
    folder : pathlib.Path
    record : dict
        Contents of ``run.json``: the settings of the run.
    maps : AttentionMaps
    log_mel : numpy.ndarray or None
        Natural-log mel spectrogram, shape (bands, frames), lowest band first; that of the maps if
        ``spectrogram.npz`` is missing. None if there is neither, or if it contains no finite value.
    audio : numpy.ndarray or None
        The clip at 16 kHz; None if ``audio.wav`` is missing.
    events, scores : pandas.DataFrame or None
        Contents of ``events.tsv`` and ``alignment.csv``, or None if missing.
    """

    folder: Path
    record: dict[str, Any]
    maps: AttentionMaps
    log_mel: np.ndarray | None
    audio: np.ndarray | None
    events: pd.DataFrame | None
    scores: pd.DataFrame | None

    __repr__ = short_repr


def read_saved_run(folder: str | os.PathLike[str]) -> SavedRun:
    """Read a run folder written by ``attnviz generate``, ``attnviz explain`` or ``attnviz edit``.

    ``run.json`` and ``maps.zarr`` are required. Audio, spectrogram, events and scores are optional.

    Parameters
    ----------
    folder : path-like
        The run folder.

    Raises
    ------
    AttnVizError
        If the folder is not a run folder, or one of its files is damaged. The message names the file.
    """
    place = checked_path(folder, "the run folder")
    record = _record(place)
    maps = AttentionMaps.load(place / "maps.zarr")
    log_mel = _log_mel(place / "spectrogram.npz", maps)
    return SavedRun(
        folder=place,
        record=record,
        maps=maps,
        log_mel=log_mel if log_mel is not None and np.isfinite(log_mel).any() else None,
        audio=load_audio(place / "audio.wav") if (place / "audio.wav").exists() else None,
        events=_events(place / "events.tsv"),
        scores=_scores(place / "alignment.csv"),
    )


def read_source(run: SavedRun) -> SavedRun | None:
    """Read the source of an edit: ``source.zarr`` and ``source.wav`` of its run folder.

    Return None if the run is not an edit, or if its source has no maps because it was not generated.
    """
    place = run.folder / "source.zarr"
    if not place.exists():
        return None
    maps, audio = AttentionMaps.load(place), run.folder / "source.wav"
    log_mel = None if maps.spectrogram is None else maps.spectrogram[0, 0].to_numpy()
    return SavedRun(
        folder=run.folder,
        record={"prompt": maps.prompts[0], "provenance": maps.provenance},
        maps=maps,
        log_mel=log_mel if log_mel is not None and np.isfinite(log_mel).any() else None,
        audio=load_audio(audio) if audio.exists() else None,
        events=None,
        scores=None,
    )


def _record(folder: Path) -> dict[str, Any]:
    check_run(folder)
    path = folder / "run.json"
    record = read_json(path, hint="Was it changed by hand?")
    if not isinstance(record, dict) or "attnviz" not in record:
        raise AttnVizError(f"{path} does not contain the version of attnviz. Was it written by another program?")
    return record


def _log_mel(path: Path, maps: AttentionMaps) -> np.ndarray | None:
    if not path.exists():
        return None if maps.spectrogram is None else maps.spectrogram[0, 0].to_numpy()
    try:
        with np.load(path) as saved:
            log_mel = saved["log_mel"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise MapsError(f"cannot read log_mel from {path}: {error}. Was it copied only in part?") from error
    expected = (maps.grid.height, maps.grid.width)
    if log_mel.shape != expected or log_mel.dtype.kind != "f":
        raise MapsError(
            f"{path}: log_mel has the shape {log_mel.shape} and type {log_mel.dtype}, but the maps need a "
            f"spectrogram of shape {expected} (bands, frames). Does it belong to another run?"
        )
    return log_mel


def _events(path: Path) -> pd.DataFrame | None:
    if not path.exists():
        return None
    events = read_events(path)
    clips = list(dict.fromkeys(events["clip"]))
    if len(clips) > 1:
        raise EventsError(f"{path} has events of {len(clips)} clips, {clips[:5]}; a run has one clip.")
    return events


def _scores(path: Path) -> pd.DataFrame | None:
    if not path.exists():
        return None
    try:
        table = pd.read_csv(path, dtype={"label": str, "text": str, "method": str, "undefined": str})
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise AttnVizError(
            f"{path} cannot be read as CSV: {error}. Run attnviz align again to write it."
        ) from error
    missing = [name for name in _SCORED if name not in table.columns]
    if missing:
        raise AttnVizError(f"{path} lacks the columns {', '.join(missing)}. Run attnviz align again to write it.")
    return table
