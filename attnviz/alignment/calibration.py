"""Clips with known sounds as a readout is fitted on them: curves of every part, and what may be fitted on what."""

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

Unit = tuple[str, str]
"""What is held out as a whole: ("source", its name), or ("clip", its name) where events name no source."""


@dataclass(frozen=True, eq=False)
class Example:
    """One phrase of a calibration clip.

    Attributes
    ----------
    phrase : AlignedPhrase
        Its truth, and its curve of the readout ``"mean"``; columns of padding are left out.
    unit : Unit
        Its own source recording.
    heard : frozenset of Unit
        All that sounds in its clip, as far as events say; its own is one of them.
    parts : numpy.ndarray, float64, shape (parts, columns)
        Curve of each part: its activation over its own mean.
    layers : numpy.ndarray, float64, shape (layers, columns)
        The same of each whole layer.
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
    """Examples, and what they were read from.

    Attributes
    ----------
    examples : tuple of Example
        Phrases that can be scored.
    parts, layers : tuple of ReadoutPart
        What `Example.parts` and `Example.layers` are of; the weights mean nothing yet.
    undefined : mapping of str to int
        Phrases that cannot be scored, by reason.
    settings : mapping
        What the provenances of all clips' maps agree in.
    clips : tuple of str
        Names of the clips, as their events have them.
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
    """Read the phrases of calibration clips, one clip after another; no maps are kept.

    Parameters
    ----------
    clips : iterable of (AttentionMaps, pandas.DataFrame)
        Maps of one prompt and one image, and the clip's events.
    heads : bool
        Whether each head is a part of its own.
    timesteps : sequence of (float, float)
        Ranges of timesteps that are parts of their own; none: all denoiser calls together.

    Raises
    ------
    MapsError
        There are no clips, or none with a phrase that can be scored; maps of several prompts or images; maps of
        different models or layers; maps that lack the heads or timesteps.
    EventsError, PromptError
        As `attnviz.align`.
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
        reasons = ", ".join(f"{number} {reason}" for reason, number in undefined.items()) or "no events at all"
        raise MapsError(f"no phrase of the calibration clips can be scored: {reasons}.")
    return Calibration(tuple(examples), parts, layers, undefined, settings, tuple(dict.fromkeys(names)))


def splits(examples: Sequence[Example], folds: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yield what is fitted on and what is held out, as indices: no recording sounds on both sides.

    Source recordings are dealt into folds. The phrases of a fold's recordings are held out, and fitted on are the
    phrases of clips in which none of those recordings sounds, not even as another phrase. The rest of such clips
    is in neither.

    Parameters
    ----------
    examples : sequence of Example
    folds : int
        Fewer where there are fewer recordings.

    Raises
    ------
    MapsError
        Below two recordings, or each clip holds one of those held out.
    """
    units = sorted({example.unit for example in examples})
    if len(units) < 2:
        raise MapsError(
            f"the {len(examples)} phrases to be split are all of one source recording, {units[0][1]!r}: none can "
            "be held out. Calibrate on clips of more recordings."
        )
    groups = [units.index(example.unit) for example in examples]
    for _, held in GroupKFold(min(folds, len(units))).split(groups, groups=groups):
        away = {examples[index].unit for index in held}
        rest = [index for index, example in enumerate(examples) if not example.heard & away]
        if not rest:
            raise MapsError(
                f"with {len(away)} of {len(units)} source recordings held out no clip is left to fit on: each has "
                "one of them. Calibrate on more clips, or with fewer recordings in each."
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
                f"heads=True, and the heads of {name} were summed out when the maps were made; make them with "
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
        raise MapsError(f"clip {number} is given by a {type(maps).__name__}; (AttentionMaps, events) is needed.")
    if len(maps.prompts) != 1 or maps.images != 1:
        raise MapsError(
            f"the maps of clip {number} hold {len(maps.prompts)} prompts and {maps.images} images; one of each is "
            "needed, with the events of its audio. Trace one call a clip."
        )


def _check_alike(
    number: int, maps: AttentionMaps, layers: Sequence[ReadoutPart], settings: Mapping[str, Any]
) -> None:
    own, wanted = maps.layers, [layer.layer for layer in layers]
    if own != wanted:
        raise MapsError(f"the maps of clip {number} have the layers {own}, those of the first {wanted}.")
    for name in ("model", "revision", "randomized"):
        if maps.provenance.get(name) != settings.get(name):
            raise MapsError(
                f"the maps of clip {number} are of another model than the first: their {name} is "
                f"{maps.provenance.get(name)!r}, not {settings.get(name)!r}. A readout is of one model."
            )
