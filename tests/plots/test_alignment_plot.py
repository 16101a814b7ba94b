from __future__ import annotations

import numpy as np
import pytest
from alignment_synthetic import COLUMNS, DOG, RAIN, event_rows, planted_maps, study
from matplotlib import pyplot, rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure

from attnviz.alignment import align
from attnviz.errors import MapsError
from attnviz.plots import alignment

SCORES = ["roc_auc", "average_precision", "pearson", "partial", "pointing", "onset_error", "onset_distance"]


@pytest.fixture(scope="module")
def result():
    return study("noise", clips=8, seed=1)


def points_of(ax):
    return [one for one in ax.collections if isinstance(one, PathCollection)]


def overlapping(axes):
    """Pairs of drawn texts that share room."""
    figure = axes.figure
    FigureCanvasAgg(figure).draw()
    texts = [*axes.get_yticklabels(), axes.xaxis.label, axes._left_title, *axes.texts]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    width, height = figure.canvas.get_width_height()
    outside = [
        name for name, box in boxes if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1
    ]
    return outside + [(a, b) for i, (a, one) in enumerate(boxes) for b, two in boxes[:i] if one.overlaps(two)]


@pytest.mark.parametrize("score", SCORES)
def test_every_phrase_is_a_point(result, score):
    ax = alignment(result, score=score)
    table = result.table
    methods = [
        name for name in table["method"].unique() if table.loc[table["method"] == name, score].notna().any()
    ]
    assert len(points_of(ax)) == len(ax.containers) == len(methods)
    for method, points in zip(methods, points_of(ax), strict=True):
        across = np.sort(points.get_offsets()[:, 0])
        np.testing.assert_allclose(across, np.sort(table.loc[table["method"] == method, score]))
    assert not overlapping(ax)


def test_means_intervals_and_differences_are_the_pooled_ones(result):
    ax = alignment(result)
    scores = result.pooled.scores.set_index(["method", "score"])
    energy = scores.loc[("energy", "roc_auc")]
    line, _, (bar,) = ax.containers[2].lines
    assert line.get_xdata()[0] == pytest.approx(energy["value"])
    np.testing.assert_allclose(bar.get_segments()[0][:, 0], energy[["low", "high"]].to_numpy(float))
    notes = [note.get_text() for note in ax.texts]
    rows = result.pooled.differences
    gap = rows[(rows["control"] == "energy") & (rows["score"] == "roc_auc")].iloc[0]
    assert len(notes) == 6
    assert notes[2].startswith(f"{gap['value']:+.3f}")
    assert notes[2].endswith(gap["verdict"])


def test_points_stay_within_their_row(result):
    ax = alignment(result, score="pointing")  # many equal values
    for row, points in enumerate(points_of(ax)):
        assert np.abs(points.get_offsets()[:, 1] - row).max() < 0.45


def test_of_many_phrases_the_shape_reaches_from_the_lowest_to_the_highest(result):
    assert not [one for one in alignment(result).collections if isinstance(one, PolyCollection)]
    many = study("noise", clips=12, seed=1)
    ax = alignment(many)
    shapes = [one for one in ax.collections if isinstance(one, PolyCollection)]
    values = many.table.groupby("method", sort=False)["roc_auc"]
    spread = [rows for _, rows in values if rows.nunique() > 1]  # the constant map has one value, and no shape
    assert len(shapes) == len(spread) == len(points_of(ax)) - 1
    for shape, rows in zip(shapes, spread, strict=True):
        across = shape.get_paths()[0].vertices[:, 0]
        np.testing.assert_allclose([across.min(), across.max()], [rows.min(), rows.max()], atol=1e-6)
    assert not overlapping(ax)
    assert ax.get_ylabel() == ""


def test_draws_on_given_axes_and_leaves_no_trace(result):
    before = dict(rcParams)
    ax = Figure(figsize=(8, 4), layout="constrained").add_subplot()
    assert alignment(result, ax=ax) is ax
    assert dict(rcParams) == before
    assert not pyplot.get_fignums()


def test_small_and_partly_undefined_results():
    rng = np.random.default_rng(0)
    maps = planted_maps({DOG: rng.random(COLUMNS), RAIN: rng.random(COLUMNS)})
    rows = event_rows(("dog barks", 0.1, 0.3), ("rain falls", 0, 0.72))
    given = align(maps, rows, controls={"random $w_0$": maps})
    ax = alignment(given)
    assert not overlapping(ax)
    assert "1 over the whole clip" in ax._left_title.get_text()
    assert "random $w 0$" in [label.get_text() for label in ax.get_yticklabels()]
    with pytest.raises(MapsError, match="No phrase has a ROC-AUC: 1 of 1"):
        alignment(align(maps, event_rows(("dog barks", 0, 0.72))))


@pytest.mark.parametrize("score", ["psds1", "nosuch"])
def test_unknown_scores(result, score):
    with pytest.raises(MapsError, match=r"Unknown score .*roc_auc, average_precision"):
        alignment(result, score=score)
