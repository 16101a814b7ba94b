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

from attnviz.arguments import public
from attnviz.audio import MEL, SpectrogramGrid
from attnviz.errors import AudioError
from attnviz.events import column_activity, event_table
from attnviz.scenes.audibility import Intervals
from attnviz.scenes.config import ComposerConfig
from attnviz.scenes.shares import energy_shares

BACKGROUND = "background"


@dataclass(frozen=True)
class SceneSound:
    """One sound of a scene.

    Attributes
    ----------
    label : str
        Phrase of the caption that names the sound.
    span : (int, int)
        Character span of that phrase in the caption.
    sound : str
        Class name.
    recording : str
        Name of the recording, such as "1-100032-A".
    source : int
        Freesound number of the source recording, the resampling unit of the bootstrap.
    fold : int
        Fold of the data set.
    start, seconds : float
        Start of the excerpt in the scene, and its length, in seconds.
    level : float
        Level of its loudest 10 ms, in dB relative to full scale.
    semitones : float
        Pitch change.
    intervals : tuple of (float, float)
        Onsets and offsets of its audible intervals, in seconds.
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
    """A mixture of sounds with a caption and the times of the sound of each phrase.

    Attributes
    ----------
    name : str
        Name of the audio file of the mixture, with ".wav"; `clip` in the event table.
    mixture : numpy.ndarray
        ``(samples,)`` float32 in [-1, 1] at 16 kHz.
    caption : str
        Caption that names every sound and states their order correctly (`attnviz.scenes.captions`).
    sounds : tuple of SceneSound
        Sounds sorted by first onset.
    seed : tuple of int
        Seed of the scene.
    config : ComposerConfig
        Settings of the composer.
    stems : numpy.ndarray or None
        ``(len(sounds) + 1, samples)`` float32: each sound alone, followed by the background noise. Their sum in
        this order, in float32, is bit-identical to the mixture. None for a scene that was saved without stems.
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
        """Grid of the spectrogram of the scene, in seconds and Hz."""
        return SpectrogramGrid(width=self.config.frames)

    @property
    def events(self) -> pd.DataFrame:
        """Event table (`attnviz.events`) with one row per audible interval, sorted by onset.

        Additional columns are ``class``, ``recording`` and ``source``.
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

    @public
    def activity(self, columns: int | None = None) -> xr.DataArray:
        """Return the activity of each sound over time.

        Parameters
        ----------
        columns : int, optional
            Number of columns of the time axis, such as 128 for the finest attention maps. By default, the columns
            of the spectrogram.

        Returns
        -------
        xarray.DataArray
            Dims ``(source, time)``, float64 in [0, 1]: share of the column in which the sound is audible.
            ``source`` is the phrase, ``time`` the centre of the column in seconds.
        """
        grid = self.grid
        columns = grid.width if columns is None else columns
        curves = [
            column_activity([on for on, _ in sound.intervals], [off for _, off in sound.intervals], grid, columns)
            for sound in self.sounds
        ]
        coords = {"source": [sound.label for sound in self.sounds], "time": grid.time(columns)}
        return xr.DataArray(np.stack(curves), coords, ("source", "time"), name="activity")

    @public
    def masks(self, rows: int = MEL.n_mels, columns: int | None = None) -> xr.DataArray:
        """Return the share of each source in the energy of each spectrogram cell.

        Parameters
        ----------
        rows, columns : int, optional
            Size of the grid. By default, the grid of the spectrogram. In coarser cells, energies are summed before
            shares are computed.

        Returns
        -------
        xarray.DataArray
            Dims ``(source, freq, time)``, float32 in [0, 1], with ascending frequency. ``source`` is the phrase;
            the last source is ``"background"``. The shares sum to 1 where the mixture is above the floor of the
            spectrogram, and are 0 elsewhere.

        Raises
        ------
        AudioError
            If the scene was saved without stems.
        """
        if self.stems is None:
            raise AudioError(f"scene {self.name} was saved without stems, so its masks are unknown.")
        grid = self.grid
        columns = grid.width if columns is None else columns
        labels = [*(sound.label for sound in self.sounds), BACKGROUND]
        coords = {"source": labels, "freq": grid.freq(rows), "time": grid.time(columns)}  # checks the size
        shares = energy_shares(self.stems, rows, columns)
        return xr.DataArray(shares, coords, ("source", "freq", "time"), name="share")

    @public
    def save(self, folder: str | os.PathLike[str], *, stems: bool = False, overwrite: bool = False) -> Path:
        """Save the scene in a folder, atomically.

        Parameters
        ----------
        folder : path-like
            Folder to create. It contains the mixture (``name``, 16-bit WAV), ``events.tsv``, ``events.jams``,
            ``scene.json`` (caption, spans, sounds, seed, settings) and, if `stems` is True, ``stems/0.wav`` etc.
            and ``stems/background.wav`` (32-bit float).
        stems : bool
            Save the stems. Without them, the loaded scene has no masks.
        overwrite : bool
            Replace an existing folder.

        Returns
        -------
        pathlib.Path
            The folder.

        Raises
        ------
        AudioError
            If `stems` is True and the scene has no stems.
        OutputError
            If `folder` exists or cannot be written.
        """
        from attnviz.scenes.scene_files import save_scene

        return save_scene(self, folder, stems=stems, overwrite=overwrite)

    @classmethod
    @public
    def load(cls, folder: str | os.PathLike[str]) -> Scene:
        """Load a scene written by :meth:`save`.

        Returns
        -------
        Scene
            Scene with identical caption, sounds and events. The mixture is identical if stems were saved;
            otherwise it is rounded to 16 bits.

        Raises
        ------
        AudioError
            If the folder does not contain a scene, or a file is missing or damaged.
        """
        from attnviz.scenes.scene_files import load_scene

        return load_scene(folder)

    def __repr__(self) -> str:
        return f"<Scene {self.name}: {self.caption!r}, {self.config.seconds:g} s>"


def add_up(stems: Iterable[np.ndarray]) -> np.ndarray:
    """Return the sum of stems, added in order in float32."""
    parts = list(stems)
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total
