"""A composed scene and its exact ground truth."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from attnviz.audio import MEL, SpectrogramGrid
from attnviz.errors import AudioError
from attnviz.events import column_activity, event_table
from attnviz.sounds.audibility import Intervals
from attnviz.sounds.config import ComposerConfig
from attnviz.sounds.shares import energy_shares

BACKGROUND = "background"


@dataclass(frozen=True)
class SceneSound:
    """One sound of a scene: a recording, as it was placed.

    Attributes
    ----------
    label : str
        The phrase that names it in the caption.
    span : (int, int)
        Characters of that phrase in the caption.
    sound : str
        Class name.
    recording : str
        Name of the recording, as "1-100032-A".
    source : int
        Source recording (Freesound's number): the unit of a bootstrap.
    fold : int
        Fold of the data set.
    start, seconds : float
        Where its piece of the recording begins in the scene, and how long that is.
    level : float
        Level of its loudest 10 ms, in dB relative to full scale.
    semitones : float
        Change of pitch.
    intervals : tuple of (float, float)
        Onsets and offsets in seconds where it is audible.
    """

    label: str
    span: tuple[int, int]
    sound: str
    recording: str
    source: int
    fold: int
    start: float
    seconds: float
    level: float
    semitones: float
    intervals: Intervals


@dataclass(frozen=True, eq=False)
class Scene:
    """Sounds in time, their mixture, a caption, and where each phrase's sound is.

    Attributes
    ----------
    name : str
        Name of the mixture's audio file, with ".wav": `clip` in the event table.
    mixture : numpy.ndarray
        ``(samples,)`` float32 in [-1, 1] at 16 kHz.
    caption : str
        Names every sound, and tells the truth about their order (`attnviz.sounds.captions`).
    sounds : tuple of SceneSound
        By first onset.
    seed : tuple of int
        What the scene was drawn with.
    config : ComposerConfig
        What it was composed with.
    stems : numpy.ndarray or None
        ``(len(sounds) + 1, samples)`` float32: each sound alone, the background noise last. Their sum in
        this order, in float32, is the mixture to the last bit. None for a scene saved without them.
    """

    name: str
    mixture: np.ndarray
    caption: str
    sounds: tuple[SceneSound, ...]
    seed: tuple[int, ...]
    config: ComposerConfig
    stems: np.ndarray | None = None

    @property
    def grid(self) -> SpectrogramGrid:
        """What second and Hz each cell of the scene's spectrogram is."""
        return SpectrogramGrid(width=self.config.frames)

    @property
    def events(self) -> pd.DataFrame:
        """Event table (`attnviz.events`): one row for each interval in which a sound is audible.

        By onset. Beyond the contract: ``class``, ``recording`` and ``source``.
        """
        rows: list[dict[str, Any]] = [
            {
                "clip": self.name,
                "label": sound.label,
                "onset": onset,
                "offset": offset,
                "span": sound.span,
                "class": sound.sound,
                "recording": sound.recording,
                "source": str(sound.source),
            }
            for sound in self.sounds
            for onset, offset in sound.intervals
        ]
        return event_table(sorted(rows, key=lambda row: (row["onset"], row["span"])))

    def activity(self, columns: int | None = None) -> xr.DataArray:
        """Return when each sound is audible.

        Parameters
        ----------
        columns : int, optional
            Columns of the time axis, as 128 of the finest attention maps; None: the spectrogram's own.

        Returns
        -------
        xarray.DataArray
            Dims ``(source, time)``, float64 in [0, 1]: the share of the column in which the sound is audible.
            ``source`` is the phrase, ``time`` the column's centre in seconds.
        """
        grid = self.grid
        columns = grid.width if columns is None else columns
        curves = [
            column_activity([on for on, _ in sound.intervals], [off for _, off in sound.intervals], grid, columns)
            for sound in self.sounds
        ]
        coords = {"source": [sound.label for sound in self.sounds], "time": grid.time(columns)}
        return xr.DataArray(np.stack(curves), coords, ("source", "time"), name="activity")

    def masks(self, rows: int = MEL.n_mels, columns: int | None = None) -> xr.DataArray:
        """Return which share of the energy each source has in each cell of the spectrogram.

        Parameters
        ----------
        rows, columns : int, optional
            Grid wanted; None: the spectrogram's own. In coarser cells energies are added up before they are
            compared.

        Returns
        -------
        xarray.DataArray
            Dims ``(source, freq, time)``, float32 in [0, 1], low to high frequency. ``source`` is the phrase,
            and ``"background"`` at the end. Where the mixture is above the spectrogram's floor the shares sum
            to 1; elsewhere all are 0.

        Raises
        ------
        AudioError
            The scene was saved without stems.
        """
        if self.stems is None:
            raise AudioError(f"scene {self.name} was saved without stems, so its masks are unknown.")
        grid = self.grid
        columns = grid.width if columns is None else columns
        shares = energy_shares(self.stems, rows, columns)
        labels = [*(sound.label for sound in self.sounds), BACKGROUND]
        coords = {"source": labels, "freq": grid.freq(rows), "time": grid.time(columns)}
        return xr.DataArray(shares, coords, ("source", "freq", "time"), name="share")

    def save(self, folder: str | os.PathLike[str], *, stems: bool = False, overwrite: bool = False) -> Path:
        """Write the scene into a folder of its own, whole or not at all.

        Parameters
        ----------
        folder : path-like
            The folder to make. It holds the mixture (``name``, 16-bit WAV), ``events.tsv``,
            ``events.jams``, ``scene.json`` (caption, spans, sounds, seed, settings), and with `stems`
            ``stems/0.wav`` and so on (32-bit float) with ``stems/background.wav``.
        stems : bool
            Whether to write them: without them, the loaded scene has no masks.
        overwrite : bool
            Whether an existing folder may be replaced.

        Returns
        -------
        pathlib.Path
            The folder.

        Raises
        ------
        AudioError
            `stems` is set and the scene has none.
        OutputError
            `folder` exists, or cannot be written.
        """
        from attnviz.sounds.scene_files import save_scene

        return save_scene(self, folder, stems=stems, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Scene:
        """Read a scene that :meth:`save` wrote.

        Returns
        -------
        Scene
            With the same caption, sounds and events. With stems the mixture is the same, too; without, it is
            rounded to 16 bits.

        Raises
        ------
        AudioError
            The folder holds no scene, or a file of it is missing or damaged.
        """
        from attnviz.sounds.scene_files import load_scene

        return load_scene(folder)

    def __repr__(self) -> str:
        return f"<Scene {self.name}: {self.caption!r}, {self.config.seconds:g} s>"


def add_up(stems: Iterable[np.ndarray]) -> np.ndarray:
    """Return the sum of stems, added one after another in float32."""
    parts = list(stems)
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total
