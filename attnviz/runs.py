"""Run folders: everything one generation made, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from attnviz.audio import write_wav
from attnviz.maps import AttentionMaps
from attnviz.plots import spectrogram, word_maps
from attnviz.storage import whole_folder


def save_run(
    folder: str | os.PathLike[str],
    audio: np.ndarray,
    log_mel: np.ndarray,
    maps: AttentionMaps,
    record: Mapping[str, Any],
    *,
    special_tokens: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a run folder.

    ``run.json`` (how it was made), ``audio.wav`` (16 kHz, 16 bits), ``spectrogram.npz`` (natural-log mel,
    time in s, frequency in Hz), ``spectrogram.png``, ``maps.zarr``, ``tokens.csv`` and ``words.png``.

    Parameters
    ----------
    folder : path-like
        Where the run is to be.
    audio : numpy.ndarray, shape (samples,)
        Generated clip at 16 kHz, in [-1, 1].
    log_mel : numpy.ndarray, shape (bands, frames)
        Its natural-log mel spectrogram, lowest band first.
    maps : AttentionMaps
        Its maps.
    record : mapping
        What ``run.json`` holds beside the maps' provenance: prompt, settings, seed, warnings.
    special_tokens : bool
        Whether ``words.png`` shows the start and end tokens too.
    overwrite : bool
        Whether an existing run is replaced, once the new one is whole. Any other folder never is.

    Returns
    -------
    pathlib.Path
        `folder`.

    Raises
    ------
    OutputError
        If the folder exists and `overwrite` is not set, or cannot be written. Nothing half-written is left.
    """
    with whole_folder(folder, overwrite=overwrite, replaceable=is_run) as temporary:
        run = {**record, "provenance": maps.provenance, "complete": maps.complete}
        (temporary / "run.json").write_text(json.dumps(run, indent=2, ensure_ascii=False) + "\n", "utf-8")
        write_wav(temporary / "audio.wav", audio)
        np.savez_compressed(
            temporary / "spectrogram.npz",
            log_mel=log_mel,
            time=maps.grid.time(log_mel.shape[1]),
            freq=maps.grid.freq(log_mel.shape[0]),
            padding=maps.grid.padding(log_mel.shape[1]),
        )
        figure = Figure(figsize=(9, 3.5), layout="constrained")
        spectrogram(log_mel, maps.grid, ax=figure.subplots())
        figure.savefig(temporary / "spectrogram.png", dpi=150)
        maps.save(temporary / "maps.zarr")
        token_rows(maps).to_csv(temporary / "tokens.csv", index=False)
        word_maps(maps, special_tokens=special_tokens).savefig(temporary / "words.png", dpi=150)
    return Path(folder)


def is_run(folder: Path) -> bool:
    """Say whether a folder is a run folder, or empty, so that a run may replace it."""
    return folder.is_dir() and ((folder / "run.json").is_file() or not any(folder.iterdir()))


def token_rows(maps: AttentionMaps) -> pd.DataFrame:
    """List the token tables of all prompts as one table, with the prompt's index in front."""
    tables = [table.rows.assign(prompt=index) for index, table in enumerate(maps.tokens)]
    rows = pd.concat(tables, ignore_index=True)
    return rows[["prompt", *rows.columns.drop("prompt")]]
