from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from attnviz.errors import MapsError
from attnviz.plots import profile_curve


def rows(seed, values, **changes):
    """Two phrases a step, 0.1 apart about these values."""
    table = [
        {
            "layer": "mean",
            "step": step,
            "timestep": 900.0 - 100 * step,
            "head": -1,
            "image": seed,
            "roc_auc": value + gap,
        }
        for step, value in enumerate(values)
        for gap in (-0.05, 0.05)
    ]
    return pd.DataFrame(table).assign(**changes)


def test_mean_and_spread_are_of_seeds_and_not_of_phrases():
    single = rows(0, [0.1, 0.1, 0.1]).assign(head=2)  # of one head: not drawn
    over_steps = rows(0, [0.1]).assign(step=-1)
    ax = profile_curve(pd.concat([rows(0, [0.5, 0.6, 0.9]), rows(1, [0.7, 0.6, 0.7]), single, over_steps]))
    line = ax.get_lines()[0]
    np.testing.assert_allclose(line.get_xdata(), [0, 1, 2])
    np.testing.assert_allclose(line.get_ydata(), [0.6, 0.6, 0.8])
    across = ax.collections[0].get_paths()[0].vertices
    spread = np.std([0.5, 0.7], ddof=1)
    at_first = across[across[:, 0] == 0, 1]
    np.testing.assert_allclose([at_first.min(), at_first.max()], [0.6 - spread, 0.6 + spread])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["900", "800", "700"]
    assert ax.get_legend().get_title().get_text() == "mean and standard deviation of 2 seeds"


def test_one_seed_has_no_band_and_layers_are_in_the_order_given():
    table = pd.concat([rows(0, [0.5, 0.6]), rows(0, [0.7, 0.8]).assign(layer="down_blocks.0.attentions.1")])
    ax = profile_curve(table, layers=["down_blocks.0.attentions.1", "mean"])
    assert not ax.collections
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["down.0.1", "mean of layers"]


def test_what_cannot_be_drawn_is_refused():
    table = rows(0, [0.5])
    for arguments, match in (
        ({"score": "psds1"}, "Unknown score"),
        ({"seed": "run"}, r"lacks the columns \['run'\]"),
        ({"layers": ["nosuch"]}, "nosuch"),
        ({"layers": []}, "to draw"),
    ):
        with pytest.raises(MapsError, match=match):
            profile_curve(table, **arguments)
    with pytest.raises(MapsError, match="keep="):
        profile_curve(table.assign(step=-1))


def test_the_band_stays_within_what_the_score_can_be():
    ax = profile_curve(pd.concat([rows(0, [0.65, 0.95]), rows(1, [0.95, 0.95]), rows(2, [0.95, 0.95])]))
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert ax.get_lines()[0].get_ydata()[0] + np.std([0.65, 0.95, 0.95], ddof=1) > 1
    assert band.max() == 1.0
