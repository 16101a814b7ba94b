from __future__ import annotations

import gzip
import json

import pandas as pd
import pytest
from events.events_samples import JAMS
from hypothesis import given
from hypothesis import strategies as st

from attnviz.errors import EventsError
from attnviz.events import (
    event_table,
    read_audacity,
    read_csv,
    read_jams,
    read_tsv,
    write_audacity,
    write_csv,
    write_jams,
    write_tsv,
)

ROW = {"clip": "a.wav", "label": "a dog barks", "onset": 0.1, "offset": 0.7}
DESED = "filename\tonset\toffset\tevent_label\n"


def tricky() -> pd.DataFrame:
    return event_table(
        [
            ROW
            | {
                "label": 'says "hé\tho", 🐕',
                "onset": 1 / 3,
                "offset": 2 / 3,
                "span": (2, 5),
                "low": 1.5,
                "high": 2.5,
            },
            ROW | {"label": "zero length", "onset": 0.9, "offset": 0.9, "span": None, "low": None, "high": None},
        ]
    )


TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
TIMES = st.floats(0, 1e6, allow_subnormal=False)


@st.composite
def tables(draw: st.DrawFn, texts: st.SearchStrategy[str] = TEXTS) -> pd.DataFrame:
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        onset, offset = sorted(draw(st.tuples(TIMES, TIMES)))
        low, high = sorted(draw(st.lists(st.floats(0, 2e4), min_size=2, max_size=2, unique=True)))
        start = draw(st.integers(0, 50))
        rows.append(
            {"clip": "a.wav", "label": draw(texts), "onset": onset, "offset": offset, "low": low, "high": high}
            | {"span": draw(st.sampled_from([None, (start, start + 3)])), "note": draw(texts)}
        )
    return event_table(rows)


@pytest.mark.parametrize(("write", "read"), [(write_tsv, read_tsv), (write_csv, read_csv)])
def test_columns_of_text_give_back_what_was_written(tmp_path, write, read):
    write(tricky(), tmp_path / "events")
    pd.testing.assert_frame_equal(read(tmp_path / "events"), tricky())


@pytest.mark.parametrize(("write", "read"), [(write_tsv, read_tsv), (write_csv, read_csv)])
@given(table=tables())
def test_any_table_returns_from_columns_of_text(tmp_path_factory, write, read, table):
    path = tmp_path_factory.getbasetemp() / "any.columns"
    write(table, path)
    pd.testing.assert_frame_equal(read(path), table, check_dtype=False, check_exact=True)


@given(table=tables())
def test_any_clip_returns_from_jams(tmp_path_factory, table):
    path = tmp_path_factory.getbasetemp() / "any.jams"
    write_jams(table, path, seconds=1e6)
    expected = table.sort_values("onset", kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(read_jams(path), expected, check_dtype=False, check_exact=True)


@given(table=tables(TEXTS.filter(lambda text: not set(text) & set("\t\r\n"))))
def test_any_clip_returns_from_a_label_track(tmp_path_factory, table):
    path = tmp_path_factory.getbasetemp() / "a.txt"
    write_audacity(table, path)
    expected = table.drop(columns=["span", "note"])
    pd.testing.assert_frame_equal(read_audacity(path, clip="a.wav"), expected, check_dtype=False, check_exact=True)


def test_jams_gives_back_what_was_written(tmp_path):
    write_jams(tricky(), tmp_path / "events.jams", seconds=10.24)
    pd.testing.assert_frame_equal(read_jams(tmp_path / "events.jams"), tricky())


def test_jams_of_a_silent_clip_is_one_row_without_times(tmp_path):
    silent = event_table([{"clip": "a.wav", "label": "", "onset": None, "offset": None}])
    write_jams(silent, tmp_path / "events.jams", seconds=10.24)
    pd.testing.assert_frame_equal(read_jams(tmp_path / "events.jams"), silent)


def test_what_a_record_adds_changes_no_segment(tmp_path):
    content = json.dumps(JAMS).replace('"span"', '"onset": 9, "clip": "b", "label": "cat", "note": "near", "span"')
    (tmp_path / "x.jams").write_text(content)
    (row,) = read_jams(tmp_path / "x.jams").to_dict("records")
    assert row == {"clip": "a.wav", "label": "dog", "onset": 0.5, "offset": 1.5, "low": 1.0, "high": 2.0} | {
        "span": (0, 3),
        "note": "near",
    }


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON that"),
        ("[]", "is not a JAMS file"),
        ('{"file_metadata": {}, "annotations": [{"namespace": "beat", "data": []}]}', r"it has \['beat'\]"),
        ('{"file_metadata": {}, "annotations": [{"namespace": "segment_open", "data": [{}]}]}', "KeyError"),
        (
            '{"file_metadata": {}, "annotations": [{"namespace": "segment_open", "data": '
            '[{"value": "dog", "time": 2, "duration": -1}]}]}',
            "segment 1: onset 2 s, offset 1 s; onset must come first",
        ),
        (
            '{"file_metadata": {}, "annotations": [{"namespace": "segment_open", "data": '
            '[{"value": ["dog"], "time": 2, "duration": 1}]}]}',
            "found where text is expected",
        ),
        (json.dumps(JAMS).replace("0.5", "1" + "0" * 400), "not a JAMS file: OverflowError"),
        (json.dumps(JAMS).replace("dog", "\\ud800"), "half a Unicode character"),
    ],
)
def test_other_json_is_no_jams(tmp_path, content, message):
    (tmp_path / "x.jams").write_text(content)
    with pytest.raises(EventsError, match=message):
        read_jams(tmp_path / "x.jams")


@pytest.mark.parametrize("write", [lambda table, path: write_jams(table, path, seconds=1), write_audacity])
def test_files_of_one_clip_hold_one(tmp_path, write):
    with pytest.raises(EventsError, match="the table has 2"):
        write(event_table([ROW, ROW | {"clip": "b.wav"}]), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_audioset_strong_is_read_as_published(tmp_path):
    """Its header, and the example line of its download page."""
    path = tmp_path / "audioset_eval_strong.tsv"
    path.write_text(
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\ns9d-2nhuJCQ_30000\t2.627\t7.237\t/m/053hz1\n"
    )
    assert read_tsv(path).to_dict("records") == [
        {"clip": "s9d-2nhuJCQ_30000", "label": "/m/053hz1", "onset": 2.627, "offset": 7.237}
    ]


def test_absence_is_not_read_as_presence(tmp_path):
    path = tmp_path / "audioset_eval_strong_framed_posneg.tsv"
    header = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\tpresent\n"
    present, absent = "a_30000\t0.960\t1.920\t/m/04rlf\tPRESENT\n", "a_30000\t0.0\t0.960\t/m/04rlf\tNOT_PRESENT\n"
    path.write_text(header + present)
    assert len(read_tsv(path)) == 1
    path.write_text(header + present + absent)
    with pytest.raises(EventsError, match="line 3 is marked NOT_PRESENT.*are not events"):
        read_tsv(path)


def test_other_orders_marks_and_short_rows_are_read(tmp_path):
    """A byte order mark, Windows line ends, another order, blank lines, and lost trailing separators."""
    path = tmp_path / "x.csv"
    path.write_bytes("\ufeffevent_label,onset,offset,filename\r\ndog,1,2,a.wav\r\n\r\n".encode())
    assert read_csv(path).to_dict("records") == [{"clip": "a.wav", "label": "dog", "onset": 1.0, "offset": 2.0}]
    path.write_text("clip,label,onset,offset\nsilent.wav\n")
    assert read_csv(path).isna().sum().to_dict() == {"clip": 0, "label": 0, "onset": 1, "offset": 1}
    path.write_bytes(gzip.compress(b"clip,label,onset,offset\na.wav,dog,1,2\n"))
    assert len(read_csv(path)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"events\.tsv: the file is empty"),
        (b"\n \n", "the file is empty"),
        (b"filename,onset,offset,event_label\n", "is the file tab-separated"),
        (DESED.encode() + b"a.wav\t1\tx\tdog\n", r"events\.tsv: line 2: offset is 'x'"),
        (DESED.encode() + b"a.wav\t1\t2\tdog\na.wav\t3\t2\tdog\n", "line 3: onset 3 s, offset 2 s.*swapped"),
        (
            DESED.encode() + b'a.wav\t1\t2\t"dog\n barks"\n\na.wav\t-1\t2\tdog\n',
            "line 5: onset -1 s.*at least 0",
        ),
        (DESED.encode() + b'a.wav\t-1\t2\t"dog\nbarks"\n', "line 2: onset -1 s.*at least 0"),
        (DESED.encode() + b"a.wav\t1\t\tdog\n", "line 2.*give both or neither"),
        (DESED.encode() + b"a.wav\t1\t2\tdog\t3\n", "line 2 has 5 cells, but the header has 4"),
        (DESED.encode() + b'a.wav\t1\t2\t"dog\n', "line 2.*closing quotation mark missing"),
        (b"clip\tfilename\tonset\toffset\tevent_label\n", r"more than one column for each of \['clip'\]"),
        (b"clip\tlabel\tonset\toffset\tspan\na\tb\t1\t2\t5-7\n", "line 2: span is '5-7'"),
        (b"\xff\xfea\x00b", "not UTF-16 text"),
        (b"RIFF\x00\xff\xffWAVE", "it looks like a WAV audio file"),
        (gzip.compress(b"x" * 99, mtime=0)[:-9], "cannot be read"),
    ],
)
def test_unreadable_files_are_named(tmp_path, content, message):
    path = tmp_path / "events.tsv"
    path.write_bytes(content)
    with pytest.raises(EventsError, match=f"(?s){message}"):
        read_tsv(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(EventsError, match=r"events\.tsv: No such file"):
        read_tsv(tmp_path / "events.tsv")
    with pytest.raises(EventsError, match="Is a directory"):
        read_tsv(tmp_path)


def test_a_label_track_is_read_as_audacity_writes_it(tmp_path):
    """The examples of Audacity's manual, with and without bands, and a label with one time."""
    path = tmp_path / "Label Track.txt"
    path.write_text(
        "1.000000\t1.000000\tThis point was clicked at 6928.456055 Hz\n\\\t6928.456055\t6928.456055\n"
        "2.000000\t2.500000\tLow frequency undefined\n\\\t-1.000000\t6334.588867\n"
        "3.000000\t3.500000\tHigh frequency undefined\n\\\t8908.015625\t-1.000000\n"
        "4.000000\t4.500000\tboth\n\\\t1484.669312\t2969.338523\n"
        "2.150000\t2.150000\tpoint label\r\n3.400000\t6.100000\n7.5\tone time\n"
    )
    table = read_audacity(path)
    assert set(table["clip"]) == {"Label Track"}
    assert table["onset"].tolist() == [1, 2, 3, 4, 2.15, 3.4, 7.5]
    assert table["offset"].tolist() == [1, 2.5, 3.5, 4.5, 2.15, 6.1, 7.5]
    assert table["label"].tolist()[4:] == ["point label", "", "one time"]
    assert table["low"].fillna(-1).tolist() == [-1, 0, -1, 1484.669312, -1, -1, -1]
    assert table["high"].fillna(-1).tolist() == [-1, 6334.588867, -1, 2969.338523, -1, -1, -1]
    path.write_text("2.15\t2.5\tx\n")
    assert list(read_audacity(path, clip="a.wav").columns) == ["clip", "label", "onset", "offset"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\\\t1\t2\n", "line 1 gives a frequency band but does not follow a label"),
        ("1\t2\tdog\n\\\t1\t2\n\\\t1\t2\n", "line 3 gives a frequency band"),
        ("1\t2\tdog\n\\\t1\n", "line 2.*low and a high limit"),
        ("1\t2\tdog\n\\\t500\t300\n", "line 1: low 500 Hz, high 300 Hz"),
        ("1\t2\tdog\nfilename\tonset\n", "line 2 is 'filename"),
        ("1\t2\tdog\n3\t2\tdog\n", "line 2: onset 3 s, offset 2 s"),
    ],
)
def test_broken_label_tracks_are_named(tmp_path, content, message):
    (tmp_path / "x.txt").write_text(content)
    with pytest.raises(EventsError, match=rf"x\.txt: {message}"):
        read_audacity(tmp_path / "x.txt")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW | {"onset": None, "offset": None}, "row 0 has no times"),
        (ROW | {"label": "a\tdog"}, "row 0: the label .* contains a tab"),
    ],
)
def test_a_label_track_refuses_what_it_cannot_say(tmp_path, row, message):
    with pytest.raises(EventsError, match=message):
        write_audacity(event_table([row]), tmp_path / "x.txt")
    assert not (tmp_path / "x.txt").exists()


def test_columns_that_would_stand_twice_are_not_written(tmp_path):
    with pytest.raises(EventsError, match=r"columns \['filename'\] have names reserved for DESED"):
        write_tsv(event_table([ROW | {"filename": "other.wav"}]), tmp_path / "x.tsv")


def test_half_a_character_is_not_written(tmp_path):
    table = event_table([ROW]).assign(note=pd.Series(["\ud800"], dtype=object))
    for write in (write_tsv, lambda rows, path: write_jams(rows, path, seconds=1)):
        with pytest.raises(EventsError, match="half a Unicode character"):
            write(table, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_desed_is_read_whole(data_dir):
    table = read_tsv(data_dir / "desed" / "validation.tsv")
    lines = (data_dir / "desed" / "validation.tsv").read_text().splitlines()
    assert len(table) == len(lines) - 1
    assert table["onset"].isna().sum() == 15  # clips without events
