from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attnviz.audio import SpectrogramGrid
from attnviz.errors import AttnVizError, EventsError
from attnviz.events import column_activity, event_table, scorable

ROW = {"clip": "a.wav", "label": "a dog barks", "onset": 0.1, "offset": 0.7}


def test_a_table_is_checked_and_copied():
    given = pd.DataFrame(
        [
            ROW | {"extra": 1, "span": [0, 11], "low": 100, "high": 200},
            ROW
            | {"onset": None, "offset": None, "label": None, "extra": 2, "span": None, "low": None, "high": None},
        ],
        index=[7, 8],
    )
    before = given.copy()
    table = event_table(given)
    assert list(table.columns) == ["clip", "label", "onset", "offset", "low", "high", "span", "extra"]
    assert list(table.index) == [0, 1]
    assert table["span"].tolist() == [(0, 11), None]
    assert table["label"].tolist() == ["a dog barks", ""]
    assert np.isnan(table.loc[1, "onset"])
    pd.testing.assert_frame_equal(given, before)
    assert list(event_table([]).columns) == ["clip", "label", "onset", "offset"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"onset": -0.1}, "row 0: onset -0.1 s.*of at least 0"),
        ({"onset": 0.8}, "row 0: onset 0.8 s, offset 0.7 s; onset must come first. Were the columns swapped"),
        ({"onset": None}, "give both or neither"),
        ({"offset": float("inf")}, "finite"),
        ({"onset": 10**400}, "expected a number"),
        ({"onset": True}, "onset is True; expected a number"),
        ({"offset": "1_0"}, "offset is '1_0'; expected a number"),
        ({"onset": "soon"}, "row 0: onset is 'soon'; expected a number"),
        ({"low": 100.0}, "both of the columns low and high"),
        ({"low": 100.0, "high": 100.0}, "low must come first"),
        ({"span": (3, 3)}, "row 0: span is"),
        ({"span": (0.5, 3)}, "row 0: span is"),
        ({"span": "0-3"}, "row 0: span is"),
    ],
)
def test_impossible_events_are_refused(changes, message):
    with pytest.raises(EventsError, match=message):
        event_table([ROW | changes])


@pytest.mark.parametrize("path", ["dog.wav", Path("events.tsv")])
def test_a_path_is_not_a_table(path):
    with pytest.raises(EventsError, match=f"'{path}' is a path.*read_events"):
        event_table(path)


def test_missing_columns_are_named():
    with pytest.raises(AttnVizError, match=r"missing: \['clip', 'offset'\]"):
        event_table([{"label": "x", "onset": 1}])


def test_rows_are_mappings_and_columns_stand_once():
    with pytest.raises(EventsError, match="a row of events is 5; expected a mapping"):
        event_table([ROW, 5])
    twice = pd.DataFrame([["a", "x", 0.0, 1.0, 2.0]], columns=["clip", "label", "onset", "offset", "onset"])
    with pytest.raises(EventsError, match=r"duplicated: \['onset'\]"):
        event_table(twice)


def test_the_row_in_a_message_is_the_wrong_one():
    rows = [ROW] * 7 + [ROW | {"onset": -1.0}] + [ROW | {"offset": 0.0}]
    with pytest.raises(EventsError, match="row 7: onset -1 s"):
        event_table(rows)


def test_what_can_be_scored_lasts():
    """As the scores of detection count it: an event of at least a microsecond."""
    times = [(0.1, 0.7), (0.5, 0.5), (None, None), (0.25, 0.250002), (0.25, 0.2500005)]
    table = event_table([ROW | {"onset": onset, "offset": offset} for onset, offset in times])
    assert scorable(table).tolist() == [True, False, False, True, False]


@pytest.mark.parametrize("columns", [1, 7, 128, 1024])
def test_column_activity_vs_counting_milliseconds(columns):
    rng = np.random.default_rng(columns)
    onsets = rng.integers(0, 10_000, 12) / 1000
    offsets = np.minimum(onsets + rng.integers(0, 1500, 12) / 1000, 10.24)
    fine = np.zeros(1_024_000, bool)  # 10 microseconds
    for onset, offset in zip(onsets, offsets, strict=True):
        fine[round(onset * 1e5) : round(offset * 1e5)] = True
    cells = np.arange(fine.size) * columns // fine.size
    expected = np.bincount(cells, fine, columns) / np.bincount(cells, minlength=columns)
    np.testing.assert_allclose(column_activity(onsets, offsets, SpectrogramGrid(), columns), expected, atol=1e-3)


def test_column_activity_of_nothing_and_beyond():
    grid = SpectrogramGrid()
    assert column_activity([], [], grid, 4).tolist() == [0, 0, 0, 0]
    assert column_activity([-1, 9], [99, 99], grid, 4).tolist() == [1, 1, 1, 1]
