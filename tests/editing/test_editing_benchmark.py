"""benchmarks/editing.py: which bars are reached, and which edits are asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from editing_parts import tasks
from editing_parts.prompting import EDIT, REGENERATE, SDEDIT
from editing_parts.report import Estimate, judge
from editing_parts.settings import Settings


class _Prompt:
    def __init__(self, text, classes, phrases):
        self.text, self.classes = text, classes
        self.spans = tuple((text.index(phrase), text.index(phrase) + len(phrase)) for phrase in phrases)


PROMPTS = [
    _Prompt("a dog barks while rain falls.", ("Rain", "Dog bark"), ("rain falls", "a dog barks")),
    _Prompt("we hear a crying baby and sea waves", ("Baby cry", "Sea waves"), ("a crying baby", "sea waves")),
]


@pytest.fixture
def settings(monkeypatch):
    monkeypatch.setattr(tasks, "prompts", lambda *_: PROMPTS)
    return Settings(esc10="esc10", model="none", prompts=2)


def test_swaps_change_one_sound_and_keep_the_other(settings):
    for prompt, task in zip(PROMPTS, tasks.swaps(settings), strict=True):
        old, new = task.edit.source[slice(*task.old_span)], task.edit.target[slice(*task.new_span)]
        assert task.edit.source.replace(old, new) == task.edit.target
        assert task.new not in prompt.classes
        assert {task.old, *task.kept} == set(prompt.classes)
        assert new in (*tasks.PHRASES[task.new].clauses, *tasks.PHRASES[task.new].nouns)
    assert [task.old for task in tasks.swaps(settings)] == ["Dog bark", "Sea waves"]


def test_refinements_add_the_second_sound_of_the_text(settings):
    first, second = tasks.refinements(settings)
    assert (first.edit.source, first.edit.target) == ("a dog barks", PROMPTS[0].text)
    assert (first.new, first.kept) == ("Rain", ("Dog bark",))
    assert second.edit.source == "we hear a crying baby"


def case(number, method, heard, distance):
    return {"case": number, "method": method, "new heard": heard, "mel distance": distance}


def test_bars():
    rows = []
    for number in range(20):
        rows += [case(number, EDIT, number < 16, 0.5 + number / 40), case(number, SDEDIT, True, 9.0)]
        rows.append(case(number, REGENERATE, True, 0.7 + number / 40))
    curve = pd.DataFrame(
        [
            {"case": number, "weight": weight, "loudness": weight * (1 if number else -1), "probability": 0.5}
            for number in range(2)
            for weight in (-1, 0, 2)
        ]
    )
    states = {bar.what: bar for bar in judge({"swap": pd.DataFrame(rows), "reweight": curve}, 500, 0)}
    assert states["swap: the new word is heard"].state == "reached"
    assert states["swap: the new word is heard"].measured.startswith("0.8 [")
    assert states["swap: nearer to the source than regeneration, nats"].measured.startswith("0.2 [0.2, 0.2]")
    assert states["swap: nearer to the source than regeneration, nats"].state == "reached"
    assert states["refine: the new word is heard"].state == "not measured"
    loudness, probability = (
        states[f"reweight: Spearman correlation of the word's {name} with its weight"]
        for name in ("loudness", "probability")
    )
    assert (loudness.state, loudness.measured.split()[0]) == ("missed", "0")
    assert probability.measured == "nan [nan, nan] (0)"
    assert probability.state == "missed"


def test_an_estimate_leaves_undefined_values_out():
    found = Estimate.of([1.0, np.nan, 3.0], 1000, 0)
    assert (found.mean, found.cases) == (2.0, 2)
    assert (found.low, found.high) == (1.0, 3.0)
