"""The result of a listener for a clip: probabilities, events and the measured quality of the listener."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from attnviz.arguments import public
from attnviz.audio.levels import INAUDIBLE_DBFS, LOWEST_DBFS
from attnviz.audio.settings import whole_number
from attnviz.errors import EventsError, warn
from attnviz.events import event_table, with_spans
from attnviz.events.origin import LISTENER, ORIGIN
from attnviz.text.sounds import find_label

PEAK_SECONDS = 0.5
COVERED = 0.9
"""Share of a clip covered by events from which the events are doubtful. Events cover at most 0.88 of each of 80
composed scenes of ESC-10 (fold 3), and at least 0.98 of three real clips of other sounds (AudioCaps)."""
UNEXPLAINED = 0.5
"""Share of audible frames outside all events from which they are doubtful. 2 of those 80 scenes exceed it."""
_SHORTEST_DOUBTED = 5.0  # seconds; a shorter clip may consist of one sound
_LOUD_DB = 20.0  # frames within this range of the loudest 0.4 s count as the content of the clip
_MOST_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Hearing:
    """Sound events that a listener detected in a clip.

    Attributes
    ----------
    clip : str
        Name of the clip, as in the event table.
    seconds : float
        Length of the clip in seconds.
    probabilities : xarray.DataArray
        Dims ``(sound, time)``, float32 in [0, 1]: probability of each class in each frame, without smoothing.
        ``sound`` is the class name, ``time`` the centre of the frame in seconds. 0 where the audio is inaudible.
    events : pandas.DataFrame
        Event table (`attnviz.events`), sorted by onset. ``label`` is the class name, ``origin`` is "listener".
        Events of one class are not adjacent.
    frame_seconds : float
        Length of a frame in seconds.
    quality : mapping or None
        Scores of the listener, measured on recordings not used in training: ``fold``, ``frame_map`` (mean over
        classes of the frame-wise average precision), ``psds1`` and ``ap`` (by class). None if not measured.
    levels : xarray.DataArray or None
        Dims ``(time,)``: level of the 0.4 s around each frame, in dBFS (`attnviz.audio.levels`). None if unknown.
    """

    clip: str
    seconds: float
    probabilities: xr.DataArray
    events: pd.DataFrame
    frame_seconds: float
    quality: Mapping[str, Any] | None = None
    levels: xr.DataArray | None = None

    @public
    def level(self, sound: str) -> float:
        """Return the level of a class in dBFS.

        The level is the maximum over the frames in events of the class of the power of the 0.4 s around the frame,
        multiplied by the probability of the class. It is -120 if there is no event of the class.

        Raises
        ------
        EventsError
            If the listener does not detect the class, or if levels are unknown.
        """
        self._check_known(sound)
        if self.levels is None:
            raise EventsError("the levels of this Hearing are unknown, because it was not created by listen().")
        power = self.probabilities.sel(sound=sound).to_numpy() * 10 ** (self.levels.to_numpy() / 10)
        heard = power[self._inside(self.events[self.events["label"] == sound])]
        return float(10 * np.log10(max(float(heard.max(initial=0.0)), 10 ** (LOWEST_DBFS / 10))))

    @property
    def doubt(self) -> str | None:
        """Reason to suspect that the clip contains sounds of other classes, or None.

        High probabilities do not exclude this, because the listener also assigns them to other sounds. The signs
        are events that cover almost all of a clip of 5 s or more, and audible audio outside all events.
        """
        inside = self._inside(self.events)
        names = [str(name) for name in self.probabilities["sound"].values]
        limits = f"the listener detects only these {len(names)} sounds: {', '.join(names)}"
        if self.seconds >= _SHORTEST_DOUBTED and inside.mean() >= COVERED:
            return (
                f"events cover {inside.mean():.0%} of the clip, which may contain one steady sound or sounds of "
                f"other classes; {limits}"
            )
        if self.levels is None:
            return None
        level = self.levels.to_numpy()
        loud = (level >= INAUDIBLE_DBFS) & (level >= level.max() - _LOUD_DB)
        if loud.any() and (~inside)[loud].mean() >= UNEXPLAINED:
            return f"{(~inside)[loud].mean():.0%} of the audible audio is outside all events; {limits}"
        return None

    @property
    def peaks(self) -> xr.DataArray:
        """Maximum over time of the probability of each class, averaged over 0.5 s.

        Dims ``(sound,)``, in [0, 1]. For a shorter clip, the mean probability.
        """
        frames = self.probabilities.sizes["time"]
        width = min(frames, max(1, round(PEAK_SECONDS / self.frame_seconds)))
        means = self.probabilities.astype(np.float64).rolling(time=width).mean()
        return means.max("time").rename("peak")

    @public
    def strongest(self, n: int = 1) -> list[str]:
        """Return the `n` classes with the highest :attr:`peaks` in descending order, or all if there are fewer.

        Raises
        ------
        AudioError
            If `n` is not a positive integer.
        """
        peaks = self.peaks
        order = np.argsort(-peaks.values, kind="stable")[: whole_number("n", n)]
        return [str(name) for name in peaks["sound"].values[order]]

    @public
    def onset(self, sound: str) -> float | None:
        """Return the first onset of a class in seconds, or None if it has no event.

        Raises
        ------
        EventsError
            If the listener does not detect the class.
        """
        self._check_known(sound)
        onsets = self.events.loc[self.events["label"] == sound, "onset"]
        return float(onsets.min()) if len(onsets) else None

    @public
    def of_caption(self, caption: str) -> pd.DataFrame:
        """Return the events of the classes that a caption names, with their spans in the caption.

        Parameters
        ----------
        caption : str
            Prompt or description of the clip.

        Returns
        -------
        pandas.DataFrame
            Event table with `span` and `caption`. A class that is named but was not detected has a row without
            times, which marks a silent phrase.

        Raises
        ------
        EventsError
            If the caption names none of the classes of the listener, or names one class more than once, so that
            events cannot be assigned to one phrase.

        Warns
        -----
        AttnVizWarning
            If events of other classes were detected. They are omitted.
        """
        known = [str(name) for name in self.probabilities["sound"].values]
        named = [name for name in known if find_label(caption, name)]
        if not named:
            raise EventsError(
                f"the caption {caption!r} names none of the sounds that the listener detects: {', '.join(known)}. "
                "Give an event table or an event file instead."
            )
        others = self.events[~self.events["label"].isin(named)]
        if len(others):
            heard = (f"{row.label} {row.onset:.2f}-{row.offset:.2f} s" for row in others.itertuples())
            warn(
                f"the listener detected sounds that the prompt does not name (omitted): {', '.join(heard)}.",
            )
        silent = [name for name in named if name not in set(self.events["label"])]
        rows = event_table([{"clip": self.clip, "label": name, "onset": None, "offset": None} for name in silent])
        rows = rows.assign(**{ORIGIN: LISTENER})
        own = self.events[self.events["label"].isin(named)]
        return with_spans(pd.concat([own, rows], ignore_index=True) if silent else own, caption)

    def _inside(self, events: pd.DataFrame) -> np.ndarray:
        """Return a mask of the frames with their centre in an event."""
        frames = self.probabilities.sizes["time"]
        centres = (np.arange(frames) + 0.5) * self.frame_seconds
        inside = np.zeros(frames, dtype=bool)
        for onset, offset in events[["onset", "offset"]].to_numpy(dtype=float):
            inside |= (centres >= onset) & (centres < offset)
        return inside

    def _check_known(self, sound: str) -> None:
        known = [str(name) for name in self.probabilities["sound"].values]
        if sound not in known:
            raise EventsError(f"the listener does not detect {sound!r}; it detects {', '.join(known)}.")

    @property
    def quality_line(self) -> str:
        """One line with the measured quality of the listener, shown with its results."""
        frames = f"{1000 * self.frame_seconds:g} ms frames"
        if self.quality is None:
            return f"listener: quality not measured, {frames}"
        measured = f"frame mAP {self.quality['frame_map']:.2f} on unseen recordings (fold {self.quality['fold']})"
        return f"listener: {measured}, {frames}"

    def __repr__(self) -> str:
        rows = self._rows()
        width = max((len(label) for label, _ in rows), default=0)
        return "\n".join([self._title(), *(f"  {label:<{width}}  {when}" for label, when in rows), *self._notes()])

    def _notes(self) -> list[str]:
        return [*([f"doubtful: {self.doubt}"] if self.doubt else []), self.quality_line]

    def _repr_html_(self) -> str:
        cell = "text-align:left;padding:1px 8px"
        rows = "".join(
            f"<tr><th style='{cell}'>{escape(label)}</th><td style='{cell}'>{escape(when)}</td></tr>"
            for label, when in self._rows()
        )
        caption = f"<caption style='{cell};font-weight:bold;white-space:nowrap'>{escape(self._title())}</caption>"
        notes = "<br>".join(map(escape, self._notes()))
        foot = f"<tfoot><tr><td colspan='2' style='{cell}'>{notes}</td></tr></tfoot>"
        return f"<table>{caption}<tbody>{rows}</tbody>{foot}</table>"

    def _title(self) -> str:
        count = len(self.events)
        heard = f"{count or 'no'} event{'s' * (count != 1)}"
        return f"Hearing of {self.clip}: {self.seconds:.2f} s, {heard}"

    def _rows(self) -> list[tuple[str, str]]:
        shown = self.events[:_MOST_SHOWN]
        rows = [
            (str(label), f"{onset:.2f} to {offset:.2f} s")
            for label, onset, offset in zip(shown["label"], shown["onset"], shown["offset"], strict=True)
        ]
        more = len(self.events) - len(shown)
        return [*rows, ("", f"and {more} more")] if more else rows
