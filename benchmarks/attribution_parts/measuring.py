"""Explain a clip with one method, and score its maps: against the events, and against the model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alignment_parts.material import Item
from overhead_parts.memory import PeakMemory

import attnviz
from attnviz.alignment.methods import MAP
from attnviz.attribution import (
    METHODS,
    Attribution,
    WordAblation,
    deletion_insertion,
    infidelity,
    random_deletion_insertion,
)
from attnviz.errors import MapsError
from attnviz.maps import AttentionMaps, SharpReadout

OWN = ("roc_auc", "average_precision", "iou", "onset_distance")
SHARP = tuple(f"sharp_{name}" for name in OWN)
"""The same scores of the readout "sharp", in columns of 40 ms."""
SCORES = (*OWN, *SHARP)
FAITHFUL = ("words", "words_change", "infidelity")
"""Area of insertion less that of deletion, of the guidance energy and of the change; captum's infidelity."""
COSTS = ("seconds", "cpu_seconds", "memory_mib", "completeness_error", "efficiency_error")
BASE = "attention"
FITTED = "fitted"
CONTROLS = ("constant", "energy", "reversed", "random order")
KEY = ("clip", "label", "source")
RANDOM_ORDER = "random order"


@dataclass
class Case:
    """A clip with what its methods share: the predictions for its caption without some words.

    Attributes
    ----------
    pipe : object
    item : Item
    settings : object
        Settings of the study.
    """

    pipe: Any
    item: Item
    settings: Any

    @property
    def looks(self) -> dict[str, Any]:
        """Arguments of `attnviz.explain`, the same for all methods."""
        return {
            "timesteps": self.settings.timesteps,
            "draws": self.settings.draws,
            "seed": self.item.seed,
            "normalize": self.item.normalize,
        }

    @cached_property
    def words(self) -> WordAblation:
        """The guidance energy as a function of the words of the caption."""
        looks = {**self.looks, "draws": self.settings.word_draws}
        return WordAblation(self.pipe, self.item.audio, self.item.caption, **looks)


def method_named(pipe: Any, name: str, settings: Any) -> Attribution:
    """Return a method with the settings of the study."""
    own: dict[str, dict[str, Any]] = {
        "integrated_gradients": {"n_steps": settings.path_steps},
        "gradient_shap": {"n_samples": settings.path_samples},
        "heard": {"num_inference_steps": settings.heard_steps},
    }
    return METHODS[name](pipe, **own.get(name, {}))


def measure(case: Case, name: str, save: Callable[[Any], None] | None = None) -> list[dict[str, Any]]:
    """Explain a clip with a method, and score its maps.

    Parameters
    ----------
    case : Case
    name : str
        Name of the method.
    save : callable, optional
        Called with the alignment of the maps on their own columns.

    Returns
    -------
    list of dict
        A row per phrase of the clip: `KEY`, ``method``, ``column_ms``, `SCORES`, and, the same in all rows of the
        clip, `FAITHFUL` and `COSTS`: seconds, seconds of computing, peak memory above what was there before, and
        the errors that the method has measured of itself. Of attention, also the fitted readout and the controls.
    """
    item = case.item
    method = method_named(case.pipe, name, case.settings)
    memory = PeakMemory()
    memory.restart()
    start, computing = time.perf_counter(), time.process_time()
    maps = method.attribute(item.audio, item.caption, **case.looks)
    costs = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - computing,
        "memory_mib": (memory.peak() + memory.device_peak()) / 2**20,
        **{error: maps.provenance["attribution"].get(error) for error in COSTS[3:]},
    }
    found = _scored(case, maps, "mean", SharpReadout("mean"), name, costs, save)
    if name == BASE:
        found += _controls(case, maps)
        try:
            found += _scored(case, maps, FITTED, "sharp", f"{BASE}, {FITTED}", {})
        except MapsError as error:
            print(f"no fitted readout: {error}")
    return found


def _scored(
    case: Case,
    maps: AttentionMaps,
    readout: Any,
    sharp: Any,
    name: str,
    costs: dict[str, Any],
    save: Callable[[Any], None] | None = None,
) -> list[dict[str, Any]]:
    item = case.item
    own = attnviz.align(maps, item.events, readout=readout, masks=item.masks)
    if save is not None:
        save(own)
    fine = attnviz.align(maps, item.events, readout=sharp, masks=item.masks).table
    rows, fine = (table[table["method"] == MAP] for table in (own.table, fine))
    more = dict(zip(SHARP, (fine[score].to_numpy() for score in OWN), strict=True))
    rows = rows.assign(clip=item.name, method=name, **more)[[*KEY, "method", "column_ms", *SCORES]]
    beside = {**faithful(case, maps, readout), **costs}
    return [dict(row) | beside for row in rows.to_dict("records")]


def _controls(case: Case, maps: AttentionMaps) -> list[dict[str, Any]]:
    """Return rows of the controls: constant, energy and reversed maps, and random orders of words."""
    item = case.item
    own = attnviz.align(maps, item.events, masks=item.masks).table
    fine = attnviz.align(maps, item.events, readout=SharpReadout("mean"), masks=item.masks).table
    found = []
    for control in CONTROLS[:3]:
        rows, sharp = (table[table["method"] == control] for table in (own, fine))
        more = dict(zip(SHARP, (sharp[score].to_numpy() for score in OWN), strict=True))
        rows = rows.assign(clip=item.name, **more)[[*KEY, "method", "column_ms", *SCORES]]
        found += [dict(row) for row in rows.to_dict("records")]
    games = {"words": case.words, "words_change": case.words.with_target("change")}
    areas = {
        name: random_deletion_insertion(game, orders=case.settings.orders).score for name, game in games.items()
    }
    nothing = infidelity(
        games["words"], [0.0] * len(games["words"].players), n_perturb_samples=case.settings.subsets
    )
    found.append(
        {"clip": item.name, "label": "", "source": "", "method": RANDOM_ORDER, **areas, "infidelity": nothing}
    )
    return found


def faithful(case: Case, maps: AttentionMaps, readout: Any) -> dict[str, float]:
    """Return the faithfulness of the words' maps to the model."""
    guidance, change = case.words, case.words.with_target("change")
    scores = guidance.scores(maps, readout=readout)
    return {
        "words": deletion_insertion(guidance, scores).score,
        "words_change": deletion_insertion(change, scores).score,
        "infidelity": infidelity(guidance, scores, n_perturb_samples=case.settings.subsets),
    }
