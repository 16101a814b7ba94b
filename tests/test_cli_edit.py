"""``attnviz edit``: run folders with what was edited beside the edit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from PIL import Image
from typer.testing import CliRunner

import attnviz
from attnviz.audio import SpectrogramGrid
from attnviz.audio.levels import loudest_level
from attnviz.cli.app import app
from attnviz.cli.commands.edit import numbers_of_words
from attnviz.editing.masks import time_frequency_mask
from attnviz.errors import AttnVizError
from attnviz.report.run_folder import is_run

QUICK = ("--steps", 1, "--guidance", 1)
PLAIN_FILES = {
    "audio.wav", "edit.png", "maps.zarr", "run.json", "source.wav", "spectrogram.npz", "spectrogram.png",
    "tokens.csv", "words.png",
}  # fmt: skip


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.wav"
    samples = 0.3 * np.sin(np.arange(32_000) / 7) * np.linspace(0.2, 1, 32_000)
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "long.wav"
    soundfile.write(path, 0.1 * np.sin(np.arange(176_000) / 7), 16_000)
    return path


def test_swap_writes_source_and_edit(adapter_checkpoint, tmp_path):
    out = tmp_path / "swap"
    result = call(
        *("edit", "swap", "a dog barks", "a cat barks", "--out", out, "--model", adapter_checkpoint),
        *("--weight", "cat=-2", "--cross-steps", "0.5", "--cross-steps", "cat=1", "--blend", "--seed", 3, *QUICK),
    )
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == PLAIN_FILES | {"source.zarr"}
    record = json.loads((out / "run.json").read_text("utf-8"))
    assert (record["edit"], record["prompt"], record["source"]) == ("swap", "a cat barks", "a dog barks")
    assert record["weights"] == {"cat [2:5]": -2.0}
    assert record["cross_replace_steps"] == {"": 0.5, "cat [2:5]": 1.0}
    assert record["blend"]["source"] == ["dog [2:5]"]
    maps, source = (attnviz.AttentionMaps.load(out / name) for name in ("maps.zarr", "source.zarr"))
    assert (maps.prompts, source.prompts) == (["a cat barks"], ["a dog barks"])
    assert maps.heatmap("cat").shape == source.heatmap("dog").shape == (32, 128)
    audio, before = (soundfile.read(out / name)[0] for name in ("audio.wav", "source.wav"))
    assert audio.shape == before.shape == (160_000,)
    assert list(record["levels_dbfs"]) == ["source.wav", "audio.wav"]
    for file, sound in (("source.wav", before), ("audio.wav", audio)):
        assert record["levels_dbfs"][file] == pytest.approx(loudest_level(sound), abs=0.1)
        assert f"{file} {record['levels_dbfs'][file]:.1f} dBFS" in result.output
    with Image.open(out / "edit.png") as figure:
        assert figure.size[0] > 1000
    assert is_run(out)


def test_reweight_writes_the_same_prompt_twice(adapter_checkpoint, tmp_path):
    out = tmp_path / "reweight"
    arguments = ("edit", "reweight", "a dog barks, a dog howls", "-w", "dog#1=3", "--cross-steps", 1)
    result = call(*arguments, "--duration", 2.5, "--out", out, "--model", adapter_checkpoint, *QUICK)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == PLAIN_FILES | {"source.zarr"}
    record = json.loads((out / "run.json").read_text("utf-8"))
    assert (record["edit"], record["weights"], record["duration"]) == ("reweight", {"dog [15:18]": 3.0}, 2.5)
    assert record["source"] == record["target"] == record["prompt"]
    maps, source = (attnviz.AttentionMaps.load(out / name) for name in ("maps.zarr", "source.zarr"))
    louder, plain = (each.heatmap("dog", occurrence=1).to_numpy() for each in (maps, source))
    np.testing.assert_allclose(louder, 3 * plain, rtol=1e-4)
    np.testing.assert_array_equal(maps.heatmap("howls"), source.heatmap("howls"))
    assert soundfile.info(out / "audio.wav").frames == soundfile.info(out / "source.wav").frames == 40_000


def test_an_existing_run_is_replaced_only_where_asked(adapter_checkpoint, clip, tmp_path):
    out = tmp_path / "run"
    arguments = ("--steps", 2, "--guidance", 1, "--model", adapter_checkpoint, "--out", out)
    assert call("edit", "style", clip, "rain falls", *arguments).exit_code == 0
    made = (out / "run.json").read_bytes()
    refused = call("edit", "inpaint", clip, "a dog barks", "--span", 0.5, 1.5, *arguments)
    assert refused.exit_code == 1
    assert "exists already" in refused.stderr
    assert (out / "run.json").read_bytes() == made
    replaced = call("edit", "inpaint", clip, "a dog barks", "--span", 0.5, 1.5, *arguments, "--overwrite")
    assert replaced.exit_code == 0, replaced.output
    assert json.loads((out / "run.json").read_text("utf-8"))["edit"] == "inpaint"
    (out / "notes.txt").write_text("mine")  # not an edit's: the folder is somebody's own now
    kept = call("edit", "style", clip, "rain falls", *arguments, "--overwrite")
    assert kept.exit_code == 1
    assert (out / "notes.txt").read_text() == "mine"


def test_refine_of_a_real_clip(adapter_checkpoint, clip, tmp_path):
    out = tmp_path / "refine"
    result = call(
        *("edit", "refine", "a dog barks", "a big dog barks", "--clip", clip, "--out", out),
        *("--model", adapter_checkpoint, *QUICK),
    )
    assert result.exit_code == 0, result.output
    assert soundfile.info(out / "audio.wav").frames == soundfile.info(out / "source.wav").frames == 32_000
    assert json.loads((out / "run.json").read_text("utf-8"))["inversion"] == "negative-prompt"


def test_inpainting_keeps_the_clip_outside_its_box(adapter_checkpoint, clip, tmp_path):
    out = tmp_path / "inpaint"
    result = call(
        *("edit", "inpaint", clip, "rain falls", "--span", 0.5, 1.5, "--band", 500, 4000, "--out", out),
        *("--model", adapter_checkpoint, *QUICK),
    )
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == PLAIN_FILES
    audio, before = (soundfile.read(out / name, dtype="int16")[0] for name in ("audio.wav", "source.wav"))
    np.testing.assert_array_equal(audio[:7900], before[:7900])
    np.testing.assert_array_equal(audio[24_100:], before[24_100:])
    assert not np.array_equal(audio[10_000:20_000], before[10_000:20_000])


def test_style(adapter_checkpoint, clip, tmp_path):
    out = tmp_path / "style"
    arguments = ("--strength", 0.6, "--steps", 2, "--guidance", 1, "--model", adapter_checkpoint)
    result = call("edit", "style", clip, "rain falls", "--out", out, "--json", *arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["words"] == ["rain", "falls"]
    assert {path.name for path in out.iterdir()} == PLAIN_FILES
    assert json.loads((out / "run.json").read_text("utf-8"))["strength"] == 0.6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("swap", "a dog barks", "a dog barks loudly"), "adds 'loudly'"),
        (("refine", "a dog barks", "a cat barks"), "lacks 'dog'"),
        (("reweight", "a dog barks"), "No word has a weight"),
        (("reweight", "a dog barks", "-w", "rain=2"), "'rain' is not in the prompt"),
        (("reweight", "a dog barks", "-w", "dog"), "WORD=NUMBER"),
        (("reweight", "a dog barks", "-w", "dog=nan"), "not a finite number"),
        (("swap", "a dog", "a cat", "--self-steps", 1.5), "self_replace_steps=1.5"),
        (("swap", "a dog", "a cat", "--clip", "CLIP", "--negative", "wind"), "--inversion ddim"),
        (("swap", "a dog", "a cat", "--clip", "missing.wav"), "missing.wav"),
        (("swap", "a dog", "a cat", "--clip", "LONG"), "at most 10.24 s can be edited"),
        (("swap", "a dog", "a cat", "--cross-steps", "cat=80"), "percent"),
        (("swap", "a dog", "a cat", "--cross-steps", "rain=0.5"), "'rain' is not in the prompt"),
        (("swap", "a dog", "a cat", "--duration", 11), "10.24"),
        (("swap", "a dog", "a cat", "--guidance", "nan"), "guidance"),
        (("inpaint", "CLIP", "rain"), "--span"),
        (("inpaint", "CLIP", "rain", "--span", 0, 2), "nothing to keep"),
        (("inpaint", "CLIP", "rain", "--span", 1.001, 1.002), "cover nothing"),
        (("inpaint", "CLIP", "rain", "--span", "nan", 1), "not inside the clip"),
        (("inpaint", "CLIP", "rain", "--span", 1, 3), "is 2 s long"),
        (("inpaint", "CLIP", "rain", "--span", 1.5, 1), "not inside the clip"),
        (("inpaint", "CLIP", "rain", "--band", 4000, 500), "Hz is not inside"),
        (("inpaint", "CLIP", "rain", "--span", 0.5, 1, "--strength", -0.1), "strength"),
        (("style", "CLIP", "rain", "--strength", 80), "percent"),
        (("style", "CLIP", "rain", "--strength", "nan"), "strength"),
        (("style", "CLIP", " "), "empty"),
    ],
)
def test_bad_requests_are_refused_before_a_model_is_loaded(arguments, message, clip, long_clip, tmp_path):
    clips = {"CLIP": clip, "LONG": long_clip}
    arguments = [clips.get(argument, argument) for argument in arguments]
    result = call("edit", *arguments, "--model", "nobody/nosuch", "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_box_is_masked_where_its_cells_have_their_centres():
    grid = SpectrogramGrid()
    time, freq = grid.time(1024), grid.freq(256)
    box = time_frequency_mask((1.0, 2.5), (500.0, 4000.0), 5.0)
    np.testing.assert_array_equal(box.any(axis=0), (time >= 1.0) & (time < 2.5))
    np.testing.assert_array_equal(box.any(axis=1), (freq >= 500) & (freq <= 4000))
    assert box.sum() == box.any(axis=0).sum() * box.any(axis=1).sum()
    band = time_frequency_mask(None, (500.0, 4000.0), 5.0)
    assert band.any(axis=0).sum() == 500  # and no column beyond the clip
    assert time_frequency_mask((1.0, 2.5), None, 5.0).all(axis=0).sum() == 150


def test_numbers_of_words():
    assert numbers_of_words("-w", ["a = b=2", "dog#0=1e-1"], alone=False) == {"a = b": 2.0, ("dog", 0): 0.1}
    forms = "expected WORD=NUMBER or WORD#OCCURRENCE=NUMBER"
    for bad, alone, message in [
        ("2", False, forms),
        ("=2", True, f"{forms}, or NUMBER for all words"),
        ("dog=", True, "'' is not a number. Expected, for example, dog=0.5"),
        ("dog=x", False, "'x' is not a number. Expected, for example, dog=0.5"),
        ("dog", True, "for example dog=0.5"),
    ]:
        with pytest.raises(AttnVizError, match=message):
            numbers_of_words("-w", [bad], alone=alone)
    with pytest.raises(AttnVizError, match="twice"):
        numbers_of_words("-w", ["dog=1", "dog=2"], alone=False)
