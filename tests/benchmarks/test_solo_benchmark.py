"""benchmarks/solo.py: what is made of its tables, and its masks on a clip whose answer is known."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from harness import Study
from separation.test_separation_separating import DOG, MIX, RAIN, planted
from solo import OUTPUTS, Settings
from solo_parts.report import bars_of, write_report
from solo_parts.separating import (
    CONTROLS,
    ENERGY,
    IDEAL,
    MAP,
    OTHER,
    RANDOM,
    SOLO,
    UNREFINED,
    improvements,
    masks_of,
)
from solo_parts.two_sounds import KINDS

METHODS = (SOLO, UNREFINED, *CONTROLS, IDEAL)


def tables(solo: float) -> dict[str, pd.DataFrame]:
    gains = {method: solo if method == SOLO else 30.0 if method == IDEAL else 5.0 for method in METHODS}
    scenes = pd.DataFrame(
        {"kind": kind, "scene": scene, "source": scene % 7, "method": method, "gain": gains[method]}
        for kind in KINDS
        for scene in range(8)
        for method in METHODS
    )
    sharp = pd.DataFrame(
        {"method": method, "score": score, "value": value, "low": value, "high": value}
        for method in ("map", "energy")
        for score, value in (
            ("roc_auc", 0.97),
            ("psds1", 0.1),
            ("iou", 0.7),
            ("onset_distance", 0.2),
            ("segment_f1", 0.5),
        )
    )
    generation = pd.DataFrame(
        {"prompt": "x", "before": [True] * 9 + [False], "other_before": True, "own": [True] * 8 + [False] * 2,
         "other": [False] * 8 + [True] * 2}
    )  # fmt: skip
    return {"scenes": scenes, "sharp": sharp, "generation": generation}


def test_bars():
    bars = bars_of(tables(12.0))
    states = ["missed", "reached", "reached", "reached", "reached", "missed", "reached", "reached", "reached"]
    assert [bar.state for bar in bars] == states
    assert [bar.measured for bar in bars][:4] == ["12.0", "7.0", "12.0", "7.0"]
    assert [bar.measured for bar in bars][-2:] == ["88.9%", "88.9%"]
    assert bars[-1].wanted == ">= 80%"
    assert bars_of({}) == []


def test_the_page_has_every_mask(tmp_path):
    names, kinds = ["mean", "fitted"], list(KINDS)
    rows = [{"method": name, "kind": kind, "gain": 1.0 + names.index(name)} for name in names for kind in kinds]
    found = {**tables(16.0), "choose": pd.DataFrame(rows)}
    settings = Settings(Path("data"), "m", resamples=20)
    write_report(Study(tmp_path, settings, OUTPUTS), settings, bars_of(found), found)
    page = (tmp_path / "README.md").read_text()
    assert all(f"| {method} | " in page for method in METHODS)
    assert "+16.0 [+16.0, +16.0], +16.0" in page
    assert page.index("| fitted |") < page.index("| mean |")  # the best first


def test_masks_of_a_clip_with_a_known_answer():
    background = np.zeros_like(MIX)
    sounds = [
        SimpleNamespace(span=span, sound=name, source=1) for name, span in (("dog", (2, 11)), ("rain", (18, 28)))
    ]
    scene = SimpleNamespace(mixture=MIX, stems=np.stack([DOG, RAIN, background]), sounds=sounds)
    maps = planted()
    masks = masks_of(maps, scene, 0)
    assert list(masks) == [SOLO, UNREFINED, MAP, OTHER, ENERGY, RANDOM, IDEAL]
    rows = pd.DataFrame(improvements(scene, masks, maps, {})).groupby("method")["gain"].mean()
    assert rows[SOLO] > 20
    assert rows[SOLO] > rows[ENERGY] + 10
    assert rows[OTHER] < -10
