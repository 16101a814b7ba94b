"""What costs many explanations of a clip: heads, cells, sensitivity and randomised weights."""

from __future__ import annotations

from typing import Any

import numpy as np

import attnviz
from attnviz.attribution import (
    CellAblation,
    DeletionInsertion,
    HeadAblation,
    deletion_insertion,
    random_deletion_insertion,
    sensitivity_max,
    weight_randomization,
)
from attribution_parts.measuring import Case, method_named

OF_HEADS = ("attention", "value", "gradient")
"""Methods whose maps have heads."""
HEAD_FRACTIONS = (0, 0.1, 0.25, 0.5, 0.75, 1)
CELL_FRACTIONS = (0, 0.1, 0.3, 1)
CHECKS = ("heads", "cells", "sensitivity_max", "pearson", "spearman")
RANDOM, ENERGY = "random", "energy"


class Checks:
    """Checks of one clip, with the games that its methods share: those of its first phrase with a sound.

    Parameters
    ----------
    case : Case
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        item, settings = case.item, case.settings
        self.phrase = tuple(item.events["span"].iloc[0])
        self.heads = HeadAblation(case.pipe, item.audio, item.caption, self.phrase, **case.looks)
        self.cells = CellAblation(
            case.pipe, item.audio, item.caption, self.phrase, seed=item.seed, normalize=item.normalize,
            timestep=settings.cell_timestep, num_inference_steps=settings.heard_steps,
        )  # fmt: skip

    def controls(self) -> list[dict[str, Any]]:
        """Return a row for random orders of heads and smooth random masks, and one for masks of energy."""
        heads = random_deletion_insertion(self.heads, orders=self.case.settings.orders, fractions=HEAD_FRACTIONS)
        cells = random_deletion_insertion(self.cells, orders=2, fractions=CELL_FRACTIONS)
        energy = deletion_insertion(self.cells, self.cells.energy_scores(), fractions=CELL_FRACTIONS)
        return [
            self._row(RANDOM) | _areas("heads", heads) | _areas("cells", cells),
            self._row(ENERGY) | _areas("cells", energy),
        ]

    def method(self, name: str) -> list[dict[str, Any]]:
        """Return one row of a method."""
        case, item = self.case, self.case.item
        method = method_named(case.pipe, name, case.settings)
        row = self._row(name)
        if name in OF_HEADS:
            maps = method.attribute(item.audio, item.caption, keep=("head",), **case.looks)
            row |= _areas(
                "heads", deletion_insertion(self.heads, self.heads.scores(maps), fractions=HEAD_FRACTIONS)
            )
        else:
            maps = method.attribute(item.audio, item.caption, **case.looks)
        row |= _areas("cells", deletion_insertion(self.cells, self.cells.scores(maps), fractions=CELL_FRACTIONS))
        row["sensitivity_max"] = sensitivity_max(
            method, item.audio, item.caption, n_perturb_samples=case.settings.perturbed, **case.looks
        )
        every = len(attnviz.attribution.cascade(case.pipe.unet))
        table = weight_randomization(method, item.audio, item.caption, blocks=(every,), **case.looks)
        known = table[["pearson", "spearman"]].to_numpy(dtype=float)
        defined = ~np.isnan(known[:, 0])
        means = known[defined].mean(axis=0) if defined.any() else (np.nan, np.nan)
        return [row | dict(zip(("pearson", "spearman"), map(float, means), strict=True))]

    def _row(self, name: str) -> dict[str, Any]:
        return {"clip": self.case.item.name, "phrase": self.case.item.caption[slice(*self.phrase)], "method": name}


def _areas(what: str, found: DeletionInsertion) -> dict[str, float]:
    return {
        what: found.score,
        f"{what}_deletion": found.deletion.area,
        f"{what}_insertion": found.insertion.area,
    }
