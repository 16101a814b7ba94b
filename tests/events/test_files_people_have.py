"""Event files as other programs write them: what is unambiguous is read, and a field that is not is an error."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnviz.errors import AttnVizWarning, EventsError
from attnviz.events import read_audacity, read_csv, read_events, read_jams, read_raven, read_textgrid, read_tsv
from attnviz.events.numbers import as_number, as_seconds

TIMES = st.floats(0, 1e5).map(lambda value: round(value, 3))


def rows(table, *names):
    return table[list(names or ("onset", "offset", "label"))].to_records(index=False).tolist()


def read(tmp_path, content, name="clip.txt", **options):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_events(tmp_path / name, **options)


@given(TIMES)
def test_every_way_to_write_a_time_is_the_same_time(value):
    minutes, seconds = divmod(value, 60)
    clock = f"{int(minutes)}:{seconds:06.3f}"
    if not clock.endswith("60.000"):
        assert as_seconds(clock) == pytest.approx(value, abs=1e-3)
        whole = f"{int(minutes // 60)}:{int(minutes % 60):02d}:{seconds:06.3f}"
        assert as_seconds(whole) == pytest.approx(value, abs=1e-3)
    assert as_seconds(repr(value)) == as_seconds(repr(value).replace(".", ",")) == value
    assert as_seconds(f"{value!r}s") == as_seconds(f"{value!r} sec") == value
    assert as_seconds(f"{value * 1000!r} ms") == pytest.approx(value)


@given(st.text("0123456789.,:+-eEsm _naif\t", max_size=8))
def test_a_time_is_a_finite_number_or_none(text):
    for parse in (as_seconds, as_number):
        assert (found := parse(text)) is None or math.isfinite(found)


@pytest.mark.parametrize(
    "cell", ["1,234.5", "1.234,5", "0:75", "1:75:00", "1_000", "0x10", "nan", "inf", "1.5x", "1 2"]
)
def test_what_would_be_guessed_is_no_time(cell):
    assert as_seconds(cell) is None


def test_decimal_commas_and_clocks_in_a_label_track(tmp_path):
    assert rows(read(tmp_path, "0\t1,5\tdog\n2,25\t3\tcat\n")) == [(0, 1.5, "dog"), (2.25, 3, "cat")]
    assert rows(read(tmp_path, "0:01.5\t1:02\tdog\n1:00:00\t1:00:01\tcat\n", seconds=4000)) == [
        (1.5, 62, "dog"), (3600, 3601, "cat"),
    ]  # fmt: skip
    assert rows(read(tmp_path, "0.5s\t1500ms\tdog\n")) == [(0.5, 1.5, "dog")]
    assert rows(read(tmp_path, "0\t1.5\ta, b 3\n".encode("utf-16"))) == [(0, 1.5, "a, b 3")]
    with pytest.warns(AttnVizWarning, match="zero length"):  # point label of Audacity 1
        point = read(tmp_path, "0.5\tdog barks\n")
    assert rows(point) == [(0.5, 0.5, "dog barks")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0\t1\tok\n0\t1.5x\tdog\n", r"line 2: the end is '1\.5x', which is not a time"),
        ("0\t1,5x\n", "line 1: the end is '1,5x'"),
        ("0\t1\tdog\tbarks\n", "line 1 .* with 4 fields; .*Does the label contain a tab"),
        ("0\tdog\tbarks\n", "line 1: the end is 'dog'"),
        ("0\t1\tok\n1:75\t2\tdog\n", "line 2 is '1:75"),
        ("0\t1,5\tdog\n2.5\t3\tcat\n", "with a point, '2.5', and with a comma, '1,5'"),
        ("0\t1,234.5\tdog\n", "the end is '1,234.5'"),
    ],
)
def test_a_field_that_is_no_time_is_never_a_label(content, message, tmp_path):
    with pytest.raises(EventsError, match=message) as caught:
        read(tmp_path, content)
    assert "clip.txt" in str(caught.value)
    assert "DESED" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("Start\tEnd\tLabel\n0,5\t1,5\tdog\n", "clip.tsv"),
        ("FILENAME,ONSET,OFFSET,EVENT_LABEL\nclip,0.5,1.5,dog\n", "x.csv"),
        ("start_time;end_time;class\n0,5;1,5;dog\n", "clip.csv"),
        ("Begin Time (ms),End Time (ms),Species\n500,1500,dog\n", "clip.csv"),
        ("Name\tStart\tDuration\tType\ndog\t0:00.500\t0:01.000\tCue\n", "clip.tsv"),
        ("onset,duration,text\n0.5,1,dog\n", "clip.csv"),
    ],
)
def test_columns_go_by_their_usual_names(content, name, tmp_path):
    table = read(tmp_path, content, name)
    assert rows(table, "clip", "onset", "offset", "label") == [("clip", 0.5, 1.5, "dog")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("start\tend\tlabel\n0\t1.5x\tdog\n", "line 2: offset is '1.5x'; expected a time in seconds"),
        ("a.wav\t0.5\t1\tdog\n", "line 1 is .* contains a number and is therefore not a header"),
        ("start\tlabel\n0\tdog\n", r"missing: offset \(offset, end,"),
        (
            "clip,onset,offset,label\na,0,1,5,dog\n",
            "line 2 has 5 cells, but the header has 4. Does a label",
        ),
        ("start\tend\tlabel\n0,5\t1\tdog\n0.7\t1\tdog\n", "with a point, '0.7', and with a comma, '0,5'"),
        ("start\tend\tlabel\tlow\thigh\n0\t1\tdog\tx\t9\n", "line 2: low is 'x'; expected a frequency in Hz"),
    ],
)
def test_tables_refuse_what_they_would_have_to_guess(content, message, tmp_path):
    with pytest.raises(EventsError, match=message):
        read(tmp_path, content, "clip.tsv" if "\t" in content else "clip.csv")


RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tBegin File"
    "\tFile Offset (s)\tSpecies\n"
    "1\tWaveform 1\t1\t0.5\t1.5\t0\t4000\ta.wav\t0.5\towl\n"
    "1\tSpectrogram 1\t1\t0.5\t1.5\t0\t4000\ta.wav\t0.5\towl\n"
    "2\tSpectrogram 1\t1\t62.0\t63.0\t100\t100\tb.wav\t2.0\tdog\n"
)


def test_raven(tmp_path):
    table = read(tmp_path, RAVEN)
    assert table.attrs["format"] == "raven"
    assert rows(table, "clip", "label", "onset", "offset") == [("a.wav", "owl", 0.5, 1.5), ("b.wav", "dog", 2, 3)]
    assert table["high"].tolist()[0] == 4000
    assert math.isnan(table["high"].tolist()[1])
    (tmp_path / "clip.txt").write_text(RAVEN.replace("File Offset (s)", "Other"))
    with pytest.raises(EventsError, match="selections of 2 files.*File Offset"):
        read_raven(tmp_path / "clip.txt")
    (tmp_path / "clip.txt").write_text(RAVEN.replace("Species", "Notes"))
    with pytest.raises(EventsError, match="one label column"):
        read_raven(tmp_path / "clip.txt")
    (tmp_path / "clip.txt").write_text(RAVEN.replace("62.0\t63.0", "62.0\t6x"))
    with pytest.raises(EventsError, match="line 4: offset is '6x'"):
        read_raven(tmp_path / "clip.txt")


LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "Mary ""M"" 1"
        xmin = 0
        xmax = 2.5
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 1.5 ! a note with "quotes"
            text = ""
        intervals [2]:
            xmin = 1.5
            xmax = 2.5
            text = "a ""big"" dog 3"
    item [2]:
        class = "TextTier"
        name = "bell"
        xmin = 0
        xmax = 2.5
        points: size = 1
        points [1]:
            number = 0.25
            mark = "ding"
"""
SHORT = (
    'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2.5\n<exists>\n2\n"IntervalTier"\n'
    '"Mary ""M"" 1"\n0\n2.5\n2\n0\n1.5\n""\n1.5\n2.5\n'
    '"a ""big"" dog 3"\n"TextTier"\n"bell"\n0\n2.5\n1\n0.25\n"ding"\n'
)


@pytest.mark.filterwarnings("ignore::attnviz.errors.AttnVizWarning")  # a point has no length
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("text", [LONG, SHORT])
def test_textgrids_of_both_formats_are_the_same(text, encoding, tmp_path):
    table = read(tmp_path, text.encode(encoding), "clip.TextGrid")
    assert table.attrs["format"] == "textgrid"
    assert rows(table, "clip", "label", "onset", "offset", "tier") == [
        ("clip", 'a "big" dog 3', 1.5, 2.5, 'Mary "M" 1'), ("clip", "ding", 0.25, 0.25, "bell"),
    ]  # fmt: skip


@given(st.integers(0, len(LONG)), st.sampled_from([LONG, SHORT]))
def test_a_textgrid_that_breaks_off_is_our_error_or_a_table(tmp_path_factory, cut, text):
    path = tmp_path_factory.mktemp("cut") / "clip.TextGrid"
    path.write_text(text[:cut])
    try:
        read_textgrid(path)
    except EventsError as error:
        assert "clip.TextGrid" in str(error)
    else:
        assert cut > 0.9 * len(text)


def test_scaper(tmp_path):
    """As scaper 1.6 writes them: JAMS with a namespace of its own, and beside it text without a header."""

    def sound(label, role, onset, duration):
        value = {
            "label": label, "source_file": "x.wav", "source_time": 0.0, "event_time": onset,
            "event_duration": duration, "snr": 10.0, "role": role, "pitch_shift": None, "time_stretch": None,
        }  # fmt: skip
        return {"time": onset, "duration": duration, "value": value, "confidence": 1.0}

    data = [sound("park", "background", 0.0, 10.0), sound("dog", "foreground", 0.5, 1.0)]
    content = {
        "annotations": [{"namespace": "scaper", "data": data, "sandbox": {"scaper": {}}, "duration": 10.0}],
        "file_metadata": {"title": "", "duration": 10.0, "jams_version": "0.3.4"},
        "sandbox": {},
    }
    (tmp_path / "soundscape.jams").write_text(json.dumps(content))
    (tmp_path / "soundscape.txt").write_text("0.5\t1.5\tdog\n")
    tables = [read_events(tmp_path / f"soundscape.{ending}") for ending in ("jams", "txt")]
    for table in tables:
        assert rows(table, "clip", "label", "onset", "offset") == [("soundscape", "dog", 0.5, 1.5)]
    data[1]["value"] = {"label": "dog"}
    (tmp_path / "soundscape.jams").write_text(json.dumps(content))
    with pytest.raises(EventsError, match=r"soundscape\.jams is not a JAMS file: KeyError: 'role'"):
        read_jams(tmp_path / "soundscape.jams")


@pytest.mark.parametrize("path", ["x" * 5000, "~nosuch/x.tsv", "a\0b", "", None, 5])
def test_paths_that_are_none(path):
    for read_file in (read_events, read_tsv, read_csv, read_audacity, read_raven, read_textgrid, read_jams):
        with pytest.raises(EventsError, match="path of an event file"):
            read_file(path)
