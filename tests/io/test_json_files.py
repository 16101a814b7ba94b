"""One reader of JSON and TOML: whatever a file holds, the outcome is a value or an error that names the file."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnviz.errors import AttnVizError, CheckpointError, OutputError
from attnviz.io import json_files
from attnviz.io.json_files import as_json, parse_json, read_json, read_toml

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_what_is_written_is_read(content):
    assert parse_json(as_json(content, "a test"), "a test") == content


@given(st.binary(max_size=60) | st.text('[]{}":,0123456789.eE+-tfnNaI \\ud', max_size=60))
def test_garbage_is_a_value_or_our_error(text):
    try:
        content = parse_json(text, "a test")
    except AttnVizError as error:
        assert str(error).startswith("a test is not JSON that can be read: ")
    else:
        assert content == json.loads(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 101 + b"]" * 101, "deeper than 100"),
        (b"[" * 200_000 + b"]" * 200_000, "deeper than 100"),
        (b'{"a":' * 90_000 + b"1" + b"}" * 90_000, "deeper than 100"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b"[-Infinity]", "not a JSON number"),
        (b"[1e999]", "beyond what a floating-point number"),
        (b"[" + b"9" * 5000 + b"]", "4300"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' is in one object more than once"),
        ('{"a": "ä"}'.encode("latin-1"), "not UTF-8"),
        ("[1]".encode("utf-16"), "not UTF-8"),
        (b"", "Expecting value"),
    ],
)
def test_what_cannot_be_read_names_the_file(content, message, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_json(path, error=CheckpointError, hint="Written by attnviz.")
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(" Written by attnviz.")


def test_the_limit_of_depth_itself_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + b"[" * 100 + b"]" * 100)
    assert json.dumps(read_json(path)) == "[" * 100 + "]" * 100
    assert parse_json("[NaN, Infinity]", "a test", constants=True)[1] == float("inf")


def test_files_that_are_none(tmp_path, monkeypatch):
    for path, message in (
        (tmp_path / "nothing.json", "is missing"),
        (tmp_path, "cannot be read"),
        ("x" * 5000, "too long"),
        ("~nosuch/x.json", "unknown user"),
        ("a\0b", "null character"),
        ("", "is empty"),
        (None, "a path is needed"),
    ):
        for read in (read_json, read_toml):
            with pytest.raises(CheckpointError, match=message):
                read(path, error=CheckpointError)
    monkeypatch.setattr(json_files, "MOST_BYTES", 10)
    (tmp_path / "large.json").write_text("[1, 2, 3, 4]")
    with pytest.raises(AttnVizError, match="are read"):
        read_json(tmp_path / "large.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = " + b"[" * 5000 + b"]" * 5000, "deeper than 100"),
        (b"a = " + b"[" * 150 + b"]" * 150, "deeper than 100"),
        (b"a = 1\na = 2", "overwrite"),
        (b"a = \xe4", "not UTF-8"),
    ],
)
def test_toml_that_cannot_be_read(content, message, tmp_path):
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(AttnVizError, match=message):
        read_toml(tmp_path / "a.toml")


def test_what_json_cannot_hold_is_not_written():
    for content in (float("nan"), {1j: 2}, object(), [{"a": {1, 2}}]):
        with pytest.raises(OutputError, match=r"run\.json holds text, finite numbers"):
            as_json(content, "run.json", error=OutputError)
    knot: list[object] = []
    knot.append(knot)
    with pytest.raises(OutputError):
        as_json(knot, "run.json", error=OutputError)
