from __future__ import annotations

import gzip
import json
import re
import time

import pytest
from events.events_samples import FIRST, SECOND

from attnviz.errors import EventsError
from attnviz.events import read_audiogrounding, read_events, scorable, token_spans, with_spans
from attnviz.events.table import event_table


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def test_the_first_version_is_read_by_position(tmp_path):
    table = read_audiogrounding(write(tmp_path / "v1.json", FIRST))
    assert table["span"].tolist() == [(0, 5), (0, 5), (12, 23)]  # the second dog barks, though both are named
    assert [caption[start:end] for caption, (start, end) in zip(table["caption"], table["span"], strict=True)] == [
        "a dog",
        "a dog",
        "a dog barks",
    ]
    assert table["phrase_id"].tolist() == ["7", "7", "8"]
    assert table["audiocap_id"].tolist() == ["99"] * 3
    assert table["offset"].tolist() == [1.0, 2.5, 10.02]


def test_the_second_version_is_read_by_position(tmp_path):
    path = tmp_path / "v2.json"
    path.write_bytes(gzip.compress(json.dumps(SECOND).encode()))
    table = read_audiogrounding(path)
    assert table["span"].tolist() == [(0, 5), (0, 5), (13, 24), None]
    assert table["caption"].tolist() == ["a dog , then a dog barks"] * 3 + ["rain"]
    assert table["onset"].isna().tolist() == [False, False, True, True]  # silent, and a clip without phrases
    assert table["phrase_id"].tolist() == ["0.0", "0.0", "0.1", "1"]
    assert table["clip"].tolist() == ["Yabcdefghijk.wav"] * 3 + ["Yabcdefghijl.wav"]


def changed(content, keys, value):
    copy = json.loads(json.dumps(content))
    at = copy
    for key in keys[:-1]:
        at = at[key]
    if value is None:
        del at[keys[-1]]
    else:
        at[keys[-1]] = value
    return copy


def test_a_phrase_that_stands_twice_is_the_one_it_points_to(tmp_path):
    content = changed(FIRST, ["soundtag", "8"], "a dog")  # from token 4; the other is from token 0
    table = read_audiogrounding(write(tmp_path / "v1.json", content))
    assert table["span"].tolist() == [(0, 5), (0, 5), (12, 17)]
    phrase = {"phrase": "a dog", "start_index": 4, "end_index": 5, "segments": [[3, 4]]}
    table = read_audiogrounding(write(tmp_path / "v2.json", changed(SECOND, [0, "phrases", 1], phrase)))
    assert table["span"].tolist() == [(0, 5), (0, 5), (13, 18), None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            changed(FIRST, ["start_word", "8"], 3),
            r"phrase 8 is 'a dog barks', but tokens 3 to 5.*\['then', 'a', 'dog'\]",
        ),
        (changed(FIRST, ["start_word", "8"], 99), r"phrase 8 is 'a dog barks'.*are \[\]"),
        (changed(FIRST, ["start_word", "8"], -1), "phrase 8: start_word is -1"),
        (changed(FIRST, ["soundtag", "7"], "a cat"), "phrase 7 is 'a cat'"),
        (changed(FIRST, ["soundtag", "7"], " "), "phrase 7 is ' '"),
        (changed(FIRST, ["tokens", "7", 1], "cat"), "phrase 7: token 1, 'cat', is not at character 2"),
        (
            changed(FIRST, ["caption", "7"], "a dog, then a dog barks loudly"),
            "phrase 7: .* has 'loudly' after its last token",
        ),
        (changed(FIRST, ["timestamps", "8"], [[3, 4], [5]]), "phrase 8: a segment is"),
        (changed(FIRST, ["timestamps", "8"], [[3, "soon"]]), "phrase 8: offset is 'soon'"),
        (changed(FIRST, ["timestamps", "8"], [[4, 3]]), "phrase 8: onset 4 s, offset 3 s"),
        (changed(FIRST, ["timestamps", "8"], None), "column timestamps has 1 phrases, but column filename has 2"),
        (changed(FIRST, ["tokens"], None), "the file has no field tokens"),
        (changed(SECOND, [0, "phrases", 1, "end_index"], 5), r"phrase 0\.1 is 'a dog barks'"),
        (changed(SECOND, [0, "phrases", 1, "segments"], None), r"phrase 0\.1 has no field segments"),
        (changed(SECOND, [1, "audio_id"], 5), "clip 1: audio_id is 5; expected str"),
        ([], "contains no phrases"),
        (5, "5 is not AudioGrounding data"),
    ],
)
def test_a_phrase_that_is_not_where_it_says_is_an_error(tmp_path, content, message):
    with pytest.raises(EventsError, match=rf"x\.json.* {message}"):
        read_audiogrounding(write(tmp_path / "x.json", content))


def test_tokens_are_the_whole_caption_and_in_order():
    assert token_spans("cat's  meow", ["cat", "'s", "meow"]) == [(0, 3), (3, 5), (7, 11)]
    for tokens in (["s"], ["cat", "meow"], ["cat", "'s"], ["meow", "cat's"]):
        with pytest.raises(EventsError):
            token_spans("cat's  meow", tokens)


def test_labels_without_a_position_are_found_once_or_refused():
    rows = [{"clip": "a", "label": label, "onset": 0.0, "offset": 1.0} for label in ("A Dog barks", "rain")]
    table = with_spans(event_table(rows), "a dog barks, rain; a dog sleeps")
    assert table["span"].tolist() == [(0, 11), (13, 17)]
    assert set(table["caption"]) == {"a dog barks, rain; a dog sleeps"}
    with pytest.raises(
        EventsError, match="row 1: the label 'rain' is neither a phrase of the caption 'a dog barks'"
    ):
        with_spans(event_table(rows), "a dog barks")
    with pytest.raises(EventsError, match=r"row 0: .* 2 times in .*, at 0:11, 13:24"):
        with_spans(event_table(rows), "A dog barks; a dog barks, rain")
    spanned = event_table([rows[0] | {"label": "dog", "span": (22, 25)}])
    assert with_spans(spanned, "a dog barks, and another dog")["span"].tolist() == [(22, 25)]
    with pytest.raises(EventsError, match="row 0: span is .*has 11 characters"):
        with_spans(spanned, "a dog barks")
    silent = event_table([{"clip": "a", "label": "", "onset": None, "offset": None}])
    assert with_spans(silent, "a dog")["span"].tolist() == [None]


def test_the_real_files_are_read_whole(data_dir):
    """13 985 phrases and 22 646 segments, of which 4 002 end past their clip and 436 have no length."""
    start, tables = time.process_time(), []
    for name in ("train.json.gz", "val.json.gz", "test.json"):
        with pytest.warns(UserWarning, match="events of zero length are kept"):
            tables.append(read_events(data_dir / "audiogrounding" / name))
    assert time.process_time() - start < 10
    counts = {name: sum(table.attrs["counts"][name] for table in tables) for name in tables[0].attrs["counts"]}
    found = {
        "rows": 22646,
        "clipped": 4002,
        "past_the_end": 0,
        "zero_length": 436,
        "unlabelled": 0,
        "without_events": 0,
        "silent": 0,
    }
    assert counts == found
    assert sum(table["phrase_id"].nunique() for table in tables) == 13985
    assert sum((~scorable(table)).sum() for table in tables) == 436
    for table in tables:
        for caption, span, label in zip(table["caption"], table["span"], table["label"], strict=True):
            # Without spaces: a label has one before each token, the caption not before a "'s".
            assert re.sub(r"\s", "", caption[slice(*span)]) == re.sub(r"\s", "", label)
