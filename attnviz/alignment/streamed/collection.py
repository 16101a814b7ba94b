"""Collect the phrases of a source: facts in memory, curves on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from attnviz.alignment.arrays import stretched
from attnviz.alignment.methods import (
    CONSTANT,
    MEAN_DECIMALS,
    ORDER,
    OTHER_CLIP,
    REVERSED,
    SHARE_UNIT,
    other_rows,
    whole_shares,
)
from attnviz.alignment.phrases import Draws
from attnviz.alignment.reading import ENERGY, MAP
from attnviz.alignment.streamed.blocks import PhraseBlock, PhraseSource
from attnviz.alignment.streamed.scratch import RowFile
from attnviz.errors import MapsError

ROWS = 4096
"""Phrases that are looked at together."""


@dataclass(frozen=True, eq=False)
class GivenDraws:
    """Curves of a control from other maps: none, one or several draws for each phrase.

    Attributes
    ----------
    curves : RowFile
        All draws, in the order of phrases, on the columns of their phrase.
    first : numpy.ndarray of int, shape (phrases + 1,)
        First draw of each phrase.
    """

    curves: RowFile
    first: np.ndarray

    @classmethod
    def kept_in(cls, path: Path, draws: Sequence[Draws]) -> GivenDraws:
        """Write the draws of all phrases to a new file."""
        width = max((len(curve) for own in draws for curve in own), default=0)
        file = RowFile(path, width, "float64")
        for own in draws:
            rows = np.full((len(own), width), np.nan)
            for row, curve in zip(rows, own, strict=True):
                row[: len(curve)] = curve
            file.append(rows)
        return cls(file, np.concatenate([[0], np.cumsum([len(own) for own in draws])]).astype(np.int64))

    def of(self, numbers: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the place in `numbers` of the phrase of each draw, and the draws; phrases have equal columns."""
        counts = self.first[numbers + 1] - self.first[numbers]
        owner = np.repeat(np.arange(len(numbers)), counts)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        if not len(owner):
            return owner, np.empty((0, columns))
        return owner, self.curves.take(self.first[numbers][owner] + place)[:, :columns]


@dataclass
class Collection:
    """Phrases of a source.

    Attributes
    ----------
    clips, units : numpy.ndarray of int, shape (phrases,)
        Number of the clip, in the order of names, and of the source recording, in the order of appearance.
    first_clips : numpy.ndarray of int
        Number of the clip in the order of appearance.
    places : numpy.ndarray of int, shape (phrases, 2)
        Place of the phrase among those of its caption, and their number.
    scored : numpy.ndarray of bool, shape (phrases,)
    reasons : dict of str to int
        Reasons why phrases cannot be scored, with their numbers.
    seconds, column_seconds, columns : numpy.ndarray, shape (phrases,)
    times : numpy.ndarray, shape (events, 2)
    first_time : numpy.ndarray of int, shape (phrases + 1,)
        First event of each phrase in `times`.
    curves, shares, energy : RowFile
    named_sources : tuple of bool
        Whether some phrases have a source recording, and whether some have none.
    given : dict of str to GivenDraws
        Controls from other maps.
    """

    clips: np.ndarray
    units: np.ndarray
    first_clips: np.ndarray
    places: np.ndarray
    scored: np.ndarray
    reasons: dict[str, int]
    seconds: np.ndarray
    column_seconds: np.ndarray
    columns: np.ndarray
    times: np.ndarray
    first_time: np.ndarray
    curves: RowFile
    shares: RowFile
    energy: RowFile
    named_sources: tuple[bool, bool]
    seed: int
    given: dict[str, GivenDraws] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def n_clips(self) -> int:
        """Number of clips."""
        return int(self.clips.max()) + 1 if len(self) else 0

    @property
    def methods(self) -> list[str]:
        """Names of the methods: the map first, then its controls."""
        several = [OTHER_CLIP, ORDER] if self.n_clips > 1 else []
        return [MAP, CONSTANT, ENERGY, REVERSED, *several, *self.given]

    @cached_property
    def others(self) -> np.ndarray:
        """Phrase of another clip for each phrase."""
        return other_rows(self.clips, self.seed) if self.n_clips > 1 else np.empty(0, dtype=np.int64)

    def blocks(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the numbers of phrases in parts of equal columns, at most `ROWS` each."""
        for columns in np.unique(self.columns[numbers]):
            alike = numbers[self.columns[numbers] == columns]
            yield from (alike[start : start + ROWS] for start in range(0, len(alike), ROWS))

    def share(self, numbers: np.ndarray, columns: int) -> np.ndarray:
        """Return the activity of phrases, resampled to a number of columns."""
        return self._resampled(self.shares, numbers, columns)

    def envelope(self, numbers: np.ndarray, columns: int) -> np.ndarray:
        """Return the energy of the clips of phrases, resampled to a number of columns."""
        return self._resampled(self.energy, numbers, columns)

    def curve(self, numbers: np.ndarray, columns: int) -> np.ndarray:
        """Return the map of phrases, resampled to a number of columns."""
        return self._resampled(self.curves, numbers, columns)

    def of_method(self, method: str, numbers: np.ndarray) -> np.ndarray:
        """Return the curves of a method other than a given one for phrases of equal columns; NaN if undefined."""
        columns = int(self.columns[numbers[0]])
        if method == CONSTANT:
            return np.zeros((len(numbers), columns))
        if method == ENERGY:
            return self.envelope(numbers, columns)
        if method == REVERSED:
            return self.curve(numbers, columns)[:, ::-1]
        if method == OTHER_CLIP:
            return self.curve(self.others[numbers], columns)
        return self.order(numbers) if method == ORDER else self.curve(numbers, columns)

    def draws_of(self, method: str, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the place in `numbers` of the phrase of each defined curve of a method, and the curves."""
        if method in self.given:
            return self.given[method].of(numbers, int(self.columns[numbers[0]]))
        curves = self.of_method(method, numbers)
        owner = np.flatnonzero(~np.isnan(curves).any(axis=1))
        return owner, curves[owner]

    def order(self, numbers: np.ndarray) -> np.ndarray:
        """Return the mean activity of other clips' phrases at the same place; see `methods.order_curves`."""
        columns = int(self.columns[numbers[0]])
        sums, counts = self._order_sums(columns)
        found = np.full((len(numbers), columns), np.nan)
        shares = whole_shares(self.share(numbers, columns)) * self._timed[numbers, None]
        alike, same_place = (own[numbers] for own in self._own_counts)
        for place, count in np.unique(self.places[numbers], axis=0).tolist():
            rows = np.flatnonzero((self.places[numbers] == (place, count)).all(axis=1))
            for key, own in (((place, count), alike), ((place, 0), same_place)):
                # Captions of as many phrases or, if no other clip has one, all captions.
                open_rows = rows[np.isnan(found[rows, 0])]
                left = counts.get(key, 0) - own[open_rows]
                some = open_rows[left > 0]
                mine = shares[some]
                for row in np.flatnonzero(own[some] > 1):  # samples of one clip
                    mine[row] = self._own_sum(int(numbers[some[row]]), key, columns)
                found[some] = np.round(
                    (sums.get(key, 0) - mine) / SHARE_UNIT / left[left > 0, None], MEAN_DECIMALS
                )
        return found

    def _own_sum(self, number: int, key: tuple[int, int], columns: int) -> np.ndarray:
        """Return the sum of the activity of a clip's timed phrases at a place."""
        order, starts = self._by_clip
        rows = order[starts[self.clips[number]] : starts[self.clips[number] + 1]]
        there = self._timed[rows] & (self.places[rows, 0] == key[0])
        there &= (key[1] == 0) | (self.places[rows, 1] == key[1])
        return np.asarray(whole_shares(self.share(rows[there], columns)).sum(axis=0))

    @cached_property
    def _timed(self) -> np.ndarray:
        return np.diff(self.first_time) > 0

    @cached_property
    def _own_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Number of timed phrases of a phrase's clip at its place: of as many phrases, and of any number."""
        facts = pd.DataFrame(
            {"clip": self.clips, "place": self.places[:, 0], "count": self.places[:, 1], "timed": self._timed}
        )
        alike = facts.groupby(["clip", "place", "count"])["timed"].transform("sum")
        return alike.to_numpy(np.int64), facts.groupby(["clip", "place"])["timed"].transform("sum").to_numpy(
            np.int64
        )

    @cached_property
    def _by_clip(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.clips, kind="stable")
        return order, np.searchsorted(self.clips[order], np.arange(self.n_clips + 1))

    def _order_sums(self, columns: int) -> tuple[dict[tuple[int, int], np.ndarray], dict[tuple[int, int], int]]:
        """Return sums and numbers of the activity of all timed phrases by place, and by place and their number."""
        kept = self.__dict__.setdefault("_sums", {})
        if columns not in kept:
            sums: dict[tuple[int, int], np.ndarray] = {}
            counts: dict[tuple[int, int], int] = {}
            for numbers in self.blocks(np.flatnonzero(self._timed)):
                shares = whole_shares(self.share(numbers, columns))
                places = self.places[numbers]
                for place, count in np.unique(places, axis=0).tolist():
                    rows = (places == (place, count)).all(axis=1)
                    total = shares[rows].sum(axis=0)
                    for key in ((place, count), (place, 0)):
                        sums[key] = sums.get(key, 0) + total
                        counts[key] = counts.get(key, 0) + int(rows.sum())
            kept.clear()  # one number of columns at a time
            kept[columns] = sums, counts
        return kept[columns]

    def _resampled(self, file: RowFile, numbers: np.ndarray, columns: int) -> np.ndarray:
        rows = file.take(numbers).astype(np.float64)
        have = self.columns[numbers]
        if (have == columns).all():
            return rows[:, :columns]
        found = np.empty((len(numbers), columns))
        for length in np.unique(have):
            alike = have == length
            found[alike] = stretched(rows[alike, :length], columns)
        return found


def collect(source: PhraseSource, folder: Path, seed: int) -> Collection:
    """Read all blocks of a source.

    Raises
    ------
    MapsError
        If there is no phrase.
    OutputError
        If the disk is full.
    """
    names: list[str] = []
    units: list[str] = []
    facts: dict[str, list[np.ndarray]] = {}
    reasons: dict[str, int] = {}
    blocks = [folder / name for name in ("curves", "shares", "energy")]
    files: list[RowFile] = []
    named, unnamed = False, False
    for block in source:
        if not files:
            files = [
                RowFile(path, rows.shape[1], str(rows.dtype))
                for path, rows in zip(blocks, (block.curves, block.shares, block.energy), strict=True)
            ]
        files = [_wide_enough(file, block.curves.shape[1]) for file in files]
        for file, rows in zip(files, (block.curves, block.shares, block.energy), strict=True):
            padded = np.full((len(rows), file.width), np.nan)
            padded[:, : rows.shape[1]] = rows
            file.append(padded)
        names += block.clips
        units += [
            f"c{clip}" if source is None else f"s{source}"
            for clip, source in zip(block.clips, block.sources, strict=True)
        ]
        named |= any(one is not None for one in block.sources)
        unnamed |= any(one is None for one in block.sources)
        for reason in block.undefined:
            if reason:
                reasons[reason] = reasons.get(reason, 0) + 1
        for name, values in (
            ("scored", np.array([not reason for reason in block.undefined], dtype=bool)),
            ("seconds", block.seconds), ("column_seconds", block.column_seconds), ("columns", block.columns),
            ("places", _places(block)), ("events", np.array([len(one) for one in block.times], dtype=np.int64)),
            ("times", np.concatenate([*block.times, np.empty((0, 2))])),
        ):  # fmt: skip
            facts.setdefault(name, []).append(values)
    if not names:
        raise MapsError("There is no phrase to pool.")
    joined = {name: np.concatenate(parts) for name, parts in facts.items()}
    return Collection(
        clips=np.unique(np.array(names), return_inverse=True)[1].astype(np.int32),
        units=pd.factorize(np.array(units, dtype=object))[0].astype(np.int32),
        first_clips=pd.factorize(np.array(names, dtype=object))[0].astype(np.int32),
        places=joined["places"],
        scored=joined["scored"],
        reasons=dict(sorted(reasons.items())),
        seconds=joined["seconds"],
        column_seconds=joined["column_seconds"],
        columns=joined["columns"],
        times=joined["times"],
        first_time=np.concatenate([[0], np.cumsum(joined["events"])]),
        curves=files[0],
        shares=files[1],
        energy=files[2],
        named_sources=(named, unnamed),
        seed=seed,
    )


def _wide_enough(file: RowFile, width: int) -> RowFile:
    """Return the file, or a wider copy of it."""
    if file.width >= width:
        return file
    wider = RowFile(file.path.with_name(f"{file.path.name}-{width}"), width, str(file.dtype))
    for start in range(0, file.rows, ROWS):
        rows = file.read(start, start + ROWS)
        wider.append(np.pad(rows, ((0, 0), (0, width - file.width)), constant_values=np.nan))
    file.path.unlink()
    return wider


def _places(block: PhraseBlock) -> np.ndarray:
    """Return the place of each phrase among those of its caption and sample, and their number."""
    keys = pd.DataFrame(
        {"clip": list(block.clips), "sample": block.samples, "start": block.spans[:, 0], "end": block.spans[:, 1]}
    )
    spans = keys.drop_duplicates().sort_values(["clip", "sample", "start", "end"])
    groups = spans.groupby(["clip", "sample"], sort=False)
    spans = spans.assign(place=groups.cumcount(), count=groups["start"].transform("size"))
    return keys.merge(spans, how="left", on=list(keys.columns))[["place", "count"]].to_numpy(dtype=np.int16)
