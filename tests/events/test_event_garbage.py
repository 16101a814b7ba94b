"""Whatever a file holds, a reader gives a table or raises an error of the family."""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import warnings

import pytest
from events.events_samples import FIRST, JAMS, SECOND
from hypothesis import given
from hypothesis import strategies as st

from attnviz.errors import AttnVizError, AttnVizWarning
from attnviz.events import (
    FORMATS,
    REQUIRED,
    match_clips,
    read_audacity,
    read_audiogrounding,
    read_csv,
    read_events,
    read_jams,
    read_raven,
    read_textgrid,
    read_tsv,
    with_spans,
    write_csv,
    write_tsv,
)

READERS = (read_audacity, read_audiogrounding, read_csv, read_jams, read_raven, read_textgrid, read_tsv)
NUMBERS = st.one_of(st.integers(-3, 12), st.floats(), st.sampled_from([10**30, 10**400, -1, 1e308]))
LEAVES = (
    st.none() | st.booleans() | NUMBERS | st.text(max_size=6) | st.sampled_from(["dog", "0.5", "\ud800", "nan"])
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner)
)
CELLS = st.one_of(
    st.sampled_from(["0.5", "1", "-1", "nan", "inf", "", '"', "a.wav", "1e999", "5:7", "\\", "Ya_1"]),
    st.text(max_size=4),
)
NAMES = st.sampled_from(
    [
        "filename",
        "onset",
        "offset",
        "event_label",
        "clip",
        "label",
        "low",
        "high",
        "span",
        "present",
        "segment_id",
        "start_time_seconds",
    ]
)


def try_all(path):
    """Read a file in every way; tables that come back have to be whole ones."""
    tables = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttnVizWarning)
        for reader in READERS:
            with contextlib.suppress(AttnVizError):
                tables.append(reader(path))
        for kind in (None, *FORMATS):
            with contextlib.suppress(AttnVizError):
                tables.append(read_events(path, format=kind))
        with contextlib.suppress(AttnVizError):
            tables.append(read_events(path, clip="a.wav", seconds=3))
        for table in tables:
            assert tuple(table.columns[:4]) == REQUIRED
            assert (table["offset"] >= table["onset"]).eq(table["onset"].notna()).all()
            for use in (lambda one: with_spans(one, "a dog"), lambda one: match_clips(one, path.parent)):
                with contextlib.suppress(AttnVizError):
                    use(table)
            for write in (write_tsv, write_csv):
                with contextlib.suppress(AttnVizError):
                    write(table, path.with_suffix(".out"))
    return tables


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("garbage") / "garbage"


@given(content=st.binary(max_size=60), packed=st.booleans())
def test_bytes(path, content, packed):
    path.write_bytes(gzip.compress(content) if packed else b"\x1f\x8b" * (len(content) % 2) + content)
    try_all(path)


@given(content=st.text(max_size=80))
def test_text(path, content):
    path.write_text(content, encoding="utf-8", errors="surrogatepass")
    try_all(path)


@given(
    names=st.lists(NAMES, min_size=1, max_size=7),
    rows=st.lists(st.lists(CELLS, max_size=7), max_size=4),
    separator=st.sampled_from("\t,"),
    four=st.booleans(),
)
def test_columns(path, names, rows, separator, four):
    header = [*REQUIRED, *names] if four else names
    text = "\n".join(separator.join(row) for row in [header, *rows])
    path.write_text(text, encoding="utf-8", errors="replace")
    try_all(path)


@given(lines=st.lists(st.lists(CELLS, max_size=4).map("\t".join), max_size=5))
def test_label_tracks(path, lines):
    path.write_text("0.5\t1\tdog\n" + "\n".join(lines), encoding="utf-8", errors="replace")
    try_all(path)


@given(value=VALUES)
def test_any_json(path, value):
    path.write_text(json.dumps(value))
    try_all(path)


def places(value, at=()):
    """Every place in a JSON value, as keys from the top."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*at, key))


@given(data=st.data(), sample=st.sampled_from([FIRST, SECOND, JAMS]), delete=st.booleans())
def test_one_wrong_value_in_good_json(path, data, sample, delete):
    content = copy.deepcopy(sample)
    keys = data.draw(st.sampled_from([keys for keys in places(content) if keys]))
    at = content
    for key in keys[:-1]:
        at = at[key]
    if delete:
        del at[keys[-1]]
    else:
        at[keys[-1]] = data.draw(VALUES)
    path.write_text(json.dumps(content))
    try_all(path)


@pytest.mark.parametrize("sample", [FIRST, SECOND, JAMS])
def test_good_json_is_read(path, sample):
    """So that the test above begins with files that are read."""
    path.write_text(json.dumps(sample))
    assert len(try_all(path)) >= 2


@pytest.mark.parametrize("depth", [100, 900, 950, 960, 970, 975, 980, 985, 990, 1000, 100_000])
def test_deep_json(path, depth):
    deep = "[" * depth + "]" * depth
    for text in (
        deep,
        json.dumps(JAMS).replace('"dog"', deep),
        f'[{{"tokens": {deep}, "audio_id": "", "audiocap_id": "\\u0041", "phrases": []}}]',
    ):
        path.write_text(text)
        try_all(path)
