"""`fit_readout`: fit weights of layers, heads and timesteps on clips with known sounds, and evaluate them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import pandas as pd
import sklearn

import attnviz
from attnviz.alignment.bootstrap import Bootstrap, interval
from attnviz.alignment.calibration import Calibration, Example, read_clips, splits
from attnviz.alignment.comparing import adjusted, p_values, verdicts
from attnviz.alignment.ranking import roc_auc
from attnviz.alignment.weights import CHOICES, areas, choice_scores, choice_weights
from attnviz.arguments import public
from attnviz.errors import MapsError
from attnviz.maps import AttentionMaps, FittedReadout, ReadoutPart
from attnviz.maps.fitted import Range, checked_range
from attnviz.wording import counted, short_repr

METHODS = ("fitted", "mean", "best layer")

_RESAMPLES = 1000
_FEWEST = 3


@dataclass(frozen=True, eq=False)
class ReadoutFit:
    """A fitted readout with its evaluation on held-out recordings.

    Attributes
    ----------
    readout : FittedReadout
        Readout fitted on all phrases.
    table : pandas.DataFrame
        One row per phrase: ``clip``, ``label``, ``source``, ``fold``, ``choice`` (kind of weights, selected on the
        other folds), ``layer`` (best layer on the other folds), and the held-out ROC-AUC of ``fitted``, ``mean``
        and ``best layer``.
    choices : pandas.DataFrame
        ``choice``, ``roc_auc``: cross-validation mean over all phrases. The highest is selected, the first of
        ties.
    undefined : dict of str to int
        Number of excluded phrases, by reason.
    seed : int
    """

    readout: FittedReadout
    table: pd.DataFrame
    choices: pd.DataFrame
    undefined: dict[str, int]
    seed: int

    __repr__ = short_repr

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Held-out ROC-AUC: ``method``, ``value``, ``low``, ``high`` (95 %), ``phrases``, ``sources``."""
        rows = self._rows("method", {name: self.table[name].to_numpy() for name in METHODS})
        return rows.drop(columns=["p", "clusters"])

    @cached_property
    def gains(self) -> pd.DataFrame:
        """Gain of the fitted readout: ``over``, the columns of `scores`, and ``verdict``.

        Differences are paired by phrase. The verdict is "better" or "worse" if the interval excludes 0, the
        p-value adjusted for both comparisons is at most 0.05, and there are at least six recordings and clips.
        """
        fitted = self.table["fitted"].to_numpy()
        rows = self._rows("over", {name: fitted - self.table[name].to_numpy() for name in METHODS[1:]})
        p_adjusted = adjusted(rows.pop("p").to_numpy())
        clusters = rows.pop("clusters").to_numpy()
        return rows.assign(verdict=verdicts(rows["low"].to_numpy(), rows["high"].to_numpy(), p_adjusted, clusters))

    def summary(self) -> str:
        """Return the held-out scores of each readout and the weights as text."""
        lines = [
            f"Held-out ROC-AUC of {counted(len(self.table), 'phrase')} from "
            f"{counted(int(self.scores['sources'].iloc[0]), 'recording')} ({self.table['fold'].nunique()} folds):"
        ]
        for row in self.scores.itertuples():
            lines.append(f"  {row.method:<12}{row.value:.3f}  [{row.low:.3f}, {row.high:.3f}]")
        for row in self.gains.itertuples():
            lines.append(
                f"  gain over {row.over}: {row.value:+.3f}  [{row.low:+.3f}, {row.high:+.3f}]  {row.verdict}"
            )
        lines.append(f"  {counted(len(self.gains), 'comparison')} tested together (Benjamini-Hochberg, 5 %)")
        lines += [f"Excluded: {counted(number, 'phrase')} {reason}." for reason, number in self.undefined.items()]
        lines.append(f"{self.readout.name}, weights:")
        for part in sorted(self.readout.parts, key=lambda part: -part.weight):
            head = "" if part.head is None else f", head {part.head}"
            span = "" if part.timesteps is None else f", timesteps {part.timesteps[0]:g} to {part.timesteps[1]:g}"
            lines.append(f"  {part.weight:.3f}  {part.layer}{head}{span}")
        return "\n".join(lines)

    def _rows(self, kind: str, values: dict[str, np.ndarray]) -> pd.DataFrame:
        units, _ = pd.factorize(self.table["source"])
        columns = np.column_stack(list(values.values()))
        bootstrap = Bootstrap(units, _RESAMPLES, self.seed, pd.factorize(self.table["clip"])[0])
        replicates, clusters = bootstrap.means(columns), bootstrap.clusters(columns)
        low, high = interval(replicates, clusters)
        rows = pd.DataFrame({kind: list(values), "value": columns.mean(axis=0), "low": low, "high": high})
        rows = rows.assign(phrases=len(columns), sources=len(np.unique(units)))
        return rows.assign(p=p_values(columns.mean(axis=0), replicates, clusters), clusters=clusters)


@public
def fit_readout(
    clips: Iterable[tuple[AttentionMaps, pd.DataFrame]],
    *,
    heads: bool = False,
    timesteps: Sequence[Range] = (),
    folds: int = 5,
    seed: int = 0,
) -> ReadoutFit:
    """Fit weights of layers, heads and ranges of timesteps on clips with known sounds.

    The activation of every phrase in every part is divided by its mean (see `FittedReadout`). A non-negative
    elastic net predicts the active columns from these curves. The strength of regularisation is selected by
    cross-validation, together with two simple alternatives: equal weights, and the best single part.

    Parameters
    ----------
    clips : iterable of (AttentionMaps, pandas.DataFrame)
        Maps of one prompt and one image, and the events of the clip, as for `attnviz.align`. Clips are read one by
        one, so a generator keeps the maps of only one clip in memory.
    heads : bool
        Weight every head separately. Requires maps made with ``keep=("head",)``.
    timesteps : sequence of (float, float)
        Ranges of timesteps of the training schedule, from the first inclusive to the last exclusive, to be
        weighted separately. Requires maps made with ``keep=("step",)``. By default, all denoiser calls are
        averaged.
    folds : int
        Number of cross-validation folds, at least 2, limited to the number of recordings.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    ReadoutFit
        ``.readout``, ``.scores``, ``.gains``, ``.summary()``.

    Raises
    ------
    MapsError
        If a setting is out of range; if there are no clips, or no phrase can be scored; if all phrases are from
        one recording, or too many recordings sound together to hold one out; if clips differ in model or layers;
        or if the maps lack heads or timesteps.
    EventsError, PromptError
        See `attnviz.align`.

    Notes
    -----
    The reported scores are from recordings that were used neither for fitting nor for selection: the selection is
    repeated for each fold by cross-validation on the other folds (nested cross-validation), including that of the
    best layer. A held-out recording occurs in no clip used for fitting
    (:func:`attnviz.alignment.calibration.splits`). Phrases that are silent, or sound over the whole clip, are
    excluded and counted. Layers are compared on the columns of the finest layer.

    Examples
    --------
    ``fit_readout((attnviz.explain(pipe, s.mixture, s.caption), s.events) for s in scenes).readout.save("r.json")``
    """
    if not isinstance(folds, int) or isinstance(folds, bool) or folds < 2:
        raise MapsError(f"folds={folds!r}; it must be a whole number of at least 2.")
    found = read_clips(clips, heads=heads, timesteps=_checked_ranges(timesteps))
    recordings = len({example.unit for example in found.examples})
    if recordings < _FEWEST:
        raise MapsError(
            f"The phrases are from {recordings} source recordings; at least {_FEWEST} are needed for testing, "
            "selection and fitting, and several dozen for reliable results. Do the events name their sources?"
        )
    table = _held_out(found, folds)
    scores = choice_scores(found.examples, folds)
    best = int(np.argmax(scores))
    weights = choice_weights(found.examples)[best]
    choices = pd.DataFrame({"choice": CHOICES, "roc_auc": scores})
    readout = FittedReadout(_weighed(found.parts, weights), _provenance(found, table, CHOICES[best], folds, seed))
    return ReadoutFit(readout, table, choices, dict(found.undefined), seed)


def _checked_ranges(timesteps: Sequence[Range]) -> list[Range]:
    ranges = [checked_range(span) for span in timesteps]
    for one, other in pairwise(sorted(ranges)):
        if other[0] < one[1]:
            raise MapsError(
                f"The timesteps {one[0]:g} to {one[1]:g} and {other[0]:g} to {other[1]:g} overlap, but each "
                "denoiser call must be in one range. The last timestep of a range is exclusive."
            )
    return ranges


def _held_out(found: Calibration, folds: int) -> pd.DataFrame:
    """Score every phrase with the selection and fit that exclude its recording."""
    examples = found.examples
    rows: dict[int, dict[str, object]] = {}
    for fold, (rest, held) in enumerate(splits(examples, folds)):
        fitted_on, tested = [examples[index] for index in rest], [examples[index] for index in held]
        try:
            best = int(np.argmax(choice_scores(fitted_on, folds)))
        except MapsError as error:
            raise MapsError(
                f"The training clips of fold {fold} cannot be split again for selection: {error}"
            ) from error
        each = np.eye(len(found.layers))
        layer = int(np.argmax(areas(fitted_on, each, layers=True).mean(axis=0)))
        fitted = areas(tested, choice_weights(fitted_on)[[best]])[:, 0]
        single = areas(tested, each[[layer]], layers=True)[:, 0]
        for place, index in enumerate(held):
            events = examples[index].phrase.events
            rows[index] = {
                "clip": events.clip, "label": events.label, "source": ": ".join(examples[index].unit),
                "fold": fold, "choice": CHOICES[best], "layer": found.layers[layer].layer,
                "fitted": fitted[place], "mean": _mean_area(examples[index]), "best layer": single[place],
            }  # fmt: skip
    return pd.DataFrame([rows[index] for index in sorted(rows)])


def _mean_area(example: Example) -> float:
    return float(roc_auc(curves=example.mean, active=example.phrase.active))


def _weighed(parts: Sequence[ReadoutPart], weights: np.ndarray) -> tuple[ReadoutPart, ...]:
    return tuple(
        ReadoutPart(part.layer, float(weight), part.head, part.timesteps)
        for part, weight in zip(parts, weights, strict=True)
        if weight > 0
    )


def _provenance(found: Calibration, table: pd.DataFrame, choice: str, folds: int, seed: int) -> dict[str, object]:
    return {
        "model": found.settings.get("model"),
        "revision": found.settings.get("revision"),
        "maps": dict(found.settings),
        "clips": list(found.clips),
        "sources": sorted(set(table["source"])),
        "phrases": len(table),
        "left out": dict(found.undefined),
        "choice": choice,
        "folds": folds,
        "seed": seed,
        "held-out ROC-AUC": {name: float(table[name].mean()) for name in METHODS},
        "versions": {
            "attnviz": attnviz.__version__, "numpy": np.__version__, "scikit-learn": sklearn.__version__
        },
    }  # fmt: skip
