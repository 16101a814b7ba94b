"""`Alignment`: what scoring maps against events gave, of one clip or of many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from attnviz.alignment import report
from attnviz.alignment.phrases import AlignedPhrase
from attnviz.alignment.pooling import Pooled, pool
from attnviz.alignment.saving import load_phrases, save_phrases
from attnviz.alignment.scoring import score_table
from attnviz.arguments import public
from attnviz.errors import AttnVizError, MapsError
from attnviz.io.paths import FilePath


@dataclass(frozen=True, eq=False, repr=False)
class Alignment:
    """Scores of a map's phrases, each beside its controls.

    Made by `attnviz.align`; results of several clips are pooled by `concat`.

    Attributes
    ----------
    phrases : tuple of AlignedPhrase
        The phrases with their curves and truths.
    readout : str
        How layers became one map.
    seed : int
        What is drawn at random is drawn with it: the words of other clips, resamples, exchanges.
    """

    phrases: tuple[AlignedPhrase, ...]
    readout: str
    seed: int = 0

    @classmethod
    @public
    def concat(cls, results: Iterable[Alignment]) -> Alignment:
        """Pool the results of several clips, or of several images of one.

        With a second clip the maps of another clip's words become a control, and so does the order of the phrases
        (``"order"``: when other clips' phrases at the same place in the text are there); with five there are
        permutation intervals. Names of source recordings mean the same recording in every clip.

        Parameters
        ----------
        results : iterable of Alignment

        Raises
        ------
        MapsError
            There are none, or they differ in readout, seed or the names of given controls.
        """
        given = list(results)
        if not given:
            raise MapsError("there are no results to pool: 0 alignments were given, 1 or more are needed.")
        first = given[0]
        for number, other in enumerate(given):
            for name, own, wanted in (
                ("readout", other.readout, first.readout),
                ("seed", other.seed, first.seed),
                ("controls", sorted(other._controls), sorted(first._controls)),
            ):
                if own != wanted and not (name == "controls" and not (other.phrases and first.phrases)):
                    raise MapsError(
                        f"result {number} has another {name} than the first: {own!r} and {wanted!r}. Only results "
                        "of the same settings can be pooled."
                    )
        return cls(tuple(phrase for one in given for phrase in one.phrases), first.readout, first.seed)

    @public
    def save(self, path: FilePath, *, overwrite: bool = False) -> None:
        """Write the alignment to a folder, from which `load` gives the same scores without maps or model.

        Parameters
        ----------
        path : path-like
            A new folder.
        overwrite : bool
            Replace an alignment that is there, and nothing else.

        Raises
        ------
        OutputError
            The folder exists and may not be replaced, or cannot be written. Nothing half-written is left.
        """
        save_phrases(path, self.phrases, self.readout, self.seed, overwrite=overwrite)

    @classmethod
    @public
    def load(cls, path: FilePath) -> Alignment:
        """Read an alignment that `save` wrote.

        Raises
        ------
        MapsError
            There is none, it is of another version, or it is damaged.
        """
        return cls(*load_phrases(path))

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row for each phrase, method and draw.

        ``phrase`` (number in the pool), ``clip``, ``image``, ``label``, ``start`` and ``end`` (its characters in
        the caption), ``source`` (empty where the events name none), ``column_ms`` (width of a column: no time
        score is finer), ``undefined`` (why the phrase cannot be scored; empty where it can), ``method`` (see
        `attnviz.alignment.methods`), ``draw`` (which of a control's maps), then the scores: ``roc_auc``,
        ``average_precision``, ``pearson``, ``spearman``, ``partial`` (correlation given the energy envelope),
        ``pointing``, ``onset_error`` and ``onset_distance`` (signed and absolute, s), ``iou``. NaN is undefined.
        A phrase has no interval of its own: those are of pools, `pooled`.
        """
        return score_table(self.phrases, self.seed)

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
            Bootstrap resamples of source recordings and of clips: phrases of one recording resemble each other,
            and so do those of one clip. Of clips alone for phrases whose events name no source.
        n_permutations : int
            Exchanges of maps between clips.

        Returns
        -------
        Pooled
            NaN intervals where there is nothing to draw from: below two sources or clips, for exchanges below five
            clips.

        Raises
        ------
        AttnVizError
            A number is not a whole number of at least 1.

        Notes
        -----
        Time grows with phrases times resamples for the detection scores, and with the square of the phrases for
        the permutation intervals.
        """
        for name, number in (("n_resamples", n_resamples), ("n_permutations", n_permutations)):
            if not isinstance(number, int | np.integer) or isinstance(number, bool) or number < 1:
                raise AttnVizError(f"{name} is {number!r}; a whole number from 1 is needed.")
        return pool(
            self.phrases, self.table, units=self._units, clips=self._clips, n_resamples=int(n_resamples),
            n_permutations=int(n_permutations), seed=self.seed,
        )  # fmt: skip

    @cached_property
    def undefined(self) -> pd.DataFrame:
        """Phrases that cannot be scored: ``clip``, ``image``, ``label``, ``start``, ``end``, ``reason``."""
        rows = self.table.drop_duplicates("phrase")
        rows = rows.loc[rows["undefined"] != "", ["clip", "image", "label", "start", "end", "undefined"]]
        return rows.rename(columns={"undefined": "reason"}).reset_index(drop=True)

    @property
    def counts(self) -> dict[str, int]:
        """How many phrases there are, were scored and could not be, by reason; and events not scored or cut."""
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
        """Widths of the columns that were scored, in ms, ascending."""
        return tuple(sorted({round(1e3 * phrase.column_seconds, 6) for phrase in self.phrases}))

    @property
    def unit(self) -> str:
        """What the bootstrap draws: source recordings, or clips where the events name none."""
        named = {phrase.events.source is not None for phrase in self.phrases}
        if named == {True, False}:
            return "source recordings, and clips where the events name none"
        return "source recordings" if True in named else "clips (the events name no source recording)"

    def summary(self) -> str:
        """Return the pooled scores as text: each beside its controls, with intervals, counts and column width."""
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
