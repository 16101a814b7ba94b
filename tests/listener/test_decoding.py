from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from attnviz.errors import CheckpointError, EventsError
from attnviz.listener import Decoding

FRAME = 0.04
PLAIN = Decoding(0.5, low_share=1, median_seconds=0, min_seconds=0)


def pulses(*where, frames=30, height=0.9, floor=0.1):
    row = np.full(frames, floor)
    for first, last in where:
        row[first:last] = height
    return row


def found(decoding, *rows, frame=FRAME):
    return decoding.intervals(np.stack(rows), [f"class {i}" for i in range(len(rows))], frame)


@pytest.mark.parametrize("decoding", [PLAIN, Decoding()])
def test_square_pulses_come_out_as_they_went_in(decoding):
    first, second = [(3, 9), (14, 20)], [(0, 5), (25, 30)]
    assert found(decoding, pulses(*first), pulses(*second), pulses()) == [first, second, []]
    assert found(decoding, np.ones(7), np.zeros(7)) == [[(0, 7)], []]


def test_the_threshold_itself_is_reached():
    assert found(PLAIN, pulses((4, 6), height=0.5)) == [[(4, 6)]]
    assert found(PLAIN, pulses((4, 6), height=np.nextafter(0.5, 0))) == [[]]


def test_hysteresis_keeps_the_slopes_of_what_is_loud_enough():
    row = np.array([0, 0.3, 0.4, 0.6, 0.4, 0.3, 0.29, 0, 0.4, 0.4, 0])
    assert found(Decoding(0.5, 0.6, 0, 0), row) == [[(1, 6)]]
    assert found(Decoding(0.5, 0.8, 0, 0), row) == [[(2, 5)]]
    assert found(Decoding(0.5, 1, 0, 0), row) == [[(3, 4)]]


def test_a_class_has_its_own_threshold():
    decoding = Decoding({"class 1": 0.95, "class 0": 0.2, "another": 0.3}, 1, 0, 0)
    assert found(decoding, pulses((3, 5)), pulses((3, 5))) == [[(3, 5)], []]
    with pytest.raises(EventsError, match=r"\['class 2'\] have no threshold"):
        found(decoding, pulses(), pulses(), pulses())


@pytest.mark.parametrize("place", [0, 1, 10, 26, 27])  # the same rule inside the clip and at its ends
def test_the_median_filter_drops_blips_and_fills_holes(place):
    decoding = Decoding(0.5, 1, median_seconds=5 * FRAME, min_seconds=0)
    assert found(decoding, pulses((place, place + 2), frames=30)) == [[]]
    assert found(decoding, pulses((place, place + 3), frames=30)) == [[(place, place + 3)]]
    assert found(decoding, pulses((5, 12), (14, 20))) == [[(5, 20)]]
    assert found(decoding, pulses((5, 12), (15, 20))) == [[(5, 12), (15, 20)]]


def test_the_median_filter_does_not_mix_classes_or_clips():
    decoding = Decoding(median_seconds=5 * FRAME)
    rows = np.random.default_rng(0).random((2, 3, 40))
    alone = [[decoding.smooth(row, FRAME) for row in clip] for clip in rows]
    np.testing.assert_array_equal(decoding.smooth(rows, FRAME), alone)


@pytest.mark.parametrize(("seconds", "width"), [(0, 1), (0.04, 1), (0.07, 1), (0.12, 3), (0.2, 5), (0.21, 5)])
def test_the_median_filter_is_of_an_odd_width(seconds, width):
    """A pulse passes when it fills more than half of the filter."""
    decoding = Decoding(0.5, 1, seconds, 0)
    passing = [length for length in range(1, 6) if found(decoding, pulses((10, 10 + length)))[0]]
    assert passing[0] == (width + 1) // 2


def test_short_events_are_dropped():
    decoding = Decoding(0.5, 1, 0, min_seconds=0.12)  # 3 frames of 0.04 s: 0.12 / 0.04 is a hair below 3
    assert found(decoding, pulses((2, 4), (8, 11))) == [[(8, 11)]]
    assert found(decoding, pulses((2, 4), (8, 11)), frame=0.08) == [[(2, 4), (8, 11)]]


@given(
    rows=arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=st.floats(0, 1, width=32)),
    threshold=st.floats(0.01, 1),
    low_share=st.floats(0.01, 1),
    median=st.floats(0, 0.5),
    shortest=st.floats(0, 0.5),
)
def test_events_are_apart_inside_and_loud_enough(rows, threshold, low_share, median, shortest):
    decoding = Decoding(threshold, low_share, median, shortest)
    smoothed = decoding.smooth(rows.astype(np.float64), FRAME)
    for row, events in zip(smoothed, found(decoding, *rows), strict=True):
        edges = [0, *(edge for event in events for edge in event), len(row)]
        assert all(a < b for a, b in events)
        assert edges == sorted(edges)
        assert all(later[0] > earlier[1] for earlier, later in pairwise(events))
        for first, last in events:
            assert (last - first) * FRAME > shortest - 1e-6
            assert row[first:last].min() >= low_share * threshold
            assert row[first:last].max() >= threshold


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": 0}, "threshold is 0"),
        ({"threshold": 50}, "at most 1"),
        ({"threshold": "0.5"}, "'0.5'"),
        ({"threshold": True}, "True"),
        ({"threshold": {"Rain": float("nan")}}, "threshold of 'Rain' is nan"),
        ({"threshold": None}, "None"),
        ({"low_share": 0}, "low_share"),
        ({"low_share": 1.01}, "low_share"),
        ({"median_seconds": -0.1}, "median_seconds"),
        ({"min_seconds": float("inf")}, "min_seconds"),
        ({"min_seconds": 120}, "at most 60"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(EventsError, match=message):
        Decoding(**values)


def test_the_settings_are_their_own():
    given_to = {"Rain": 0.4}
    decoding = Decoding(given_to)
    given_to["Rain"] = 7
    assert decoding.threshold == {"Rain": 0.4}


@pytest.mark.parametrize(
    "decoding", [Decoding(0.3, 0.7, 0.2, 0), Decoding({"Rain": np.float32(0.4), "Chainsaw": 1})]
)
def test_what_was_saved_is_what_is_loaded(decoding, tmp_path):
    assert Decoding.load(tmp_path) == Decoding()
    decoding.save(tmp_path)
    assert Decoding.load(tmp_path) == decoding


@pytest.mark.parametrize("content", ["{", "[]", '{"thresholds": 0.5}', '{"threshold": 2}', '{"threshold": [0.5]}'])
def test_a_damaged_file_is_refused(content, tmp_path):
    (tmp_path / "decoding.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"decoding\.json"):
        Decoding.load(tmp_path)


def test_the_file_may_leave_settings_out(tmp_path):
    (tmp_path / "decoding.json").write_text(json.dumps({"median_seconds": 0}))
    assert Decoding.load(tmp_path) == Decoding(median_seconds=0)
