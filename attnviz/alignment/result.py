"""`Alignment`: scores of maps against events, of one clip or of many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from attnviz.alignment import report
from attnviz.alignment.bootstrap import MOST_RESAMPLES
from attnviz.alignment.phrases import AlignedPhrase
from attnviz.alignment.pooling import Pooled
from attnviz.alignment.saving import load_phrases, save_phrases
from attnviz.alignment.scoring import score_table
from attnviz.alignment.streamed import pool_phrases
from attnviz.arguments import public, whole_number
from attnviz.errors import MapsError
from attnviz.io.paths import FilePath


@dataclass(frozen=True, eq=False, repr=False)
class Alignment:
    """Scores of the phrases of maps, with their controls.

    Created by `attnviz.align`. Pool the results of several clips with `concat`.

    Attributes
    ----------
    phrases : tuple of AlignedPhrase
        Phrases with their curves and activity.
    readout : str
        Readout that combines the layers into one map.
    seed : int
        Seed of random draws: words of other clips, resamples, exchanges.
    """

    phrases: tuple[AlignedPhrase, ...]
    readout: str
    seed: int = 0

    @classmethod
    @public
    def concat(cls, results: Iterable[Alignment]) -> Alignment:
        """Pool the results of several clips, or of several images of one clip.

        With at least two clips, two controls are added: ``"other_clip"``, the maps of another clip's words, and
        ``"order"``, the activity of other clips' phrases at the same position in the text. With at least five
        clips, there are permutation intervals. Equal names of source recordings mean the same recording in all
        clips.

        Parameters
        ----------
        results : iterable of Alignment

        Raises
        ------
        MapsError
            If there are no results, or they differ in readout, seed or names of controls.
        """
        given = list(results)
        if not given:
            raise MapsError("No results to pool: 0 alignments were given; give at least one.")
        first = given[0]
        for number, other in enumerate(given):
            for name, own, wanted in (
                ("readout", other.readout, first.readout),
                ("seed", other.seed, first.seed),
                ("controls", sorted(other._controls), sorted(first._controls)),
            ):
                if own != wanted and not (name == "controls" and not (other.phrases and first.phrases)):
                    raise MapsError(
                        f"Result {number} has a different {name} than the first: {own!r} instead of {wanted!r}. "
                        "Only results with the same settings can be pooled."
                    )
        return cls(tuple(phrase for one in given for phrase in one.phrases), first.readout, first.seed)

    @public
    def save(self, path: FilePath, *, overwrite: bool = False) -> None:
        """Save the alignment in a folder, from which `load` restores the same scores without maps or model.

        Parameters
        ----------
        path : path-like
            Path of a new folder.
        overwrite : bool
            Replace an existing alignment, but nothing else.

        Raises
        ------
        OutputError
            If the folder exists and may not be replaced, or cannot be written. No partial folder is left.
        """
        save_phrases(path, self.phrases, self.readout, self.seed, overwrite=overwrite)

    @classmethod
    @public
    def load(cls, path: FilePath) -> Alignment:
        """Load an alignment saved by `save`.

        Raises
        ------
        MapsError
            If there is no alignment, or it is of another version or damaged.
        """
        return cls(*load_phrases(path))

    @cached_property
    def table(self) -> pd.DataFrame:
        """Scores with one row per phrase, method and draw.

        ``phrase`` (index in the pool), ``clip``, ``image``, ``label``, ``text`` (the phrase as written in the
        caption, where the label may be a class), ``start`` and ``end`` (its characters in the caption), ``source``
        (empty if the events have none), ``origin`` ("listener" if the events were heard by the listener, empty if
        they were given), ``readout`` (of the maps), ``column_ms`` (width of a column, which limits the resolution
        in time), ``undefined`` (reason why the phrase cannot be scored, or empty), ``method`` (see
        `attnviz.alignment.methods`), ``draw`` (index of a control's map), and the scores: ``roc_auc``,
        ``average_precision``, ``pearson``, ``spearman``, ``partial`` (correlation given the energy
        envelope), ``pointing``, ``onset_error`` and ``onset_distance`` (signed and absolute, in s), ``iou``. NaN
        is undefined. There are no intervals for single phrases; see `pooled`.
        """
        return score_table(self.phrases, self.readout, self.seed)

    @cached_property
    def pooled(self) -> Pooled:
        """Pooled scores, differences and verdicts: :meth:`pool` with its defaults."""
        return self.pool()

    @public
    def pool(self, *, n_resamples: int = 1000, n_permutations: int = 1000) -> Pooled:
        """Pool the scores of all phrases that can be scored.

        Parameters
        ----------
        n_resamples : int
            Number of bootstrap resamples of source recordings and clips, because phrases of the same recording or
            clip are similar. Phrases whose events have no source are resampled by clip only.
        n_permutations : int
            Number of exchanges of maps between clips.

        Returns
        -------
        Pooled
            Intervals are NaN if there are fewer than two sources or clips (bootstrap) or fewer than five clips
            (permutation).

        Raises
        ------
        ArgumentError
            If a number is not a whole number from 1 to 100 000.
        OutputError
            If the folder of temporary files (``TMPDIR``) is full.

        Notes
        -----
        The time is proportional to phrases times resamples for the detection scores, and to phrases times
        permutations for the permutation intervals. What computes them is compiled at the first call after the
        installation, in about half a minute. Single precision of exchanged curves changes the seventh digit of
        permutation intervals.
        """
        n_resamples = whole_number("n_resamples", n_resamples, most=MOST_RESAMPLES)
        n_permutations = whole_number("n_permutations", n_permutations, most=MOST_RESAMPLES)
        return pool_phrases(
            self.phrases, self.table, n_resamples=n_resamples, n_permutations=n_permutations, seed=self.seed
        )

    @cached_property
    def undefined(self) -> pd.DataFrame:
        """Phrases that cannot be scored: ``clip``, ``image``, ``label``, ``start``, ``end``, ``reason``."""
        rows = self.table.drop_duplicates("phrase")
        rows = rows.loc[rows["undefined"] != "", ["clip", "image", "label", "start", "end", "undefined"]]
        return rows.rename(columns={"undefined": "reason"}).reset_index(drop=True)

    @property
    def counts(self) -> dict[str, int]:
        """Number of phrases, scored phrases, undefined phrases by reason, and events not scored or cut."""
        reasons = self.undefined["reason"].value_counts().sort_index()
        counts = {"phrases": len(self.phrases), "scored": len(self.phrases) - int(reasons.sum())}
        counts |= {str(reason): int(number) for reason, number in reasons.items()}
        events = [phrase.events for phrase in self.phrases]
        return counts | {
            "zero-length events": sum(one.zero_length for one in events),
            "events cut at the end of their clip": sum(one.clipped for one in events),
        }

    @property
    def column_ms(self) -> tuple[float, ...]:
        """Widths of the scored columns in ms, ascending."""
        return tuple(sorted({round(1e3 * phrase.column_seconds, 6) for phrase in self.phrases}))

    @property
    def unit(self) -> str:
        """Unit of the bootstrap: source recordings, or clips if the events have no source."""
        named = {phrase.events.source is not None for phrase in self.phrases}
        if named == {True, False}:
            return "source recordings, or clips if the events have no source"
        return "source recordings" if True in named else "clips (the events have no source recording)"

    def summary(self) -> str:
        """Return the pooled scores and controls as text, with intervals, counts and column width."""
        return report.text(self)

    def __repr__(self) -> str:
        return f"<Alignment of {report.headline(self)}>"

    @property
    def _controls(self) -> set[str]:
        return {name for phrase in self.phrases for name in phrase.curves}

    @property
    def _clips(self) -> np.ndarray:
        return np.asarray(
            pd.factorize(pd.Series([phrase.events.clip for phrase in self.phrases], dtype=object))[0]
        )

    @property
    def _units(self) -> np.ndarray:
        names = [
            ("clip", phrase.events.clip) if phrase.events.source is None else ("source", phrase.events.source)
            for phrase in self.phrases
        ]
        codes, _ = pd.factorize(pd.Series(names, dtype=object))
        return np.asarray(codes, dtype=np.int64)
