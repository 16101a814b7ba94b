from __future__ import annotations

import json

import pandas as pd
import pytest

import attnviz
from attnviz.errors import AttnVizWarning, EventsError
from attnviz.events import (
    FORMATS,
    event_table,
    fit_to_clips,
    read_events,
    scorable,
    write_audacity,
    write_csv,
    write_jams,
    write_tsv,
)

NAME = "Yabcdefghijk_30.000_40.000.wav"
ROW = {"clip": NAME, "label": "dog", "onset": 0.5, "offset": 1.5}


def table_of(*times, clip=NAME):
    return event_table([ROW | {"clip": clip, "onset": onset, "offset": offset} for onset, offset in times])


WRITERS = {
    "tsv": write_tsv,
    "csv": write_csv,
    "jams": lambda table, path: write_jams(table, path, seconds=10),
    "audacity": write_audacity,
}


def write_grounding(table, path):
    event = table.iloc[0]
    phrase = {"phrase": "dog", "start_index": 0, "end_index": 0, "segments": [[event["onset"], event["offset"]]]}
    path.write_text(json.dumps([{"audiocap_id": 1, "audio_id": NAME, "tokens": "dog", "phrases": [phrase]}]))


WRITERS["audiogrounding"] = write_grounding


def write_raven(table, path):
    event = table.iloc[0]
    header = "Selection\tView\tBegin Time (s)\tEnd Time (s)\tBegin File\tAnnotation\n"
    line = f"1\tWaveform 1\t{event['onset']}\t{event['offset']}\t{NAME}\tdog\n"
    path.write_text(header + line + line.replace("Waveform", "Spectrogram"))


def write_textgrid(table, path):
    event = table.iloc[0]
    tier = f'"IntervalTier" "tier" 0 2 3 0 {event["onset"]} "" {event["onset"]} {event["offset"]} "dog" 1.5 2 ""'
    path.write_text(f'"ooTextFile"\n"TextGrid"\n0\n2\n<exists>\n1\n{tier}')


WRITERS |= {"raven": write_raven, "textgrid": write_textgrid}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_known_by_its_content(tmp_path, kind):
    path = tmp_path / "events.dat"  # a suffix that tells nothing
    WRITERS[kind](table_of((0.5, 1.5)), path)
    for given in (None, kind):
        table = attnviz.read_events(path, clip=NAME, format=given)
        assert table.attrs["format"] == kind
        assert table[list(ROW)].to_dict("records") == [ROW]
    for other in set(FORMATS) - {kind}:
        with pytest.raises(EventsError, match=rf"cannot be read as {other}; it looks like {kind}"):
            read_events(path, format=other)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", "{broken", r"x\.json is not JSON that"),
        ("x.json", '{"a": 1}', "has no field audiocap_id. Is it an AudioGrounding or JAMS file"),
        ("x.jams", "{broken", "not JSON that"),
        ("x.tsv", "words", "Is the first line a header"),
        ("x.csv", "time;label\n", "Is the first line a header"),
        ("x", "words", "is not a known event file: it begins 'words'"),
        ("x.wav", "fLaC words", "is not a known event file"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(EventsError, match=message):
        read_events(tmp_path / name)


def test_an_unknown_format_is_refused(tmp_path):
    write_tsv(table_of((1, 2)), tmp_path / "x.tsv")
    with pytest.raises(EventsError, match="format is 'xml'; expected one of"):
        read_events(tmp_path / "x.tsv", format="xml")


def test_what_real_files_contain_is_settled_and_counted(tmp_path):
    table = table_of(
        (9, 10), (9, 10.02), (9, 10.05), (9, 10.115), (3, 3), (10.01, 10.03), (None, None), (None, None)
    )
    table.loc[6, "label"] = ""  # the clip has no events; the last row names a sound that does not occur
    write_tsv(table, tmp_path / "x.tsv")
    with pytest.warns(AttnVizWarning) as caught:
        read = read_events(tmp_path / "x.tsv")
    assert read["offset"].tolist()[:6] == [10, 10, 10, 10.115, 3, 10]
    assert read["onset"].tolist()[:6] == [9, 9, 9, 9, 3, 10]
    assert read.attrs["counts"] == {
        "rows": 8,
        "clipped": 3,
        "past_the_end": 1,
        "zero_length": 2,
        "unlabelled": 0,
        "without_events": 1,
        "silent": 1,
    }
    assert read.attrs["past_the_end"] == [3]
    assert scorable(read).tolist() == [True] * 4 + [False] * 4
    (warning,) = caught
    assert warning.filename == __file__  # it points at who reads, not at the reader
    for part in (
        "of 8 rows",
        "3 offsets up to 50 ms",
        "1 offset further",
        "2 events of zero length",
        "1 has no times",
    ):
        assert part in str(warning.message)


@pytest.mark.parametrize("content", ["0\t1\t\n2\t3\tdog\n", "onset,offset,label\n0,1,\n2,3,dog\n"])
def test_events_without_a_label_are_kept_and_said(tmp_path, content):
    (tmp_path / "x.txt").write_text(content)
    with pytest.warns(AttnVizWarning, match="1 event has an empty label"):
        read = read_events(tmp_path / "x.txt")
    assert (read["label"].tolist(), read.attrs["counts"]["unlabelled"]) == (["", "dog"], 1)


def test_nothing_to_settle_is_nothing_to_warn_of(tmp_path):
    write_tsv(table_of((0, 10)), tmp_path / "x.tsv")
    assert read_events(tmp_path / "x.tsv").attrs["counts"]["rows"] == 1


def test_a_length_that_is_given_is_kept_to():
    table = table_of((9, 10.115), clip="mine.wav")
    assert fit_to_clips(table)["offset"].tolist() == [10.115]  # of unknown length
    with pytest.raises(
        EventsError, match=r"row 0: .*0.115 s past the end: the clip ends at 10 s\. Is this the right"
    ):
        fit_to_clips(table, seconds=10)
    with pytest.warns(AttnVizWarning, match="1 offset up to 50 ms"):
        assert fit_to_clips(table, seconds={"mine.wav": 10.1})["offset"].tolist() == [10.1]
    with pytest.raises(EventsError, match=r"no length for 1 of 1 clips: \['mine.wav'\]"):
        fit_to_clips(table, seconds={"mine": 10.1})
    for seconds in (0, -1, float("nan"), float("inf"), "10", True):
        with pytest.raises(EventsError, match="a finite number of seconds above 0"):
            fit_to_clips(table, seconds=seconds)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (
            [(1, 2), (10.06, 10.2)],
            "line 3: .*entirely outside: the clip ends at 10 s, according to its name. Is this the right",
        ),
        ([(1, 2), (9, 10.6)], "line 3: .*0.6 s past the end.*times measured from its start"),
        ([(235, 1553), (4000, 9971)], "line 2: .*Are the times in milliseconds"),
        ([(16000, 32000), (64000, 150000)], r"line 2: .*Are the times in samples \(at 16000 Hz they would fit\)"),
        ([(0, 441000)], r"line 2: .*samples \(at 44100 Hz"),
        ([(0, 1e9)], "line 2: .*Are the times in another unit"),
        (
            [(0.5, 2.5), (3, 4), (235, 1553)],
            "line 4: .*2 other events fit in seconds, this one in milliseconds. Are units mixed",
        ),
    ],
)
def test_times_that_are_no_seconds_are_asked_about(tmp_path, times, message):
    write_tsv(table_of(*times), tmp_path / "x.tsv")
    with pytest.raises(EventsError, match=rf"x\.tsv: {message}"):
        read_events(tmp_path / "x.tsv")


def test_long_times_in_a_clip_of_unknown_length_are_asked_about(tmp_path):
    write_audacity(table_of((235, 1553)), tmp_path / "x.txt")
    with pytest.raises(EventsError, match=r"line 1: .*26 minutes.*milliseconds or in samples\?.*seconds=\.\.\."):
        read_events(tmp_path / "x.txt")
    assert read_events(tmp_path / "x.txt", seconds=3600)["offset"].tolist() == [1553]
    write_audacity(table_of((235, 999)), tmp_path / "x.txt")
    assert len(read_events(tmp_path / "x.txt")) == 1


def test_one_clip_is_picked_by_any_form_of_its_name(tmp_path):
    rows = [ROW, ROW | {"clip": "Yzzzzzzzzzzz_0.000_10.000.wav", "onset": 99, "offset": 1e4}, ROW | {"onset": 1}]
    write_csv(event_table(rows), tmp_path / "x.csv")
    for clip in (NAME, "abcdefghijk_30.wav", tmp_path / "abcdefghijk_30.000_40.000.flac", "Yabcdefghijk"):
        table = read_events(tmp_path / "x.csv", clip=clip)  # what is wrong with another clip is no matter
        assert table["onset"].tolist() == [0.5, 1]
        assert set(table["clip"]) == {NAME}
    with pytest.raises(
        EventsError, match=r"x\.csv: clip 'other.wav' matches none of the 2 clips of the file: \['Yabc"
    ):
        read_events(tmp_path / "x.csv", clip="other.wav")
    with pytest.raises(EventsError, match="line 3: the event 'dog' of clip 'Yzzz"):
        read_events(tmp_path / "x.csv")


def test_the_line_of_a_picked_clip_is_its_line_in_the_file(tmp_path):
    rows = [ROW | {"clip": "other.wav"}, ROW | {"onset": 20, "offset": 21}]
    write_tsv(event_table(rows), tmp_path / "x.tsv")
    with pytest.raises(EventsError, match=r"x\.tsv: line 3: "):
        read_events(tmp_path / "x.tsv", clip=NAME)


def test_a_label_track_is_of_the_clip_that_is_named(tmp_path):
    write_audacity(table_of((0.5, 1.5)), tmp_path / "labels.txt")
    assert set(read_events(tmp_path / "labels.txt")["clip"]) == {"labels"}
    with pytest.warns(AttnVizWarning, match="1 offset up to 50 ms"):
        write_audacity(table_of((0.5, 10.01)), tmp_path / "labels.txt")
        table = read_events(tmp_path / "labels.txt", clip=tmp_path / NAME)
    assert table["clip"].tolist() == [NAME]


def test_what_was_read_can_be_written_and_read_again(tmp_path, data_dir):
    with pytest.warns(AttnVizWarning):
        table = read_events(data_dir / "audiogrounding" / "test.json")
    write_tsv(table, tmp_path / "test.tsv")
    with pytest.warns(AttnVizWarning, match="46 events of zero length"):
        again = read_events(tmp_path / "test.tsv")
    pd.testing.assert_frame_equal(again, table, check_dtype=False, check_exact=True)


def test_desed_is_settled_and_counted(data_dir):
    with pytest.warns(AttnVizWarning, match="15 have no times"):
        table = read_events(data_dir / "desed" / "validation.tsv")
    assert table.attrs["counts"] == {
        "rows": 4239,
        "clipped": 2,
        "past_the_end": 2,
        "zero_length": 0,
        "unlabelled": 0,
        "without_events": 15,
        "silent": 0,
    }
    assert table["offset"][table.attrs["past_the_end"]].tolist() == [10.115, 10.115]


def test_the_real_clips_have_their_phrases(data_dir):
    path = data_dir / "audiogrounding" / "test.json"
    for clip, phrases in (("_GI7meqlYZk_30.wav", 17), ("IvfaKPDWC00_160.wav", 13)):
        with pytest.warns(AttnVizWarning):
            table = read_events(path, clip=data_dir / "audiocaps" / clip)
        assert table["phrase_id"].nunique() == phrases
        assert table["offset"].max() == 10
