from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from attnviz.audio import SpectrogramGrid
from attnviz.errors import AttnVizError, EventsError
from attnviz.events import column_activity, event_table, read_jams, read_tsv, write_jams, write_tsv

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
        ({"onset": -0.1}, "row 0: onset -0.1 s.*from 0"),
        ({"onset": 0.8}, "row 0: onset 0.8 s, offset 0.7 s; onset must come first. Were the columns swapped"),
        ({"onset": None}, "both are needed, or neither"),
        ({"offset": float("inf")}, "finite"),
        ({"onset": 10**400}, "a number is needed"),
        ({"onset": "soon"}, "row 0: onset is 'soon'; a number"),
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


def test_missing_columns_are_named():
    with pytest.raises(AttnVizError, match=r"missing: \['clip', 'offset'\]"):
        event_table([{"label": "x", "onset": 1}])


def tricky() -> pd.DataFrame:
    return event_table(
        [
            ROW
            | {
                "label": 'says "hé\tho" 🐕',
                "onset": 1 / 3,
                "offset": 2 / 3,
                "span": (2, 5),
                "low": 1.5,
                "high": 2.5,
            },
            ROW | {"label": "zero length", "onset": 0.9, "offset": 0.9, "span": None, "low": None, "high": None},
        ]
    )


def test_tsv_gives_back_what_was_written(tmp_path):
    write_tsv(tricky(), tmp_path / "events.tsv")
    pd.testing.assert_frame_equal(read_tsv(tmp_path / "events.tsv"), tricky())


def test_jams_gives_back_what_was_written(tmp_path):
    write_jams(tricky(), tmp_path / "events.jams", seconds=10.24)
    pd.testing.assert_frame_equal(read_jams(tmp_path / "events.jams"), tricky())


def test_jams_follows_its_schema(tmp_path):
    """By the published JSON schema: required keys, an email only with a name, numbers not below 0."""
    write_jams(tricky(), tmp_path / "events.jams", seconds=10.24)
    content = json.loads((tmp_path / "events.jams").read_text())
    assert set(content) == {"annotations", "file_metadata", "sandbox"}
    assert content["file_metadata"]["duration"] == 10.24
    (annotation,) = content["annotations"]
    assert {"annotation_metadata", "data", "namespace"} <= set(annotation)
    assert annotation["namespace"] == "segment_open"
    for item in annotation["data"]:
        assert set(item) == {"value", "confidence", "time", "duration"}
        assert isinstance(item["value"], str)
        assert item["time"] >= 0 and item["duration"] >= 0


def test_unreadable_files_are_named(tmp_path):
    path = tmp_path / "events.tsv"
    with pytest.raises(EventsError, match=r"events\.tsv: No such file"):
        read_tsv(path)
    for content, message in (
        ("", "not a tab-separated table"),
        ("filename,onset,offset,event_label\n", "Is it separated by tabs"),
        ("filename\tonset\toffset\tevent_label\na.wav\t1\tx\tdog\n", r"events\.tsv: row 0: offset is 'x'"),
    ):
        path.write_text(content)
        with pytest.raises(EventsError, match=message):
            read_tsv(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EventsError, match="not UTF-8"):
        read_tsv(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a JAMS file"),
        ("[]", "is not a JAMS file"),
        ('{"file_metadata": {}, "annotations": [{"namespace": "beat", "data": []}]}', r"it has \['beat'\]"),
        ('{"file_metadata": {}, "annotations": [{"namespace": "segment_open", "data": [{}]}]}', "KeyError"),
    ],
)
def test_other_json_is_no_jams(tmp_path, content, message):
    (tmp_path / "x.jams").write_text(content)
    with pytest.raises(EventsError, match=message):
        read_jams(tmp_path / "x.jams")


def test_jams_holds_one_clip(tmp_path):
    with pytest.raises(EventsError, match="the table has 2"):
        write_jams(event_table([ROW, ROW | {"clip": "b.wav"}]), tmp_path / "x.jams", seconds=1)
    assert not (tmp_path / "x.jams").exists()


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


def test_desed_is_read_whole(data_dir):
    table = read_tsv(data_dir / "desed" / "validation.tsv")
    lines = (data_dir / "desed" / "validation.tsv").read_text().splitlines()
    assert len(table) == len(lines) - 1
    assert table["onset"].isna().sum() == 15  # clips without events
