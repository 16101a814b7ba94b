"""benchmarks/editing.py: which edits are asked for and made, what is kept, and which bars are reached."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from scenes.synthetic_scenes import write_layout

from attnviz import bundled
from attnviz.editing import PromptEdit, apply_edit

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from editing_parts import tasks
from editing_parts.prompting import EDIT, REGENERATE, SDEDIT
from editing_parts.report import judge
from editing_parts.settings import Settings
from editing_parts.together import generate_together

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


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
    return Settings(esc10=Path("esc10"), model="none", prompts=2)


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
            {
                "case": number,
                "weight": weight,
                "loudness": weight * (1 if number else -1),
                "probability": 0.5,
                "level": weight,
            }
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
        states[f"reweight: Spearman correlation of {name} with the word's weight"]
        for name in ("the loudness of what is heard as the word", "the listener's probability")
    )
    assert (loudness.state, loudness.measured.split()[0]) == ("missed", "0")
    assert probability.measured == "nan [nan, nan] (0)"
    assert probability.state == "missed"


def test_the_bar_of_inpainting_is_three_spans_in_five():
    seams = {"kept is the original": True, "seam, dB": -3.0, "hard cut, dB": 2.0}
    for heard, state in ((6, "reached"), (5, "missed")):
        rows = pd.DataFrame([{"new heard in the span": case < heard, **seams} for case in range(10)])
        (bar,) = (bar for bar in judge({"inpaint": rows}, 100, 0) if "new sound" in bar.what)
        assert (bar.wanted, bar.state) == (">= 0.6", state)


def test_edits_made_together_are_those_made_one_by_one(pipe):
    prompt, call = "a dog barks while rain falls", {"height": 72, "width": 232, "num_inference_steps": 3}
    swap = PromptEdit("swap", prompt, "a cat barks while rain falls", cross_replace_steps=0.7)
    edits = [
        PromptEdit.reweighting(prompt, {"rain": -2.0}),
        PromptEdit(
            "refine", prompt, "a big dog barks while rain falls loudly"
        ),  # added words attend as their own row
        swap,
    ]
    plain = PromptEdit("swap", prompt, swap.target, cross_replace_steps=0.0, self_replace_steps=0.0)
    latents, maps = generate_together(pipe, [*edits, plain], 5, **call)
    assert maps.prompts == [prompt, *(edit.target for edit in edits), swap.target]
    close = {"rtol": 0, "atol": 1e-4}  # batches of another size differ in the last bits
    for place, edit in enumerate(edits, start=1):
        alone = apply_edit(pipe, edit, generator=torch.Generator().manual_seed(5), output_type="latent", **call)
        torch.testing.assert_close(latents[[0, place]], alone.output.latents, **close)
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    again = pipe([prompt, swap.target], generator=generators, output_type="latent", **call).latents
    torch.testing.assert_close(latents[[0, 4]], again, **close)
    apart = torch.pdist(latents.flatten(1), p=torch.inf)
    assert apart.min() > 10 * close["atol"]


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("editing_study_command", BENCHMARKS / "editing.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_study_that_was_cut_goes_on_where_it_stopped(study, adapter_checkpoint, tmp_path, monkeypatch):
    esc10 = write_layout(tmp_path / "esc10", range(1, 11), folds=(4,), per_fold=2)
    arguments = ["--data", esc10, "--model", adapter_checkpoint, "--listener", bundled.FOLDER / "listener",
                 "--tiny", "--prompts", 2, "--steps", 1, "--out", tmp_path / "out"]  # fmt: skip
    arguments = [str(one) for one in arguments]
    made = []

    def weights(model, task, settings, number):
        if len(made) == 1 and number == 1:
            raise KeyboardInterrupt
        made.append(number)
        rest = {"level": 0.0, "loudness": 0.0, "probability": 0.5}
        return [{"case": number, "weight": weight, **rest} for weight in (0, 1, 2)]

    monkeypatch.setattr(study, "weight_rows", weights)
    with pytest.raises(KeyboardInterrupt):
        study.main([*arguments, "--parts", "reweight"])
    assert not (tmp_path / "out" / "reweight.csv").exists()
    made.append("again")
    assert study.main([*arguments, "--parts", "reweight"]) == 0
    assert made == [0, "again", 1]
    assert pd.read_csv(tmp_path / "out" / "reweight.csv")["case"].tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(SystemExit, match="other settings"):
        study.main([*arguments, "--parts", "style", "--steps", "3"])
    made.append("fresh")
    assert study.main([*arguments, "--parts", "reweight", "--fresh"]) == 0
    assert made[-2:] == [0, 1]


@pytest.mark.slow
def test_every_part_runs(study, small_checkpoint, tmp_path):
    esc10 = write_layout(tmp_path / "esc10", range(1, 11), folds=(4,), per_fold=2)
    arguments = ["--data", esc10, "--model", small_checkpoint, "--listener", bundled.FOLDER / "listener",
                 "--tiny", "--prompts", 1, "--out", tmp_path / "out"]  # fmt: skip
    assert study.main([str(one) for one in arguments]) == 0
    tables = {path.stem: pd.read_csv(path) for path in (tmp_path / "out").glob("*.csv")}
    assert list(tables["swap"]["method"]) == list(tables["refine"]["method"]) == [EDIT, REGENERATE, SDEDIT]
    assert (tables["swap"]["agreement"] > 0).all()
    assert tables["reweight"]["weight"].tolist() == [-1.0, 1.0, 2.0]
    assert tables["inpaint"]["kept is the original"].all()
    assert tables["style"]["strength"].tolist() == [0.5, 1.0]
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "not measured" not in text
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"methods.png", "reweight.png", "style.png"}
