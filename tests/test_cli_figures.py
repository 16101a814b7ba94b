"""``attnviz figures``: what is written, and what bad runs get."""

from __future__ import annotations

import json
import re
import shutil

import matplotlib as mpl
import numpy as np
import pytest
from maps.maps_synthetic import GRID, SMALL, captured, make, table
from PIL import Image
from plots.plots_checks import text_faults
from typer.testing import CliRunner

import attnviz
from attnviz.cli.app import app
from attnviz.errors import MapsError
from attnviz.models.pipelines import AuffusionPipeline
from attnviz.plots import paper
from attnviz.report.run_folder import save_run
from attnviz.report.saved_run import read_saved_run
from attnviz.testing import example_events, example_maps

ALL = ["activations", "alignment", "diagnosis", "layers", "overlap", "spectrogram", "steps", "tokens", "words"]


def write_run(folder, maps, **extra):
    record = {"attnviz": attnviz.__version__, "prompt": maps.prompts[0], "warnings": []}
    log_mel = np.random.default_rng(0).normal(size=(maps.grid.height, maps.grid.width)) - 4
    if maps.spectrogram is not None:
        log_mel = maps.spectrogram[0, 0].to_numpy()
    return save_run(folder, np.zeros(8000, dtype=np.float32), log_mel, maps, record, **extra)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A run of which every figure can be drawn."""
    maps, events = example_maps(steps=3, heads=2), example_events()
    scores = attnviz.align(maps, events).table
    return write_run(tmp_path_factory.mktemp("runs") / "full", maps, events=events, alignment=scores)


@pytest.fixture
def run(full, tmp_path):
    return shutil.copytree(full, tmp_path / "[red]run")


@pytest.fixture
def coarse(monkeypatch):
    """Pictures of few pixels: they are not looked at."""
    monkeypatch.setattr(paper, "STYLES", {"paper": paper.Style(one=3.35, two=6.9, tallest=9.0, dpi=20)})


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    def refuse(*arguments, **keywords):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(AuffusionPipeline, "from_pretrained", refuse)


def figures(*arguments):
    return CliRunner().invoke(app, ["figures", *map(str, arguments)], env={"COLUMNS": "200"})


def stems(folder):
    return sorted({path.stem for path in folder.iterdir()} - {"attnviz"})


def test_the_whole_set_is_written(run):
    result = figures(run, "--style", "paper")
    assert result.exit_code == 0, result.output
    folder = run / "figures"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["attnviz.json", *(f"{n}.{e}" for n in ALL for e in ("pdf", "png"))]
    )
    assert "no figure" not in result.stdout
    assert f"Written to {folder}" in result.stdout
    for name in ALL:
        page = (folder / f"{name}.pdf").read_bytes()
        width, height = (float(one) for one in re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", page).groups())
        assert width / 72 == pytest.approx(3.35 if name == "overlap" else 6.9, abs=0.01)
        assert height / 72 <= 9.0
        assert b"/Type3" not in page
        assert b"/FontFile2" in page  # TrueType, embedded
        assert b"CreationDate" not in page
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.width == pytest.approx(width / 72 * 300, abs=2)
            assert np.ptp(np.asarray(picture.convert("L"))) > 100


def test_the_diagnosis_is_that_of_attnviz_diagnose(full):
    """Of the audio too: the figure left clipping unjudged beside a command that judged it."""
    from attnviz.cli.commands.figures import _diagnosis

    drawn, _ = _diagnosis(read_saved_run(full), "mean")
    said = CliRunner().invoke(app, ["diagnose", str(full), "--json"])
    judged = {row["finding"]: not row["unjudged"] for row in json.loads(said.stdout)["findings"]}
    assert judged["clipped audio"]
    assert {one.name: not one.unjudged for one in drawn.findings} == judged


def test_existing_figures_are_kept_unless_asked(run, coarse):
    (run / "figures").mkdir()
    (run / "figures" / "notes.txt").write_text("mine")
    for options in ((), ("--overwrite",)):
        result = figures(run, *options)
        assert result.exit_code == 1
        assert "exists" in result.stderr
        assert [path.name for path in (run / "figures").iterdir()] == ["notes.txt"]
    shutil.rmtree(run / "figures")
    for options in ((), ("--overwrite", "--word", "rain")):
        assert figures(run, *options).exit_code == 0
        assert stems(run / "figures") == ALL
    for name in ("holiday.png", "thesis.pdf"):
        (run / "figures" / name).write_text("mine")
        result = figures(run, "--overwrite")
        assert f"holds {name}, which attnviz did not write" in result.stderr.replace("\n", " ")
        assert (run / "figures" / name).read_text() == "mine"
        (run / "figures" / name).unlink()


def test_latex_is_not_needed(run, coarse, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with mpl.rc_context({"text.usetex": True}):
        result = figures(run)
        assert result.exit_code == 0, result.output
        write_run(run.parent / "other", make(captured(SMALL)))
    assert stems(run / "figures") == ALL


def test_several_runs_are_compared(run, full, tmp_path, coarse):
    other = write_run(tmp_path / "other", make(captured(SMALL)))
    result = figures(run, other, "--out", tmp_path / "set", "--json")
    assert result.exit_code == 3, result.output
    assert stems(tmp_path / "set") == ["[red]run", "comparison", "other"]
    assert stems(tmp_path / "set" / "[red]run") == ALL
    assert "no figure other: steps: The steps were averaged" in result.stderr
    said = json.loads(result.stdout)
    assert {"comparison", "other: words"} < set(said["figures"])
    assert "were averaged" in said["left_out"]["other: steps"]
    assert not (run / "figures").exists()


def test_a_bare_run_says_what_it_lacks(tmp_path, coarse):
    """One token, no audio, no spectrogram."""
    one = make(captured(SMALL, tokens=4), tokens=[table("dog", keys=4)], positions=range(4))
    run = write_run(tmp_path / "one", one)
    (run / "audio.wav").unlink()
    (run / "spectrogram.npz").unlink()
    result = figures(run)
    assert result.exit_code == 3, result.output
    assert stems(run / "figures") == ["activations", "diagnosis", "layers", "tokens", "words"]
    for name, reason in (
        ("spectrogram", "no spectrogram"),
        ("overlap", "at least 2"),
        ("alignment", "attnviz align"),
    ):
        assert re.search(f"no figure {name}: .*{reason}", result.stderr)


def test_a_clip_of_no_column_has_no_diagnosis_and_says_so(tmp_path, coarse):
    run = write_run(tmp_path / "short", make(grid=type(GRID)(height=40, width=72, audio_seconds=0.001)))
    result = figures(run)
    assert result.exit_code == 3, result.output
    assert re.search("no figure diagnosis: No column of the maps contains audio", result.stderr)
    assert "diagnosis" not in stems(run / "figures")
    bare = paper.FigureSet(read_saved_run(run), paper.STYLES["paper"])
    assert "diagnosis" not in bare.drawers()
    with pytest.raises(MapsError, match="was not diagnosed"):
        bare.diagnosis()


@pytest.mark.parametrize("keys", [77, pytest.param(154, marks=pytest.mark.slow)])
def test_a_very_long_prompt_is_drawn_in_part_and_says_so(keys, tmp_path, coarse):
    prompt = " ".join(f"$w{number}_$ <b> 🐕" for number in range(36))  # more than fits either
    maps = make(captured(SMALL, tokens=keys), tokens=[table(prompt, keys=keys)], positions=range(keys))
    run = write_run(tmp_path / "long", maps)
    drawers = paper.FigureSet(read_saved_run(run), paper.STYLES["paper"]).drawers()
    words = drawers["words"]()
    assert "the first 12 of " in words.get_suptitle()
    for figure in (words, *(drawers[name]() for name in ("activations", "tokens", "overlap", "layers"))):
        assert figure.get_figwidth() == pytest.approx(6.9)
        assert figure.get_figheight() <= 9.0
        assert text_faults(figure) == []


def test_numbers_that_are_none_are_said(run, coarse):
    with np.load(run / "spectrogram.npz") as saved:
        arrays = dict(saved)
    arrays["log_mel"][:, :50] = np.nan
    np.savez(run / "spectrogram.npz", **arrays)
    figure = paper.FigureSet(read_saved_run(run), paper.STYLES["paper"]).spectrogram()
    assert "not finite" in figure.axes[0].get_title(loc="right")
    arrays["log_mel"][:] = np.nan
    np.savez(run / "spectrogram.npz", **arrays)
    silent = paper.FigureSet(read_saved_run(run), paper.STYLES["paper"])
    with pytest.raises(MapsError, match="The run has no spectrogram"):
        silent.spectrogram()
    assert "the run has no spectrogram" in silent.words().get_suptitle()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(run / "maps.zarr"), "maps.zarr does not exist"),
        (lambda run: (run / "run.json").unlink(), "no run.json"),
        (lambda run: (run / "run.json").write_text(json.dumps({"prompt": "x"})), "another program"),
        (lambda run: (run / "maps.zarr" / "zarr.json").write_text("{"), "damaged"),
        (lambda run: (run / "events.tsv").write_text("filename\tonset\n"), "events.tsv"),
        (lambda run: (run / "alignment.csv").write_text("a,b\n1,2\n"), "alignment.csv"),
    ],
)
def test_damaged_runs_write_nothing(run, damage, message):
    damage(run)
    result = figures(run)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert message in result.stderr.replace("\n", " ")
    assert not (run / "figures").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--style", "slides"), "--style slides is unknown; known: paper"),
        (("--word", "cat"), "cat"),
        (("--readout", "best"), "Unknown readout"),
    ],
)
def test_bad_options_write_nothing(run, options, message, coarse):
    result = figures(run, *options)
    assert result.exit_code == 1
    assert message in result.stderr.replace("\n", " ") + result.stdout
    assert not (run / "figures").exists()


def test_several_runs_need_a_place_and_names(run, full, tmp_path):
    assert "--out" in figures(run, full).stderr
    assert "Was a run given twice?" in figures(run, run, "--out", tmp_path / "set").stderr
    missing = figures(tmp_path / "nosuch")
    assert missing.exit_code == 1
    assert "there is no such folder" in missing.stderr.replace("\n", " ")
    assert not (tmp_path / "nosuch").exists()
