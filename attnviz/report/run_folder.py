"""Run folders: all files of one generation, or of one explained clip, written completely or not at all."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from attnviz.audio import MEL, write_wav
from attnviz.errors import AttnVizError, OutputError
from attnviz.events import write_tsv
from attnviz.io.json_files import as_json, read_json
from attnviz.io.ownership import Kind, why_not_ours
from attnviz.io.storage import whole_folder
from attnviz.maps import AttentionMaps, Readout
from attnviz.plots import activations, spectrogram, word_maps
from attnviz.plots.style import without_tex

_logger = logging.getLogger(__name__)

_FILES = (
    *("audio.wav", "run.json", "spectrogram.npz", "spectrogram.png", "tokens.csv", "words.png"),
    *("events.tsv", "activations.png", "alignment.csv", "report.html"),
    *("source.wav", "edit.png"),
)
_SOLO = r"solo-[\w-]+\.wav"  # of attnviz solo: one file per phrase


def save_run(
    folder: str | os.PathLike[str],
    audio: np.ndarray,
    log_mel: np.ndarray | None,
    maps: AttentionMaps,
    record: Mapping[str, Any],
    *,
    sampling_rate: int = MEL.sampling_rate,
    events: pd.DataFrame | None = None,
    alignment: pd.DataFrame | None = None,
    beside: Callable[[Path], object] | None = None,
    readout: Readout = "mean",
    special_tokens: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a run folder.

    The folder contains ``run.json`` (settings and provenance), ``audio.wav`` (16 bits), ``maps.zarr``,
    ``tokens.csv`` and ``words.png``; with a spectrogram, also ``spectrogram.npz`` (natural-log mel, time in s,
    frequency in Hz) and ``spectrogram.png``; with events, ``events.tsv`` and ``activations.png`` (each phrase's
    curve over its events); with scores, ``alignment.csv``.

    Parameters
    ----------
    folder : path-like
        Run folder to write.
    audio : numpy.ndarray, shape (samples,) or (samples, channels)
        The clip, in [-1, 1].
    log_mel : numpy.ndarray or None, shape (bands, frames)
        Natural-log mel spectrogram of the clip, lowest band first; None for a model without one.
    maps : AttentionMaps
        Maps of the clip.
    record : mapping
        Content of ``run.json`` beside the maps' provenance: prompt, settings, seed, warnings.
    sampling_rate : int
        Sampling rate of the clip, in Hz.
    events : pandas.DataFrame, optional
        Event table of the clip.
    alignment : pandas.DataFrame, optional
        Scores of the maps against the events.
    beside : callable, optional
        Writes further files of the run into the folder it receives: ``source.wav``, ``source.zarr`` and
        ``edit.png`` of an edit.
    readout : str or FittedReadout
        How layers are combined into one map in the pictures, as in `AttentionMaps.heatmap`.
    special_tokens : bool
        Whether ``words.png`` also shows the start and end tokens.
    overwrite : bool
        Whether to replace an existing run once the new one is complete. Other folders are never replaced.

    Returns
    -------
    pathlib.Path
        `folder`.

    Raises
    ------
    OutputError
        If the folder exists and `overwrite` is False, the folder cannot be written, or the record is not JSON. No
        partial output is left.
    """
    with whole_folder(folder, overwrite=overwrite, kind=RUN) as temporary, without_tex():
        run = {**record, "provenance": maps.provenance, "complete": maps.complete}
        (temporary / "run.json").write_bytes(as_json(run, "run.json", error=OutputError))
        write_wav(temporary / "audio.wav", audio, sampling_rate)
        if log_mel is not None:
            _write_spectrogram(temporary, log_mel, maps)
        maps.save(temporary / "maps.zarr")
        token_rows(maps).to_csv(temporary / "tokens.csv", index=False)
        word_maps(maps, special_tokens=special_tokens, readout=readout).savefig(temporary / "words.png", dpi=150)
        if events is not None:
            write_tsv(events, temporary / "events.tsv")
            curves = Figure(figsize=(9, 1.1 + 0.42 * events["label"].nunique()), layout="constrained")
            activations(maps, events, readout=readout, ax=curves.subplots())
            curves.savefig(temporary / "activations.png", dpi=150)
        if alignment is not None:
            alignment.to_csv(temporary / "alignment.csv", index=False)
        if beside is not None:
            beside(temporary)
    _logger.info("wrote the run %s", folder)
    return Path(folder)


def _write_spectrogram(folder: Path, log_mel: np.ndarray, maps: AttentionMaps) -> None:
    np.savez_compressed(
        folder / "spectrogram.npz",
        log_mel=log_mel,
        time=maps.grid.time(log_mel.shape[1]),
        freq=maps.grid.freq(log_mel.shape[0]),
        padding=maps.grid.padding(log_mel.shape[1]),
    )
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    spectrogram(log_mel, maps.grid, ax=figure.subplots(), colorbar=True)
    figure.savefig(folder / "spectrogram.png", dpi=150)


def is_run(folder: Path) -> bool:
    """Whether a folder is empty or contains nothing but a run, so that a run may replace it.

    A run folder has a ``run.json`` written by attnviz, and no other entries than those of a run. Files that
    somebody else put beside a run, or a ``run.json`` of another program, are not deleted.
    """
    return why_not_ours(folder, RUN) is None


def names_attnviz(folder: Path) -> bool:
    """Whether a folder has a ``run.json`` written by attnviz."""
    try:
        record = read_json(folder / "run.json")
    except AttnVizError:
        return False
    return isinstance(record, dict) and "attnviz" in record


RUN = Kind("run", signed=names_attnviz, names="|".join([*map(re.escape, _FILES), _SOLO]), manifest=False)
"""A run folder: ``run.json`` identifies it, its files have fixed names, and each subfolder identifies itself."""


def token_rows(maps: AttentionMaps) -> pd.DataFrame:
    """Join the token tables of all prompts into one table, with the prompt's index as first column."""
    tables = [table.rows.assign(prompt=index) for index, table in enumerate(maps.tokens)]
    rows = pd.concat(tables, ignore_index=True)
    return rows[["prompt", *rows.columns.drop("prompt")]]
