"""Events say whether they were given or heard by the listener, wherever they go and wherever they are shown."""

from __future__ import annotations

import numpy as np
import pytest
from alignment_synthetic import COLUMNS, DOG, RAIN, event_rows, planted_maps
from listener.small_listeners import certain_listener
from report.report_runs import events, log_mel, small_maps

import attnviz
from attnviz import plots
from attnviz.alignment import align
from attnviz.events import events_of, read_events, write_csv, write_jams, write_tsv
from attnviz.events.origin import ORIGIN, heard, origin_name
from attnviz.report import payload_of
from attnviz.report.page import program_text

ROWS = (("dog barks", 0.1, 0.3), ("rain falls", 0.2, 0.5))


@pytest.fixture(scope="module")
def maps():
    rng = np.random.default_rng(0)
    return planted_maps({DOG: rng.random(COLUMNS), RAIN: rng.random(COLUMNS)})


@pytest.fixture(scope="module")
def hearing():
    samples = 0.1 * np.random.default_rng(0).standard_normal(11_520)
    return attnviz.listen(samples.astype(np.float32), model=certain_listener("Rain"))


def test_what_the_listener_detects_says_so_also_in_files(hearing, tmp_path):
    """Rain is heard; the dog of the caption is not, and its silence is heard as well."""
    named = hearing.of_caption("a dog barks, then rain falls")
    assert sorted(named["label"]) == ["Dog bark", "Rain"]
    for table in (hearing.events, named, events_of(named, "a dog barks, then rain falls")):
        assert heard(table).all()
    writers = {
        "a.tsv": write_tsv,
        "a.csv": write_csv,
        "a.jams": lambda table, path: write_jams(table, path, seconds=0.72),
    }
    for name, write in writers.items():
        write(named, tmp_path / name)
        assert heard(read_events(tmp_path / name)).all(), name


def test_other_events_are_given():
    table = event_rows(*ROWS)
    assert origin_name(table) == "given event"
    assert origin_name(table.assign(origin="")) == origin_name(table.assign(origin=None)) == "given event"
    assert origin_name(table.assign(origin="listener")) == "heard by the listener"
    assert origin_name(table.assign(origin=["listener", None])) == "given event, or heard by the listener"


@pytest.mark.parametrize("width", [6.9, 3.35])
@pytest.mark.parametrize(
    ("origin", "name"),
    [("", "given event"), ("listener", "heard by the listener"), (["", "listener"], "or heard by the listener")],
)
def test_legends_and_scores_name_the_origin(maps, origin, name, width):
    table = event_rows(*ROWS).assign(**{ORIGIN: origin})
    ax = plots.style.own_axes(width, 1.7)
    legend = [text.get_text() for text in plots.activations(maps, table, ax=ax).get_legend().get_texts()]
    assert legend[-1].endswith(name)
    ax.figure.draw_without_rendering()
    assert ax.get_legend().get_window_extent().x1 <= ax.figure.bbox.x1
    result = align(maps, table)
    note = {"": "", "listener": " (events heard by the listener)"}.get(
        str(origin), " (some events heard by the listener)"
    )
    label = " ".join(plots.phrase_scores(result.table).get_xlabel().split())
    assert label == f"ROC-AUC{note}; readout mean, columns of 20 ms"
    assert plots.alignment(result).get_xlabel() == f"ROC-AUC{note}"
    assert ("heard by the listener" in result.summary()) == bool(note)


def test_the_report_names_the_origin():
    maps, table = small_maps(), events().assign(origin=["listener", "", "listener", ""])
    table = table[table["label"] != "click"]
    payload = payload_of(maps, log_mel=log_mel(), events=table)
    assert {event["label"]: event["heard"] for event in payload["events"]} == {
        "barks": True,
        "rain": False,
        "a <i>bell</i>": True,
    }
    scored = align(maps, table[table["label"] == "rain"].assign(origin="listener"))
    assert payload_of(maps, scores=scored.table)["scores"]["against"] == " (events heard by the listener)"
    assert not any(event["heard"] for event in payload_of(maps, events=events())["events"])
    assert "ground truth" not in program_text().lower()
