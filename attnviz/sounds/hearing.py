"""What was heard in a clip: probabilities, events, and how well the listener hears."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from attnviz.audio.levels import INAUDIBLE_DBFS, LOWEST_DBFS
from attnviz.audio.settings import whole_number
from attnviz.errors import AttnVizWarning, EventsError
from attnviz.events import event_table, with_spans
from attnviz.text.sounds import find_label

PEAK_SECONDS = 0.5
COVERED = 0.9
"""Share of a clip in events from which on they are doubted. Of 80 composed scenes of ESC-10 (fold 3) at most 0.88
is in events, of three real clips of other sounds (AudioCaps) at least 0.98."""
UNEXPLAINED = 0.5
"""Share of the audible frames in no event from which on the listener says so: 2 of those 80 scenes have more."""
_SHORTEST_DOUBTED = 5.0  # seconds: a shorter clip may well be one sound
_LOUD_DB = 20.0  # frames that make the clip: within so much of its loudest 0.4 s
_MOST_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Hearing:
    """What a listener heard in a clip.

    Attributes
    ----------
    clip : str
        Name of the clip, as in the event table.
    seconds : float
        Length of the clip.
    probabilities : xarray.DataArray
        Dims ``(sound, time)``, float32 in [0, 1]: how likely each class sounds in each frame. ``sound`` is the
        class name, ``time`` the frame's centre in seconds. Not smoothed; 0 where the audio is inaudible.
    events : pandas.DataFrame
        Event table (`attnviz.events`), by onset; ``label`` is the class name. Events of one class do not touch.
    frame_seconds : float
        Seconds from one frame to the next.
    quality : mapping or None
        The listener's measured scores on recordings it was not trained on: ``fold``, ``frame_map`` (mean over
        classes of the average precision of frames), ``psds1`` and ``ap`` (by class). None: not measured.
    levels : xarray.DataArray or None
        Dims ``(time,)``: level of the 0.4 s around each frame, in dB of full scale (`attnviz.audio.levels`).
        None: not known.
    """

    clip: str
    seconds: float
    probabilities: xr.DataArray
    events: pd.DataFrame
    frame_seconds: float
    quality: Mapping[str, Any] | None = None
    levels: xr.DataArray | None = None

    def level(self, sound: str) -> float:
        """Return the level of what is heard as a class, in dB of full scale.

        Of the frames in its events, the highest power of the 0.4 s around one, which counts as far as the class is
        believed to be there; -120 where there is no event of it.

        Raises
        ------
        EventsError
            The listener does not know the class, or the levels are not known.
        """
        self._check_known(sound)
        if self.levels is None:
            raise EventsError("the levels of this hearing are not known: it was not made by listen().")
        power = self.probabilities.sel(sound=sound).to_numpy() * 10 ** (self.levels.to_numpy() / 10)
        heard = power[self._inside(self.events[self.events["label"] == sound])]
        return float(10 * np.log10(max(float(heard.max(initial=0.0)), 10 ** (LOWEST_DBFS / 10))))

    @property
    def doubt(self) -> str | None:
        """Why what was heard may be other sounds than the listener knows; None where nothing suggests it.

        The listener's probabilities do not tell: it is as sure of other sounds as of its own. What tells are
        events that cover nearly the whole of a clip of 5 s or more, and audible audio that is in no event.
        """
        inside = self._inside(self.events)
        names = [str(name) for name in self.probabilities["sound"].values]
        limits = f"the listener knows {len(names)} sounds and no others: {', '.join(names)}"
        if self.seconds >= _SHORTEST_DOUBTED and inside.mean() >= COVERED:
            return (
                f"events cover {inside.mean():.0%} of the clip: one steady sound, or sounds that the listener "
                f"takes for one of its own; {limits}"
            )
        if self.levels is None:
            return None
        level = self.levels.to_numpy()
        loud = (level >= INAUDIBLE_DBFS) & (level >= level.max() - _LOUD_DB)
        if loud.any() and (~inside)[loud].mean() >= UNEXPLAINED:
            return f"{(~inside)[loud].mean():.0%} of what is audible is in no event; {limits}"
        return None

    @property
    def peaks(self) -> xr.DataArray:
        """How clearly each class was heard: the largest mean probability of half a second.

        Dims ``(sound,)``, in [0, 1]. Of a clip shorter than that, the mean.
        """
        frames = self.probabilities.sizes["time"]
        width = min(frames, max(1, round(PEAK_SECONDS / self.frame_seconds)))
        means = self.probabilities.astype(np.float64).rolling(time=width).mean()
        return means.max("time").rename("peak")

    def strongest(self, n: int = 1) -> list[str]:
        """Return the `n` classes of the highest :attr:`peaks`, highest first; all of them where there are fewer.

        Raises
        ------
        AudioError
            `n` is not a positive whole number.
        """
        peaks = self.peaks
        order = np.argsort(-peaks.values, kind="stable")[: whole_number("n", n)]
        return [str(name) for name in peaks["sound"].values[order]]

    def onset(self, sound: str) -> float | None:
        """Return when a class is first heard, in seconds; None where it is not.

        Raises
        ------
        EventsError
            The listener does not know the class.
        """
        self._check_known(sound)
        onsets = self.events.loc[self.events["label"] == sound, "onset"]
        return float(onsets.min()) if len(onsets) else None

    def of_caption(self, caption: str) -> pd.DataFrame:
        """Return the events of the classes that a caption names, each with its place in the caption.

        Parameters
        ----------
        caption : str
            What the clip was generated from, or what is said to be heard in it.

        Returns
        -------
        pandas.DataFrame
            Event table with `span` and `caption`. A class that the caption names and that was not heard is a row
            without times: a phrase that is silent.

        Raises
        ------
        EventsError
            The caption names no class that the listener knows, or one class in several places: which of them
            sounded is not known then.

        Warns
        -----
        AttnVizWarning
            What was heard and is not named; it is left out.
        """
        known = [str(name) for name in self.probabilities["sound"].values]
        named = [name for name in known if find_label(caption, name)]
        if not named:
            raise EventsError(
                f"the caption {caption!r} names none of the sounds that the listener knows: {', '.join(known)}. "
                "Give events of your own, an event table or a file of them."
            )
        others = self.events[~self.events["label"].isin(named)]
        if len(others):
            heard = (f"{row.label} {row.onset:.2f}-{row.offset:.2f} s" for row in others.itertuples())
            warnings.warn(
                f"the listener heard what the prompt does not name, which is left out: {', '.join(heard)}.",
                AttnVizWarning,
                stacklevel=2,
            )
        silent = [name for name in named if name not in set(self.events["label"])]
        rows = event_table([{"clip": self.clip, "label": name, "onset": None, "offset": None} for name in silent])
        own = self.events[self.events["label"].isin(named)]
        return with_spans(pd.concat([own, rows], ignore_index=True) if silent else own, caption)

    def _inside(self, events: pd.DataFrame) -> np.ndarray:
        """Mark the frames whose centre is in one of some events."""
        frames = self.probabilities.sizes["time"]
        centres = (np.arange(frames) + 0.5) * self.frame_seconds
        inside = np.zeros(frames, dtype=bool)
        for onset, offset in events[["onset", "offset"]].to_numpy(dtype=float):
            inside |= (centres >= onset) & (centres < offset)
        return inside

    def _check_known(self, sound: str) -> None:
        known = [str(name) for name in self.probabilities["sound"].values]
        if sound not in known:
            raise EventsError(f"the listener knows no sound {sound!r}; it knows {', '.join(known)}.")

    @property
    def quality_line(self) -> str:
        """One line that says how well the listener hears, to be shown beside everything it heard."""
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
