"""Read calibration clips: curves of every part, and splits without shared recordings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold

from attnviz.alignment.phrases import AlignedPhrase, phrase_events
from attnviz.alignment.reading import MAP, How, audio_seconds, read_phrase
from attnviz.errors import MapsError
from attnviz.maps import AttentionMaps, ReadoutPart
from attnviz.maps.fitted import Range
from attnviz.maps.layer import cells_of
from attnviz.maps.weighing import part_curves
from attnviz.wording import counted

Unit = tuple[str, str]
"""Unit that is held out as a whole: ("source", name), or ("clip", name) if the events have no source."""


@dataclass(frozen=True, eq=False)
class Example:
    """One phrase of a calibration clip.

    Attributes
    ----------
    phrase : AlignedPhrase
        Activity of the phrase, and its curve of the readout ``"mean"``, without columns of padding.
    unit : Unit
        Its source recording.
    heard : frozenset of Unit
        All units that sound in its clip according to the events, including its own.
    parts : numpy.ndarray, float64, shape (parts, columns)
        Curve of each part: its activation divided by its mean.
    layers : numpy.ndarray, float64, shape (layers, columns)
        The same for whole layers.
    """

    phrase: AlignedPhrase
    unit: Unit
    heard: frozenset[Unit]
    parts: np.ndarray
    layers: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Curve of the readout ``"mean"``, shape (columns,)."""
        return self.phrase.curves[MAP][0]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Examples and their common settings.

    Attributes
    ----------
    examples : tuple of Example
        Phrases that can be scored.
    parts, layers : tuple of ReadoutPart
        Parts and layers of `Example.parts` and `Example.layers`. Their weights are placeholders.
    undefined : mapping of str to int
        Number of phrases that cannot be scored, by reason.
    settings : mapping
        Common provenance of the maps of all clips.
    clips : tuple of str
        Names of the clips in their events.
    """

    examples: tuple[Example, ...]
    parts: tuple[ReadoutPart, ...]
    layers: tuple[ReadoutPart, ...]
    undefined: Mapping[str, int]
    settings: Mapping[str, Any]
    clips: tuple[str, ...]


def read_clips(
    clips: Iterable[tuple[AttentionMaps, pd.DataFrame]], *, heads: bool, timesteps: Sequence[Range]
) -> Calibration:
    """Read the phrases of calibration clips one by one, without keeping their maps.

    Parameters
    ----------
    clips : iterable of (AttentionMaps, pandas.DataFrame)
        Maps of one prompt and one image, and the events of the clip.
    heads : bool
        Treat each head as a separate part.
    timesteps : sequence of (float, float)
        Ranges of timesteps that are separate parts. If empty, all denoiser calls are averaged.

    Raises
    ------
    MapsError
        If there are no clips or no phrase can be scored; if maps have several prompts or images; if maps differ in
        model or layers; or if maps lack the heads or timesteps.
    EventsError, PromptError
        See `attnviz.align`.
    """
    examples: list[Example] = []
    undefined: dict[str, int] = {}
    names: list[str] = []
    settings: dict[str, Any] = {}
    parts: tuple[ReadoutPart, ...] = ()
    layers: tuple[ReadoutPart, ...] = ()
    for number, (maps, events) in enumerate(clips):
        _check_single(number, maps)
        if number == 0:
            layers, parts = _parts_of(maps, heads, timesteps)
            settings = maps.provenance
        _check_alike(number, maps, layers, settings)
        settings = {name: value for name, value in maps.provenance.items() if settings.get(name, _NONE) == value}
        found = phrase_events(events, maps.prompts[0], audio_seconds(maps.grid))
        names += [one.clip for one in found[:1]]
        heard = frozenset(_unit(one.source, one.clip) for one in found)
        for one in found:
            phrase = read_phrase(maps, one, How(0, 0, "mean", "mean"), {}, None)
            if phrase.undefined:
                undefined[phrase.undefined] = undefined.get(phrase.undefined, 0) + 1
                continue
            examples.append(_example(maps, phrase, heard, parts, layers))
    if not examples:
        reasons = ", ".join(f"{number} {reason}" for reason, number in undefined.items()) or "no events"
        raise MapsError(f"No phrase of the calibration clips can be scored: {reasons}.")
    return Calibration(tuple(examples), parts, layers, undefined, settings, tuple(dict.fromkeys(names)))


def splits(examples: Sequence[Example], folds: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yield training and test indices such that no recording occurs in both.

    Source recordings are divided into folds. The test set is the phrases of a fold's recordings. The training set
    is the phrases of clips without any of these recordings, not even as another phrase. Other phrases are in
    neither set.

    Parameters
    ----------
    examples : sequence of Example
    folds : int
        Number of folds, at most the number of recordings.

    Raises
    ------
    MapsError
        If there are fewer than two recordings, or a training set is empty.
    """
    units = sorted({example.unit for example in examples})
    if len(units) < 2:
        raise MapsError(
            f"The {len(examples)} phrases are all from one source recording, {units[0][1]!r}, so none can be held "
            "out. Use calibration clips with more recordings."
        )
    groups = [units.index(example.unit) for example in examples]
    for _, held in GroupKFold(min(folds, len(units))).split(groups, groups=groups):
        away = {examples[index].unit for index in held}
        rest = [index for index, example in enumerate(examples) if not example.heard & away]
        if not rest:
            raise MapsError(
                f"With {len(away)} of {len(units)} source recordings held out, no clip is left for fitting: every "
                "clip contains one of them. Use more clips, or fewer recordings per clip."
            )
        yield rest, [int(index) for index in held]


_NONE = object()


def _unit(source: str | None, clip: str) -> Unit:
    return ("clip", clip) if source is None else ("source", source)


def _parts_of(
    maps: AttentionMaps, heads: bool, timesteps: Sequence[Range]
) -> tuple[tuple[ReadoutPart, ...], tuple[ReadoutPart, ...]]:
    layers = tuple(ReadoutPart(name, 1.0) for name in maps.layers)
    parts = []
    for name in maps.layers:
        layer = maps[name]
        if heads and "head" not in layer.dims:
            raise MapsError(
                f"heads=True, but the heads of {name} were not kept when the maps were made; trace with "
                "keep=('head',)."
            )
        of_layer = layer["head"].to_numpy().tolist() if heads else [None]
        parts += [ReadoutPart(name, 1.0, head, span) for head in of_layer for span in (timesteps or (None,))]
    return layers, tuple(parts)


def _example(
    maps: AttentionMaps,
    phrase: AlignedPhrase,
    heard: frozenset[Unit],
    parts: Sequence[ReadoutPart],
    layers: Sequence[ReadoutPart],
) -> Example:
    heat = maps.heatmap(phrase.events.span)
    cells = cells_of(heat, maps.grid)
    columns = ~heat["padding"].to_numpy()
    arrays = {name: maps[name] for name in maps.layers}
    of_parts, of_layers = (
        part_curves(arrays, heat.attrs["positions"], of, prompt_index=0, sample=0, target=cells)[:, columns]
        for of in (parts, layers)
    )
    return Example(phrase, _unit(phrase.events.source, phrase.events.clip), heard, of_parts, of_layers)


def _check_single(number: int, maps: AttentionMaps) -> None:
    if not isinstance(maps, AttentionMaps):
        raise MapsError(f"Clip {number} is a {type(maps).__name__}; give a pair (AttentionMaps, events).")
    if len(maps.prompts) != 1 or maps.images != 1:
        raise MapsError(
            f"The maps of clip {number} have {counted(len(maps.prompts), 'prompt')} and "
            f"{counted(maps.images, 'image')}; give one of each, with the events of its audio. "
            "Trace one call per clip."
        )


def _check_alike(
    number: int, maps: AttentionMaps, layers: Sequence[ReadoutPart], settings: Mapping[str, Any]
) -> None:
    own, wanted = maps.layers, [layer.layer for layer in layers]
    if own != wanted:
        raise MapsError(f"The maps of clip {number} have the layers {own}, but the first clip has {wanted}.")
    for name in ("model", "revision", "randomized"):
        if maps.provenance.get(name) != settings.get(name):
            raise MapsError(
                f"The maps of clip {number} are of a different model than the first clip: {name} is "
                f"{maps.provenance.get(name)!r} instead of {settings.get(name)!r}. A readout is fitted to one "
                "model."
            )
