"""benchmarks/harness: what is resumed, what is refused, and what is written of it."""

from __future__ import annotations

import importlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from harness import Bar, Estimate, Study, bar_lines, parser, seed_of

OUTPUTS = {"one": ("one",), "two": ("two", "two_more")}


@dataclass(frozen=True)
class Settings:
    data: Path = Path("somewhere/esc10")
    steps: int = 2


def measure(case, number):
    return [{"case": number, "value": np.float64(case), "text": None}, {"case": number, "value": case + 0.5}]


def test_a_study_that_was_cut_measures_what_is_missing_and_no_more(tmp_path):
    made = []

    def cut(case, number):
        if number == 2 and "again" not in made:
            raise KeyboardInterrupt
        made.append(number)
        return measure(case, number)

    study = Study(tmp_path / "out", Settings(), OUTPUTS)
    with pytest.raises(KeyboardInterrupt):
        study.cases("one", [3, 1, 2], cut)
    assert not study.has("one")
    made.append("again")
    again = Study(tmp_path / "out", Settings(), OUTPUTS)
    again.cases("one", [3, 1, 2], cut)
    assert made == [0, 1, "again", 2]
    table = again.tables()["one"]
    assert table["value"].tolist() == [3, 3.5, 1, 1.5, 2, 2.5]
    assert table["case"].tolist() == [0, 0, 1, 1, 2, 2]
    again.cases("one", [3, 1, 2], cut)  # the table is there
    assert made[-1] == 2
    Study(tmp_path / "out", Settings(), OUTPUTS, fresh=["one"]).cases("one", [3], cut)
    assert made[-1] == 0
    assert (tmp_path / "out" / "pieces" / ".gitignore").read_text() == "*\n"


def test_two_processes_write_what_one_writes(tmp_path, monkeypatch):
    (tmp_path / "work_of_two.py").write_text(
        "import os\ndef rows(case, number):\n    return [{'case': case, 'twice': 2 * case, 'by': os.getpid()}]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    tables = {}
    for processes in (1, 2):
        study = Study(tmp_path / f"{processes}", Settings(), OUTPUTS)
        study.cases("one", range(8), importlib.import_module("work_of_two").rows, processes=processes)
        tables[processes] = study.tables()["one"]
    assert os.getpid() not in set(tables[2]["by"])
    pd.testing.assert_frame_equal(tables[1].drop(columns="by"), tables[2].drop(columns="by"))


def test_results_of_other_settings_are_refused_before_anything_is_removed(tmp_path):
    study = Study(tmp_path, Settings(), OUTPUTS)
    for name in ("one", "two", "two_more"):
        study.write(name, [{"a": 1}])
    assert json.loads((tmp_path / "study.json").read_text())["settings"] == {"data": "esc10", "steps": 2}
    with pytest.raises(SystemExit, match=r"other settings \(one\)"):
        Study(tmp_path, Settings(steps=3), OUTPUTS, fresh=["two"])
    assert set(study.tables()) == {"one", "two", "two_more"}
    Study(tmp_path, Settings(Path("elsewhere/esc10")), OUTPUTS, fresh=["two"])
    assert set(study.tables()) == {"one"}
    (tmp_path / "study.json").unlink()  # results of nobody knows what
    with pytest.raises(SystemExit, match="other settings"):
        Study(tmp_path, Settings(), OUTPUTS)
    Study(tmp_path, Settings(steps=3), OUTPUTS, fresh=list(OUTPUTS))
    assert study.tables() == {}


def test_the_environment_can_be_part_of_what_must_agree(tmp_path):
    both = {"same": ("settings", "environment")}
    Study(tmp_path, Settings(), OUTPUTS, environment={"code": "a"}, **both).write("one", [{"a": 1}])
    Study(tmp_path, Settings(), OUTPUTS, environment={"code": "a"}, **both)
    with pytest.raises(SystemExit, match="other settings or environment"):
        Study(tmp_path, Settings(), OUTPUTS, environment={"code": "b"}, **both)


def test_a_page_has_its_bars_and_the_table_of_them(tmp_path):
    study = Study(tmp_path, Settings(), OUTPUTS)
    bars = [
        Bar.of("speed, s", "<= 2", "1.5", True),
        Bar.of("noise", "<= 2", "3", np.bool_(False)),
        Bar.of("colour", "", "red"),
        Bar.of("smell", "none"),
    ]
    assert [bar.state for bar in bars] == ["reached", "missed", "reported", "not measured"]
    study.page("Title", ["First.", "Second."], bars, ["## More", ""], "End.")
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("# Title\n\nFirst.\n\nSecond.\n\n| what | bar | measured | |\n")
    assert "\n".join(bar_lines(bars)) in text
    assert text.endswith("## More\n\nEnd. Machine and versions: `study.json`.\n")
    assert pd.read_csv(tmp_path / "bars.csv")["state"].tolist() == [bar.state for bar in bars]
    assert study.tables() == {}


def test_estimates_of_constants_and_of_spread():
    for estimate in (Estimate.mean, Estimate.median):
        assert estimate([1.5] * 5) == Estimate(1.5, 1.5, 1.5, 5)
        spread = estimate([1.0, 2.0, 3.0, 4.0, np.nan, 5.0])
        assert (spread.value, spread.cases) == (3.0, 5)
        assert 1.0 <= spread.low < 3.0 < spread.high <= 5.0
    assert str(Estimate.mean([])) == "nan [nan, nan] (0)"
    # A time that is far too long moves the mean and not the median.
    assert Estimate.median([1.0, 1.0, 1.0, 1.0, 90.0]).value == 1.0
    assert Estimate.mean([1.0, 3.0], 1000).text(".1f") == "2.0 [1.0, 3.0]"


def test_seeds_are_of_all_facts_and_options_of_what_is_asked_for():
    assert seed_of(1, 2, 3) == seed_of(1, 2, 3)
    assert len({seed_of(1, 2), seed_of(2, 1), seed_of(1, 2, 1), seed_of(0, 2)}) == 4
    options = parser("Text.", "name", ("a", "b"), data=True).parse_args(["--data", "x", "--parts", "b", "--tiny"])
    assert (options.parts, options.tiny, options.fresh, options.model) == (["b"], True, False, None)
    assert options.out.parts[-2:] == ("results", "name")
    with pytest.raises(SystemExit):
        parser("Text.", "name").parse_args(["--data", "x"])
