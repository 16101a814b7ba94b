"""Evaluate folders of audio or runs: embed the clips, pair them, compute all metrics that apply."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from attnviz.arguments import public
from attnviz.audio import load_audio
from attnviz.audio.levels import INAUDIBLE_DBFS, loudest_level
from attnviz.errors import AttnVizError, EvaluationError, InaudibleWarning, warn
from attnviz.evaluation.arrays import checked_units
from attnviz.evaluation.cache import EmbeddingCache
from attnviz.evaluation.classes import inception_score, kl_divergence
from attnviz.evaluation.clips import Clip, pair_clips, read_clips
from attnviz.evaluation.embedder import Embed, Embedder, checked_embedder
from attnviz.evaluation.estimate import ALLOW_FEW, Estimate, checked_resamples, mean_estimate
from attnviz.evaluation.frechet import frechet_distance, frechet_distance_infinity
from attnviz.evaluation.hub_embedders import LISTENER, load_embedder
from attnviz.evaluation.kernels import FEWEST_FOR_INTERVAL, kernel_audio_distance, kernel_inception_distance
from attnviz.evaluation.matching import clap_score
from attnviz.evaluation.result import COLUMNS, Evaluation
from attnviz.io.paths import FilePath
from attnviz.wording import counted, short_repr

RESAMPLES = 200
_MOST_NAMED = 5
_LEVEL = "level"

_logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], object]
"""Called after each clip with the embedder's name, the number of clips done, and that of all clips."""


@dataclass(frozen=True, eq=False)
class EmbeddedClips:
    """Embeddings of clips by one embedder.

    Attributes
    ----------
    embeddings : numpy.ndarray or None
        ``(clips, columns)``.
    logits : numpy.ndarray or None
        ``(clips, classes)``, of a classifier.
    levels : numpy.ndarray
        ``(clips,)``: level of the loudest 0.4 s in dB of full scale.
    """

    embeddings: np.ndarray | None
    logits: np.ndarray | None
    levels: np.ndarray

    __repr__ = short_repr


@public
def embed_clips(
    clips: Sequence[Clip],
    embedder: Embedder | Embed,
    *,
    cache: EmbeddingCache | FilePath | None = None,
    progress: Callable[[int], object] | None = None,
) -> EmbeddedClips:
    """Embed clips, one after the other.

    Parameters
    ----------
    clips : sequence of Clip
        See `read_clips`.
    embedder : Embedder or callable
        See `Embedder`. Another callable gets audio at 16 kHz.
    cache : EmbeddingCache or path-like, optional
        Where embeddings are kept between calls.
    progress : callable, optional
        Called with 1 after each clip.

    Returns
    -------
    EmbeddedClips

    Raises
    ------
    AttnVizError
        If a file cannot be read, or an embedding is NaN or of another length than before. The message names the
        file.
    """
    embedder = checked_embedder(embedder)
    kept = EmbeddingCache(cache) if cache is not None and not isinstance(cache, EmbeddingCache) else cache
    found: list[dict[str, np.ndarray]] = []
    for clip in clips:
        one = _embedded(clip, embedder, kept)
        for name in {*one, *(found[0] if found else one)}:
            shapes = [each[name].shape if name in each else None for each in (found[0] if found else one, one)]
            if shapes[0] != shapes[1]:
                raise EvaluationError(
                    f"{clip.path}: the embedder {embedder.name} returned {name} of shape {shapes[1]}, but "
                    f"{shapes[0]} for {clips[0].path}; all clips need the same."
                )
        found.append(one)
        if progress is not None:
            progress(1)
    stacked = {name: np.stack([one[name] for one in found]) for name in (found[0] if found else ())}
    levels = stacked.get(_LEVEL, np.zeros((0, 1)))[:, 0]
    return EmbeddedClips(stacked.get("embedding"), stacked.get("logits"), levels)


@public
def evaluate(
    evaluated: FilePath | Sequence[FilePath] | Sequence[Clip],
    reference: FilePath | Sequence[FilePath] | Sequence[Clip] | None = None,
    *,
    embedders: Iterable[Embedder | Embed | str] | Embedder | Embed | str = (LISTENER,),
    cache: EmbeddingCache | FilePath | None = None,
    n_resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate clips against reference clips and captions with all metrics that apply.

    With a reference: the Frechet distance (``FD``), its extrapolation to infinitely many clips of both sets
    (``FD-inf``), ``KAD`` and ``KID``. With a classifier: ``IS``, and with pairs of clips ``KL`` in both
    conventions. With captions and an embedder of text: the CLAP score.

    Parameters
    ----------
    evaluated, reference : path-like, or sequence of path-like or Clip
        Folders of audio or of runs; see `read_clips`. For a fair distance, the reference should contain the same
        kinds of sounds, and other recordings than the model was trained on.
    embedders : Embedder, callable or str, or iterable of them
        Names are those of `load_embedder`. A callable takes audio ``(samples,)`` and its sampling rate. By
        default, the bundled listener.
    cache : EmbeddingCache or path-like, optional
        Where embeddings are kept between calls.
    n_resamples : int
        Number of bootstrap resamples; 0 for no intervals. Clips with the same caption are drawn together.
    seed : int
        Seed of the bootstrap and of the subsets of ``FD-inf``.
    progress : callable, optional
        Called after each clip with the embedder's name and the numbers of clips done and of all.

    Returns
    -------
    Evaluation

    Raises
    ------
    AttnVizError
        If a folder has no clips, a file cannot be read, an embedder cannot be loaded, or embeddings are invalid.

    Warns
    -----
    InaudibleWarning
        If clips are silent.
    AttnVizWarning
        If evaluated clips are also in the reference.
    """
    n_resamples, seed = checked_resamples(n_resamples, seed)
    clips, others = _clips(evaluated), [] if reference is None else _clips(reference)
    _warn_of_shared(clips, others)
    embedders = (embedders,) if isinstance(embedders, str) or callable(embedders) else embedders
    loaded = [load_embedder(one) if isinstance(one, str) else checked_embedder(one) for one in embedders]
    if not loaded:
        raise EvaluationError("embedders is empty; at least one is needed.")
    repeated = {one.name for one in loaded if [other.name for other in loaded].count(one.name) > 1}
    if repeated:
        raise EvaluationError(
            f"several embedders have the name {min(repeated)!r}; their rows could not be told apart."
        )
    pairs, by = pair_clips(clips, others) if others else ([], "caption")
    how = {"n_resamples": n_resamples, "seed": seed}
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for embedder in loaded:
        done = 0

        def count(clip: int, name: str = embedder.name) -> None:
            nonlocal done
            done += clip
            if progress is not None:
                progress(name, done, len(clips) + len(others))

        own = embed_clips(clips, embedder, cache=cache, progress=count)
        theirs = embed_clips(others, embedder, cache=cache, progress=count)
        if embedder is loaded[0]:
            _warn_if_silent(clips, own.levels, "evaluated")
            _warn_if_silent(others, theirs.levels, "reference")
        rows += _rows(embedder, clips, own, theirs, pairs, how, notes)
    _logger.info("evaluated %d clips against %d with %d embedders", len(clips), len(others), len(loaded))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table = table.astype(dict.fromkeys(("clips", "reference_clips", "needed"), "Int64"))
    return Evaluation(table, (*_notes(loaded, clips, others, pairs, by), *notes))


def _clips(given: Any) -> list[Clip]:
    if isinstance(given, Sequence) and not isinstance(given, str) and any(isinstance(one, Clip) for one in given):
        if not all(isinstance(one, Clip) for one in given):
            raise EvaluationError("clips and paths are mixed; read the folders first: read_clips(folders).")
        return list(given)
    return read_clips(given)


def _warn_of_shared(clips: Sequence[Clip], others: Sequence[Clip]) -> None:
    there = {other.path.resolve() for other in others}
    shared = [clip.name for clip in clips if clip.path.resolve() in there]
    if shared:
        more = ", ..." if len(shared) > _MOST_NAMED else ""
        warn(
            f"{len(shared)} of {counted(len(clips), 'evaluated clip')} are also in the reference: "
            f"{', '.join(shared[:_MOST_NAMED])}{more}. Their distance from themselves is 0, so every distance is "
            "too low. Give a reference of other clips."
        )


def _embedded(clip: Clip, embedder: Embedder, cache: EmbeddingCache | None) -> dict[str, np.ndarray]:
    known = None if cache is None else cache.get(clip.path, embedder)
    if known is not None and _LEVEL in known:
        return known
    audio = load_audio(clip.path, embedder.sampling_rate)
    try:
        found = embedder(audio, embedder.sampling_rate)
    except AttnVizError as error:
        raise type(error)(f"{clip.path}: {error}") from error
    found[_LEVEL] = np.array([loudest_level(load_audio(clip.path))])
    if cache is not None:
        cache.put(clip.path, embedder, found)
    return found


def _warn_if_silent(clips: Sequence[Clip], levels: np.ndarray, what: str) -> None:
    silent = [clip.name for clip, level in zip(clips, levels, strict=True) if level < INAUDIBLE_DBFS]
    if silent:
        more = ", ..." if len(silent) > _MOST_NAMED else ""
        warn(
            f"{len(silent)} of {counted(len(clips), f'{what} clip')} cannot be heard, below {INAUDIBLE_DBFS:g} "
            f"dBFS: {', '.join(silent[:_MOST_NAMED])}{more}. They are evaluated like the others.",
            InaudibleWarning,
        )


def _units(clips: Sequence[Clip]) -> list[str] | None:
    """Return the unit of each clip: its caption, unless all have one."""
    captions = [clip.caption for clip in clips]
    if len(set(captions)) < 2:
        return None
    return [f"caption {one}" if one else f"clip {i}" for i, one in enumerate(captions)]


def _rows(
    embedder: Embedder,
    clips: Sequence[Clip],
    own: EmbeddedClips,
    theirs: EmbeddedClips,
    pairs: Sequence[tuple[int, int]],
    how: dict[str, int],
    notes: list[str],
) -> list[dict[str, Any]]:
    units, name = _units(clips), embedder.name
    rows = []

    x, y = own.embeddings, theirs.embeddings
    settings: dict[str, Any] = {"units": units, **how}

    def add(metric: str, better: str, needed: int, compute: Callable[[], Estimate]) -> None:
        try:
            estimate = compute()
            rows.append(_row(metric, name, estimate))
            if estimate.details.get("clips_for_5_percent"):
                count = estimate.details["clips_for_5_percent"]
                notes.append(f"FD-{name} would be within 5 % of {metric} from {count} clips on")
        except EvaluationError as reason:
            known = {"clips": len(clips), "reference_clips": len(y) if y is not None else 0, "needed": needed}
            why = str(reason).replace(ALLOW_FEW, "").strip()  # no argument of `evaluate`
            rows.append({"metric": metric, "embedder": name, **known, "better": better, "undefined": why})

    if x is not None and y is not None:
        columns = x.shape[1] + 1
        add(f"FD-{name}", "lower", columns, lambda: frechet_distance(x, y, **settings))
        infinity = lambda: frechet_distance_infinity(x, y, vary="both", **settings)  # noqa: E731
        add(f"FD-inf-{name}", "lower", 2 * columns, infinity)
        add(f"KAD-{name}", "lower", FEWEST_FOR_INTERVAL, lambda: kernel_audio_distance(x, y, **settings))
        add(f"KID-{name}", "lower", FEWEST_FOR_INTERVAL, lambda: kernel_inception_distance(x, y, **settings))
        negative = [row["metric"] for row in rows if row["metric"].startswith("K") and row.get("value", 0.0) < 0]
        if negative:
            notes.append(
                f"{' and '.join(negative)} below 0: usual where both sets are alike, as the estimate has no bias"
            )
    logits, other = own.logits, theirs.logits
    if logits is not None:
        add(f"IS-{name}", "higher", logits.shape[1], lambda: inception_score(logits, **settings))
    if logits is not None and other is not None and pairs:
        add(f"KL-softmax-{name}", "lower", 2, lambda: _divergence(logits, other, pairs, "softmax", units, how))
        add(f"KL-sigmoid-{name}", "lower", 2, lambda: _divergence(logits, other, pairs, "sigmoid", units, how))
    captioned = [i for i, clip in enumerate(clips) if clip.caption]
    if captioned and embedder.text is None:
        notes.append(f"no CLAP score of {name}, which does not embed text; a CLAP embedder adds it")
    if embedder.text is not None and captioned and x is not None:
        text = embedder.text([str(clips[i].caption) for i in captioned])
        together = None if units is None else [units[i] for i in captioned]
        add(f"{name}-score", "higher", 2, lambda: clap_score(x[captioned], text, units=together, **how))
    return rows


def _row(metric: str, name: str, estimate: Estimate) -> dict[str, Any]:
    return {
        "metric": metric, "embedder": name, "value": estimate.value, "low": estimate.low, "high": estimate.high,
        "clips": estimate.n, "reference_clips": estimate.n_reference, "needed": estimate.needed,
        "better": estimate.better, "undefined": "",
    }  # fmt: skip


def _divergence(
    own: np.ndarray,
    theirs: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    convention: Literal["softmax", "sigmoid"],
    units: Sequence[str] | None,
    how: dict[str, int],
) -> Estimate:
    """Return the mean over paired clips; of a clip with several references, their mean."""
    first, second = np.array(pairs).T
    each = kl_divergence(own[first], theirs[second], convention=convention, n_resamples=0)
    paired, index = np.unique(first, return_inverse=True)
    values = np.bincount(index, each.per_clip) / np.bincount(index)
    together = checked_units(None if units is None else [units[i] for i in paired], len(paired))
    return mean_estimate(
        values, together, **how, n_reference=len(np.unique(second)), better="lower", lowest=-np.inf,
        highest=np.inf, details=each.details,
    )  # fmt: skip


def _notes(
    embedders: Sequence[Embedder],
    clips: Sequence[Clip],
    others: Sequence[Clip],
    pairs: Sequence[tuple[int, int]],
    by: str,
) -> Iterator[str]:
    for embedder in embedders:
        if embedder.note:
            yield f"{embedder.name}: {embedder.note}"
    if others:
        counts = [len(set(side)) for side in zip(*pairs, strict=True)] or [0, 0]
        sides = (
            f"{counts[0]} of {len(clips)} evaluated and {counts[1]} of {counted(len(others), 'reference clip')}"
        )
        yield f"pairs by {by}: {sides}"
        if not pairs:
            yield "no KL, which compares pairs: give both sets the same captions (metadata.csv), or the same names"
    units = set(_units(clips) or ())
    if len(clips) > 1 and len({clip.caption for clip in clips}) == 1 and clips[0].caption:
        yield "all clips have one caption, so intervals draw single clips: they are of this caption only"
    if 1 < len(units) < len(clips):
        captions = f"{counted(len(units), 'caption')} of {counted(len(clips), 'clip')}"
        yield f"intervals draw clips with the same caption together: {captions}"
