"""Settings nobody gave: whose they are is in the run, and results that cannot be heard warn with their level."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

import attnviz
from attnviz.cli.app import app
from attnviz.cli.doctor import recommendations
from attnviz.editing import PromptEdit
from attnviz.editing.audibility import warn_of_inaudible_words
from attnviz.errors import ClippingWarning, InaudibleWarning
from attnviz.models.pipelines import AuffusionInpaintPipeline, AuffusionPipeline
from attnviz.models.pipelines.recommended import FILE_NAME, RecommendedSettings, read_recommended

OWN = {
    "generation": {"num_inference_steps": 1, "guidance_scale": 3.0, "guidance_interval": [0.0, 0.9]},
    "swap": {"cross_replace_steps": 0.25, "blend_threshold": 0.5},
    "inpaint": {"guidance_scale": 2.0},
}
NOISE = np.random.default_rng(0).standard_normal(163_840).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoint(small_checkpoint, tmp_path_factory):
    folder = shutil.copytree(small_checkpoint, tmp_path_factory.mktemp("defaults") / "own")
    (folder / FILE_NAME).write_text(json.dumps(OWN))
    return folder


def at_level(monkeypatch, dbfs):
    """Have every result at one level, whatever was drawn."""
    sound = np.clip(10 ** (dbfs / 20) * NOISE / NOISE.std(), -1, 1)
    monkeypatch.setattr(AuffusionPipeline, "_vocode", lambda self, log_mels: [sound] * len(log_mels))
    monkeypatch.setattr(AuffusionInpaintPipeline, "_vocode", lambda self, log_mels: [sound] * len(log_mels))


def made(out, *arguments):
    result = CliRunner().invoke(app, [*map(str, arguments), "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads((out / "run.json").read_text("utf-8")), result.output


def test_generate_takes_what_the_checkpoint_recommends_and_says_what_cannot_be_heard(
    checkpoint, tmp_path, monkeypatch
):
    at_level(monkeypatch, -79.6)
    record, said = made(tmp_path / "run", "generate", "a dog barks", "--model", checkpoint, "--guidance", 2)
    assert (record["num_inference_steps"], record["guidance_scale"], record["guidance_interval"]) == (
        1,
        2.0,
        [0.0, 0.9],
    )
    assert record["settings_from"] == {
        "num_inference_steps": "checkpoint", "guidance_scale": "given", "guidance_interval": "checkpoint",
    }  # fmt: skip
    assert record["provenance"]["guidance_interval"] == [0.0, 0.9]
    (warned,) = record["warnings"]
    assert "cannot be heard: -79." in warned
    assert "dBFS" in said


def test_swap_takes_what_the_checkpoint_recommends(checkpoint, tmp_path, monkeypatch):
    at_level(monkeypatch, -20)
    record, _ = made(
        tmp_path / "run", "edit", "swap", "a dog barks", "a cat barks", "--model", checkpoint, "--self-steps", 0
    )
    assert (record["num_inference_steps"], record["guidance_scale"]) == (1, 3.0)
    assert record["cross_replace_steps"] == {"": 0.25}
    assert record["blend"]["threshold"] == 0.5
    assert record["settings_from"] == {
        "num_inference_steps": "checkpoint", "guidance_scale": "checkpoint", "guidance_interval": "checkpoint",
        "cross_replace_steps": "checkpoint", "self_replace_steps": "given", "blend": "checkpoint",
    }  # fmt: skip
    assert record["warnings"] == []
    plain, _ = made(
        tmp_path / "plain", "edit", "swap", "a dog barks", "a cat barks", "--model", checkpoint, "--no-blend"
    )
    assert (plain["blend"], plain["settings_from"]["blend"]) == (None, "given")


def test_the_part_that_inpainting_drew_is_what_has_to_be_heard(checkpoint, tmp_path, monkeypatch):
    """The clip around it is loud."""
    at_level(monkeypatch, -70)
    pipe = AuffusionInpaintPipeline.from_pipe(attnviz.load(checkpoint))
    with pytest.warns(InaudibleWarning, match="The regenerated part cannot be heard"):
        pipe("a dog barks", 0.1 * NOISE[:80_000], span=(1.0, 3.0))
    assert pipe.guidance_scale == 2.0


def test_a_result_at_full_scale_is_said_by_generate_edit_and_diagnose(checkpoint, tmp_path, monkeypatch):
    at_level(monkeypatch, 20)
    run = tmp_path / "run"
    record, said = made(run, "generate", "a dog barks", "--model", checkpoint)
    (warned,) = record["warnings"]
    assert re.search(r"The audio is clipped: \d+\.\d ms \(\d+ samples\) are at full scale.*guidance scale", warned)
    assert "at full scale" in said
    found = json.loads(CliRunner().invoke(app, ["diagnose", str(run), "--json"]).stdout)["found"]
    assert "clipped audio" in found
    record, _ = made(tmp_path / "edit", "edit", "swap", "a dog barks", "a cat barks", "--model", checkpoint)
    assert [warned[:29] for warned in record["warnings"]] == [f"The audio ({i} of 2) is clipped" for i in (1, 2)]


def test_a_regenerated_part_that_is_clipped_is_said_though_its_clip_is_quiet(checkpoint, monkeypatch):
    """It is scaled to the level of its clip, so none of it is at full scale in the end."""
    at_level(monkeypatch, 20)
    pipe = AuffusionInpaintPipeline.from_pipe(attnviz.load(checkpoint))
    with pytest.warns(ClippingWarning, match="The regenerated part is clipped"):
        made = pipe("a dog barks", 0.1 * NOISE[:80_000], span=(1.0, 3.0), normalize=True)
    assert np.abs(made.audios[0]).max() < 0.9


def test_published_checkpoints_keep_the_authors_values(plain_checkpoint):
    assert attnviz.load(plain_checkpoint).recommended == RecommendedSettings()
    ((name, said),) = recommendations(RecommendedSettings())
    assert (name, "the authors'" in said) == ("recommended", True)


def test_doctor_lists_what_is_recommended(checkpoint):
    said = dict(recommendations(read_recommended(checkpoint)))
    assert said["recommended for swap"] == "cross_replace_steps 0.25, blend_threshold 0.5"


KNOWN = {"Dog bark": ["dog", "bark"], "Rooster": ["rooster", "crow"], "Rain": ["rain"]}


def test_an_edited_word_that_is_not_heard_warns_though_the_rest_is_loud():
    edit = PromptEdit("swap", "a dog barks and rain falls", "a rooster crows and rain falls")
    with pytest.warns(
        InaudibleWarning, match=r"'rooster.* crows' .Rooster. is not heard: no such event.* -\d"
    ) as warned:
        warn_of_inaudible_words(edit, 0.1 * NOISE, KNOWN)
    assert len(warned) == 1


@pytest.mark.filterwarnings("error")
def test_words_that_are_taken_away_or_of_no_known_sound_are_left_out():
    silence = np.zeros(32_000, np.float32)
    warn_of_inaudible_words(PromptEdit.reweighting("a dog barks", {"dog": 0.0}), silence, KNOWN)
    warn_of_inaudible_words(PromptEdit("swap", "a dog barks", "a cat barks"), silence, KNOWN)
    warn_of_inaudible_words(PromptEdit("swap", "a dog barks", "a rooster crows"), silence, None)
