"""Score all phrases of a corpus together: read blocks of shards, pool them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np

from attnviz.alignment.pooling import Pooled
from attnviz.alignment.report import chance_lines, meaning_lines, score_rows, verdict_lines
from attnviz.alignment.streamed import PhraseBlock, pool_stream
from attnviz.corpus.arrays import ACTIVATION, ENERGY, SHARE
from attnviz.corpus.folder import CorpusFolder
from attnviz.errors import CorpusError, MapsError
from attnviz.wording import counted, short_repr

_COLUMNS = (
    "index", "clip", "phrase", "start", "end", "scored", "undefined", "source", "onsets", "offsets", "seconds",
    "column_seconds", "columns",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class CorpusAlignment:
    """Pooled scores of a corpus; see `Corpus.align`.

    Attributes
    ----------
    pooled : Pooled
        Scores and comparisons with controls.
    readout : str
    phrases, clips : int
        Number of phrases, and of their clips.
    reasons : dict of str to int
        Reasons why phrases could not be scored, with their numbers.
    column_ms : tuple of float
        Widths of the scored columns in ms.
    unit : str
        Unit of the bootstrap.
    """

    pooled: Pooled
    readout: str
    phrases: int
    clips: int
    reasons: dict[str, int]
    column_ms: tuple[float, ...]
    unit: str

    __repr__ = short_repr

    def summary(self) -> str:
        """Return the pooled scores and controls as text, with intervals, counts and column width."""
        widths = " and ".join(f"{round(width, 1):g}" for width in self.column_ms)
        what = f"{counted(self.phrases, 'phrase')} of {counted(self.clips, 'clip')}"
        lines = [f"{what}, readout {self.readout!r}, columns of {widths} ms"]
        if self.reasons:
            reasons = ", ".join(f"{number} {reason}" for reason, number in self.reasons.items())
            lines.append(f"Not scored: {reasons}.")
        lines += [f"95 % intervals: bootstrap over {self.unit}, and clips.", ""]
        lines += [score_rows(self.pooled).to_string(), "", *verdict_lines(self.pooled), *chance_lines(self.pooled)]
        lines += ["", *meaning_lines(self.pooled)]
        return "\n".join(lines)


def align_corpus(
    folder: CorpusFolder,
    *,
    n_resamples: int,
    n_permutations: int,
    seed: int,
    progress: Callable[[str, float], object] | None,
) -> CorpusAlignment:
    """Pool all scored phrases of the finished shards; see `Corpus.align`."""
    if folder.activations is None:
        raise CorpusError(f"The plan of {folder.path} keeps no activations (keep.activations = false).")
    try:
        found = pool_stream(
            _blocks(folder), n_resamples=n_resamples, n_permutations=n_permutations, seed=seed, progress=progress
        )
    except MapsError as nothing:
        why = "score.events of its plan is 'none'" if folder.plan.score.events == "none" else "all clips failed"
        raise CorpusError(
            f"{folder.path} has no phrase with scores, so there is nothing to pool: {why}, or nothing is finished."
        ) from nothing
    return CorpusAlignment(
        readout=folder.plan.score.readout, **{one.name: getattr(found, one.name) for one in fields(found)}
    )


def _blocks(folder: CorpusFolder) -> Iterator[PhraseBlock]:
    """Yield the scored phrases of every finished shard."""
    for shard in folder.done():
        table, arrays = folder.table(shard, _COLUMNS), folder.arrays(shard)
        rows = table.filter(table["scored"]).to_pydict()
        if not rows["index"]:
            continue
        start = shard * folder.plan.clips_per_shard
        clips, phrases = np.array(rows["index"]) - start, np.array(rows["phrase"])
        yield PhraseBlock(
            clips=rows["clip"],
            sources=rows["source"],
            samples=np.zeros(len(clips), dtype=np.int64),
            spans=np.column_stack([rows["start"], rows["end"]]),
            undefined=rows["undefined"],
            seconds=np.array(rows["seconds"]),
            column_seconds=np.array(rows["column_seconds"]),
            columns=np.array(rows["columns"], dtype=np.int64),
            curves=arrays[ACTIVATION][clips, phrases],
            shares=arrays[SHARE][clips, phrases],
            energy=arrays[ENERGY][clips],
            times=[
                np.column_stack([onsets, offsets]).reshape(-1, 2)
                for onsets, offsets in zip(rows["onsets"], rows["offsets"], strict=True)
            ],
        )
