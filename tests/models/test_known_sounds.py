"""Prompts that name none of the sounds a small model knows."""

from __future__ import annotations

import json
import warnings

import pytest

import attnviz
from attnviz.errors import CheckpointError, UnknownSoundWarning
from attnviz.models.pipelines import AuffusionPipeline
from attnviz.models.pipelines.known_sounds import read_known_sounds, warn_of_unknown_sounds
from attnviz.scenes import PHRASES
from attnviz.testing import write_adapter_checkpoint

KNOWN = {name: phrases.stems for name, phrases in PHRASES.items()}


@pytest.mark.parametrize(
    "prompt", ["a violin plays", "a crowd cheers", "a train passes", "seagulls call", "fireworks"]
)
def test_a_prompt_with_none_of_the_sounds_warns_and_names_them(prompt):
    with pytest.warns(UnknownSoundWarning, match="It knows 10: Dog bark, Rain") as caught:
        warn_of_unknown_sounds([prompt], KNOWN)
    assert prompt in str(caught[0].message)


def test_a_misspelt_sound_is_guessed():
    with pytest.warns(UnknownSoundWarning, match="Did you mean 'rooster' by 'roster'"):
        warn_of_unknown_sounds(["a roster"], KNOWN)
    with pytest.warns(UnknownSoundWarning) as caught:
        warn_of_unknown_sounds(["a violin"], KNOWN)
    assert "Did you mean" not in str(caught[0].message)
    assert "For other sounds, load a published checkpoint, such as auffusion/auffusion." in str(caught[0].message)


@pytest.mark.parametrize("sound", PHRASES)
def test_every_phrase_of_every_sound_is_known(sound):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unknown_sounds([*PHRASES[sound].clauses, *PHRASES[sound].nouns], {sound: PHRASES[sound].stems})


def test_one_known_sound_is_enough_and_capitals_do_not_matter():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unknown_sounds(["A violin plays while DOGS bark"], KNOWN)
        warn_of_unknown_sounds(["a violin"], None)


@pytest.fixture
def knowing(tmp_path):
    folder = tmp_path / "model"
    write_adapter_checkpoint(folder, seed=0)
    (folder / "sounds.json").write_text(json.dumps({"Dog bark": ["dog", "bark"]}))
    return folder


def test_the_pipeline_warns_once_a_call_and_keeps_the_file(knowing, tmp_path):
    pipe = attnviz.load(knowing)
    pipe.set_progress_bar_config(disable=True)
    with pytest.warns(UnknownSoundWarning) as caught:
        pipe(["a violin", "a dog"], num_inference_steps=1, output_type="latent")
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnknownSoundWarning)
        pipe("a dog", negative_prompt="a violin", num_inference_steps=1, output_type="latent")
    assert AuffusionPipeline.from_pipe(pipe).known_sounds == pipe.known_sounds
    pipe.save_pretrained(tmp_path / "again")
    assert read_known_sounds(tmp_path / "again") == {"Dog bark": ("dog", "bark")}
    pipe.save_pretrained(tmp_path / "again", overwrite=True)  # the file is one of a checkpoint's


@pytest.mark.parametrize(
    "content", ["[]", "{", "{}", '{"Dog": []}', '{"Dog": "dog"}', '{"Dog": [""]}', '{"Dog": [3]}']
)
def test_a_file_that_names_no_sounds_is_refused(content, knowing):
    (knowing / "sounds.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"sounds\.json"):
        attnviz.load(knowing)
