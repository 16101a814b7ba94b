"""The comparison of denoisers with and without the activity probe."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import activity_probe


def scores(shift: float) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = [
        {
            "clip": f"{number}.wav",
            "sound": "Rain",
            "source": number % 5,
            "layer": layer,
            "timestep": timestep,
            "auc": 0.5 + 0.1 * (number % 5) / 5 + shift,
        }
        for number in range(20)
        for layer in ("mid", "mean")
        for timestep in (np.nan, 50.0)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=int(rng.integers(100)))


def test_a_constant_gain_is_found_without_spread_whatever_the_order_of_rows():
    table = activity_probe.compare(scores(0.2), scores(0.0).iloc[::-1]).set_index("layer")
    assert set(table.index) == {"mid", "mean"}
    assert (table["phrases"] == 20).all()
    assert (table["sources"] == 5).all()
    for name in ("gain", "gain low", "gain high"):
        np.testing.assert_allclose(table[name], 0.2)
    assert (table["with low"] < table["with"]).all()
    assert (table["with"] < table["with high"]).all()


def test_other_phrases_are_refused():
    with pytest.raises(pd.errors.MergeError):
        activity_probe.compare(pd.concat([scores(0.2)] * 2), scores(0.0))
