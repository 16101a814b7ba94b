"""Alignments go to folders and come back with the same scores; what is not one is refused, and left alone."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from alignment_synthetic import COLUMNS, DOG, RAIN, event_rows, planted_maps

from attnviz.alignment import Alignment, align
from attnviz.errors import MapsError, OutputError


def made(clip):
    rng = np.random.default_rng(clip)
    maps = [planted_maps({DOG: rng.random(COLUMNS), RAIN: rng.random(COLUMNS)}) for _ in range(3)]
    events = event_rows(
        ("dog barks", 0.1, 0.3), ("rain falls", 0.2, 0.5), clip=f"{clip}.wav",
        low=[200.0, 300.0], high=[2000.0, 4000.0], source=["a", None],
        origin=["", "listener"], **{"class": ["Dog", ""]},
    )  # fmt: skip
    return align(maps[0], events, controls={"random/../w": maps[1:]})


@pytest.fixture(scope="module")
def result():
    silent = planted_maps({DOG: np.zeros(COLUMNS)})
    nothing = align(
        silent, event_rows(("dog barks", np.nan, np.nan), clip="s.wav"), controls={"random/../w": silent}
    )
    return Alignment.concat([made(0), made(1), nothing])


def test_round_trip(result, tmp_path):
    result.save(tmp_path / "new" / "one")
    again = Alignment.load(tmp_path / "new" / "one")
    pd.testing.assert_frame_equal(again.table, result.table, check_exact=True)
    one, two = (each.pool(n_resamples=20, n_permutations=20) for each in (result, again))
    pd.testing.assert_frame_equal(one.scores, two.scores, check_exact=True)
    pd.testing.assert_frame_equal(one.differences, two.differences, check_exact=True)
    assert (again.readout, again.seed, again.counts, again.unit) == (
        result.readout, result.seed, result.counts, result.unit,
    )  # fmt: skip
    assert [phrase.events.sound_class for phrase in again.phrases] == ["Dog", "", "Dog", "", ""]
    assert [phrase.events.origin for phrase in again.phrases] == ["", "listener", "", "listener", ""]
    assert [phrase.events.text for phrase in again.phrases] == [phrase.events.text for phrase in result.phrases]
    assert result.table["iou"].notna().any()


def test_phrases_of_an_older_version_have_their_labels(result, tmp_path):
    result.save(tmp_path / "one")
    path = tmp_path / "one" / "alignment.json"
    content = json.loads(path.read_text("utf-8"))
    for phrase in content["phrases"]:
        del phrase["text"]
    path.write_text(json.dumps(content), "utf-8")
    assert list(Alignment.load(tmp_path / "one").table["text"]) == list(result.table["label"])


def test_only_an_alignment_of_ours_is_replaced(result, tmp_path):
    result.save(tmp_path / "one")
    with pytest.raises(OutputError, match="exists already"):
        result.save(tmp_path / "one")
    result.save(tmp_path / "one", overwrite=True)
    (tmp_path / "one" / "thesis.pdf").write_text("mine")
    with pytest.raises(OutputError, match=r"thesis\.pdf"):
        result.save(tmp_path / "one", overwrite=True)
    assert (tmp_path / "one" / "thesis.pdf").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]


def test_what_is_no_alignment_is_refused(result, tmp_path):
    with pytest.raises(MapsError, match=r"alignment\.json is missing"):
        Alignment.load(tmp_path)
    result.save(tmp_path / "one")
    arrays, facts = tmp_path / "one" / "curves.npz", tmp_path / "one" / "alignment.json"
    whole, content = arrays.read_bytes(), json.loads(facts.read_text())
    for damaged in (b"", whole[: len(whole) // 2], b"PK\x03\x04" + b"\0" * 200):
        arrays.write_bytes(damaged)
        with pytest.raises(MapsError, match="damaged alignment"):
            Alignment.load(tmp_path / "one")
    arrays.write_bytes(whole)
    for change in ({"phrases": 3}, {"phrases": [{}]}, {"seed": None}, {"phrases": content["phrases"] * 2}):
        facts.write_text(json.dumps({**content, **change}))
        with pytest.raises(MapsError, match="damaged alignment"):
            Alignment.load(tmp_path / "one")
    facts.write_text(json.dumps({**content, "format": "attnviz alignment 0"}))
    with pytest.raises(MapsError, match="format 'attnviz alignment 0'"):
        Alignment.load(tmp_path / "one")
