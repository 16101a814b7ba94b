"""The model that ships with the package: whole, small, of the folds it says, and its maps mean something."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

import attnviz
from attnviz import bundled
from attnviz.cli.app import app
from attnviz.cli.doctor import licence
from attnviz.errors import UnknownSoundWarning
from attnviz.maps import FittedReadout
from attnviz.models.pipelines import AuffusionPipeline
from attnviz.scenes import PHRASES, ComposerConfig, read_esc10, scenes

ESC10 = Path(__file__).parents[2] / "shared" / "data" / "esc10"
PARTS = ["condition_adapter_0", "listener", "scheduler", "text_encoder_0", "training", "unet", "vae", "vocoder"]


@pytest.fixture(scope="module")
def pipe() -> AuffusionPipeline:
    pipe = attnviz.load()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_every_part_is_there_in_half_precision_within_40_mb():
    assert sorted(path.name for path in bundled.FOLDER.iterdir() if path.is_dir() and path.name[0] != "_") == PARTS
    files = sorted(bundled.FOLDER.rglob("*.safetensors"))
    assert {path.parent.name for path in files} == {*PARTS} - {"scheduler", "training"}
    for path in files:
        tensors = safetensors.torch.load_file(path)
        assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float16}, path
    assert sum(path.stat().st_size for path in bundled.FOLDER.rglob("*") if path.is_file()) <= 40e6
    assert not [path for kind in ("*.bin", "*.pt", "*.pkl", "*.ckpt") for path in bundled.FOLDER.rglob(kind)]


def test_clips_it_was_trained_on_are_listed_with_author_and_licence_and_are_of_folds_1_to_3():
    with (bundled.FOLDER / "ATTRIBUTION.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 240
    assert all(row["licence"] and row["author"] for row in rows)
    assert {row["fold"] for row in rows} == {"1", "2", "3"}


def test_its_licence_is_found_where_that_of_any_checkpoint_is():
    assert licence(bundled.FOLDER) == "apache-2.0 (from README.md)"


def test_it_generates_and_every_layer_is_mapped(pipe):
    audios = []
    for _ in range(2):
        with attnviz.trace(pipe) as trace:
            generator = torch.Generator().manual_seed(3)
            out = pipe("a dog barks, then rain falls", num_inference_steps=3, generator=generator)
        audios.append(out.audios[0])
    np.testing.assert_array_equal(*audios)
    assert audios[0].shape == (160_000,)
    assert 1e-3 < np.abs(audios[0]).max() <= 1
    maps = trace.maps
    assert len(maps.layers) == sum(name.endswith("attn2") for name, _ in pipe.unet.named_modules()) == 5
    assert maps.provenance["model"] == "bundled"
    assert maps.heatmap("dog barks").dims == ("freq", "time")
    # Fitted on layers alone, so that it reads what is kept by default.
    assert not np.array_equal(maps.activation("rain", readout="fitted"), maps.activation("rain"))
    shapes = {maps[layer].sizes["time"] / maps[layer].sizes["freq"] for layer in maps.layers}
    assert shapes == {4.0}  # 16 x 64 and its halves: never a square


def test_words_of_different_sounds_stand_apart(pipe):
    """They had grown together once, unnoticed: waves, a chainsaw and rain were then drawn alike."""
    captions = [phrases.clauses[0] for phrases in PHRASES.values()]
    with torch.no_grad():
        keys = pipe.encode_prompt(captions, torch.device("cpu"), 1, False)[0]
    tables = [pipe.conditioner.token_table(caption).rows for caption in captions]
    last = [int((table["kind"] == "text").to_numpy().nonzero()[0][-1]) for table in tables]
    words = torch.nn.functional.normalize(torch.stack([keys[i, at] for i, at in enumerate(last)]), dim=1)
    cosines = words @ words.T - 2 * torch.eye(len(words))
    assert cosines.max() < 0.6


@pytest.mark.parametrize(
    ("one", "other"), [("a dog barks", "rain falls"), ("a rooster crows", "a helicopter flies")]
)
def test_the_order_of_a_prompt_is_in_the_first_prediction(pipe, one, other):
    """Two prompts that differ in their order alone were once told apart alike in every column, or not at all."""
    last = pipe.scheduler.config.num_train_timesteps - 1
    noise = torch.randn(4, 8, 16, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        keys = pipe.encode_prompt([f"{one}, then {other}", f"{other}, then {one}"], noise.device, 1, False)[0]
        first, second = (
            -pipe.unet(noise, last, encoder_hidden_states=each.expand(4, -1, -1)).sample.mean(0) for each in keys
        )
    difference = (first - second).flatten(0, 1)  # of the clean latents: all that is left of a velocity there
    halves = [part.mean(1) for part in difference.split(32, dim=1)]
    # What one half has more of, the other has less of.
    assert torch.nn.functional.cosine_similarity(*halves, dim=0) < -0.5


def test_what_was_measured_of_it_ships_along():
    quality = json.loads((bundled.FOLDER / "listener" / "quality.json").read_text(encoding="utf-8"))
    assert quality["fold"] == 4
    assert 0 < quality["psds1"] < quality["frame_map"] < 1
    readout = FittedReadout.load(bundled.FOLDER / "readout.json")
    assert readout.provenance["model"] == bundled.NAME


def test_a_prompt_without_any_of_its_sounds_warns_and_names_them(pipe):
    with pytest.warns(UnknownSoundWarning) as caught:
        pipe("a violin plays", num_inference_steps=1)
    said = " ".join(str(warning.message) for warning in caught)
    assert all(name.lower() in said.lower() for name in PHRASES)


def test_generate_needs_no_model_to_be_named(tmp_path):
    out = tmp_path / "run"
    result = CliRunner().invoke(app, ["generate", "a dog barks", "--out", str(out), "--steps", "2"])
    assert result.exit_code == 0, result.output
    assert json.loads((out / "run.json").read_text())["provenance"]["model"] == "bundled"
    assert (out / "words.png").stat().st_size > 10_000


@pytest.mark.skipif(not ESC10.is_dir(), reason="ESC-10 is not beside the checkout")
def test_words_light_up_while_their_sounds_are_there(pipe):
    # Scenes of recordings it has seen: this finds a transposed or a stale file, benchmarks/bundled.py measures.
    scores = []
    for scene in scenes(read_esc10(ESC10, folds=[1]), 6, 11, ComposerConfig(events=(2, 2))):
        maps = attnviz.explain(pipe, scene.mixture, scene.caption, timesteps=(200,), draws=2, normalize=False)
        for sound, activity in zip(scene.sounds, scene.activity(64).values, strict=True):
            active = activity >= 0.5
            curve = maps.activation(sound.span).values
            if active.any() and not active.all():
                scores.append(roc_auc_score(active, curve))
    assert len(scores) >= 8
    assert np.mean(scores) > 0.7


def test_inpainting_keeps_the_rest_with_eight_latent_channels(pipe):
    inpaint = attnviz.AuffusionInpaintPipeline.from_pipe(pipe)
    inpaint.set_progress_bar_config(disable=True)
    clip = np.sin(np.arange(48_000) / 5) * np.exp(-np.arange(48_000) / 9000)
    latents = [
        inpaint(
            prompt, clip, span=(1.0, 2.0), width=448, num_inference_steps=2, output_type="latent",
            generator=torch.Generator().manual_seed(0),
        ).latents
        for prompt in ("rain falls", "a rooster crows")
    ]  # fmt: skip
    assert latents[0].shape == (1, 8, 16, 28)
    kept = [*range(6), *range(13, 28)]  # columns of 160 ms that begin outside 1-2 s
    assert torch.equal(latents[0][..., kept], latents[1][..., kept])
    assert not torch.equal(latents[0][..., 7:12], latents[1][..., 7:12])
    assert pipe.unet.config.in_channels == 8
