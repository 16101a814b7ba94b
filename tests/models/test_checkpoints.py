"""Reading and writing checkpoints: both layouts, the hub's cache, damage of every kind."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

import attnviz
from attnviz.errors import AttnVizError, AttnVizWarning, AudioError, CheckpointError, OutputError, PromptError
from attnviz.models.pipelines import (
    AuffusionAudioToAudioPipeline,
    AuffusionInpaintPipeline,
    AuffusionPipeline,
    checkpoints,
)
from attnviz.testing import write_adapter_checkpoint

LAYOUTS = ["adapter_checkpoint", "two_encoder_checkpoint", "plain_checkpoint"]


def tensors(pipe):
    found = {}
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            found |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
    return found


@pytest.fixture
def checkpoint(request, tmp_path):
    """A copy that a test may damage."""
    source = request.getfixturevalue(getattr(request, "param", "adapter_checkpoint"))
    return shutil.copytree(source, tmp_path / "checkpoint")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_saved_and_loaded_again_gives_the_same_tensors(layout, request, tmp_path):
    pipe = attnviz.load(request.getfixturevalue(layout))
    pipe.save_pretrained(tmp_path / "saved")
    again = attnviz.load(tmp_path / "saved")
    before, after = tensors(pipe), tensors(again)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert again.scheduler.config == pipe.scheduler.config or dict(again.scheduler.config) == dict(
        pipe.scheduler.config
    )
    assert not list((tmp_path / "saved").rglob("*.bin")) + list((tmp_path / "saved").rglob("*.pt"))
    with torch.no_grad():
        assert torch.equal(again.encode_prompt("a dog barks")[0], pipe.encode_prompt("a dog barks")[0])


def test_published_and_todays_files_hold_the_same(tmp_path):
    old = write_adapter_checkpoint(tmp_path / "old", seed=4, published=True)
    new = write_adapter_checkpoint(tmp_path / "new", seed=4, published=False)
    assert list(old.rglob("*.bin"))
    assert not list(new.rglob("*.bin"))
    before, after = tensors(attnviz.load(old)), tensors(attnviz.load(new))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_saved_plain_layout_opens_in_diffusers(plain_checkpoint, tmp_path):
    pipe = attnviz.load(plain_checkpoint)
    pipe.save_pretrained(tmp_path / "saved")
    other = StableDiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert torch.equal(other.unet.conv_in.weight, pipe.unet.conv_in.weight)


def test_save_refuses_an_existing_folder(adapter_checkpoint, tmp_path):
    pipe = attnviz.load(adapter_checkpoint)
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(OutputError, match="exists already"):
        pipe.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_torch_dtype_reaches_every_part(adapter_checkpoint, dtype):
    pipe = attnviz.load(adapter_checkpoint, torch_dtype=dtype)
    assert {value.dtype for value in tensors(pipe).values() if value.is_floating_point()} == {dtype}


@pytest.mark.parametrize("kind", [AuffusionAudioToAudioPipeline, AuffusionInpaintPipeline])
def test_from_pipe_shares_parts_and_casts_nothing(adapter_checkpoint, kind):
    pipe = attnviz.load(adapter_checkpoint, torch_dtype=torch.bfloat16)
    other = kind.from_pipe(pipe)
    assert other.unet is pipe.unet
    assert other.conditioner is pipe.conditioner
    assert other.vocoder is pipe.vocoder
    assert pipe.unet.dtype == pipe.vae.dtype == pipe.vocoder.dtype == torch.bfloat16
    assert other.config["_name_or_path"] == os.fspath(adapter_checkpoint)


def test_from_pipe_takes_a_plain_pipeline(plain_checkpoint):
    original = StableDiffusionPipeline.from_pretrained(plain_checkpoint, safety_checker=None)
    vocoder = attnviz.load(plain_checkpoint).vocoder
    pipe = AuffusionPipeline.from_pipe(original, vocoder=vocoder)
    assert pipe.unet is original.unet
    assert pipe.vocoder is vocoder


def test_hub_name_is_found_in_the_local_cache(adapter_checkpoint, tmp_path):
    commit = "a" * 40
    repository = tmp_path / "models--someone--tiny"
    shutil.copytree(adapter_checkpoint, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    pipe = attnviz.load("someone/tiny", local_files_only=True, cache_dir=tmp_path)
    assert pipe.config["_name_or_path"] == "someone/tiny"
    assert pipe.config["_revision"] == commit
    pinned = attnviz.load("someone/tiny", revision=commit, local_files_only=True, cache_dir=tmp_path)
    assert pinned.config["_revision"] == commit
    with pytest.raises(CheckpointError, match="someone/other.*local cache"):
        attnviz.load("someone/other", local_files_only=True, cache_dir=tmp_path)
    with pytest.raises(CheckpointError, match="revision v2"):
        attnviz.load("someone/tiny", revision="v2", local_files_only=True, cache_dir=tmp_path)


def hub_error(status):
    response = SimpleNamespace(headers={}, request=None, status_code=status)
    return RepositoryNotFoundError("Repository Not Found", response=response)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (LocalEntryNotFoundError("Got: ConnectError"), "Is this machine offline"),
        (OSError("Name or service not known"), "Is this machine offline"),
        (hub_error(401), "If the repository is gated"),
        (hub_error(404), "Is the name spelled as on the hub"),
        (HFValidationError("Repo id must be ..."), "Is the name spelled as on the hub"),
    ],
)
def test_a_failed_download_says_what_to_do(error, advice, monkeypatch, tmp_path):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr(checkpoints, "snapshot_download", failing)
    with pytest.raises(CheckpointError, match=advice):
        attnviz.load("someone/tiny", cache_dir=tmp_path)


# Damage ----------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["unet", "vae", "scheduler", "text_encoder_0", "condition_adapter_0"])
def test_missing_folder_is_named(checkpoint, folder):
    shutil.rmtree(checkpoint / folder)
    with pytest.raises(CheckpointError, match=folder):
        attnviz.load(checkpoint)


@pytest.mark.parametrize("checkpoint", ["plain_checkpoint"], indirect=True)
@pytest.mark.parametrize("folder", ["unet", "vae", "scheduler", "text_encoder", "tokenizer"])
def test_missing_folder_of_the_plain_layout_is_named(checkpoint, folder):
    shutil.rmtree(checkpoint / folder)
    with pytest.raises(CheckpointError, match=folder):
        attnviz.load(checkpoint)


def test_without_a_vocoder_griffin_lim_makes_the_audio(checkpoint, tmp_path):
    shutil.rmtree(checkpoint / "vocoder")
    with pytest.warns(AttnVizWarning, match="no vocoder, so audio is made by Griffin-Lim"):
        pipe = attnviz.load(checkpoint)
    assert pipe.vocoder is None
    pipe.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again" / "vocoder").exists()


WEIGHTS = [
    "unet/diffusion_pytorch_model.bin",
    "vae/diffusion_pytorch_model.bin",
    "text_encoder_0/pytorch_model.bin",
    "condition_adapter_0/condition_adapter.pt",
    "vocoder/vocoder.pt",
]


@pytest.mark.parametrize("file", WEIGHTS)
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "text"])
def test_damaged_weights_are_named(checkpoint, file, damage):
    path = checkpoint / file
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"not weights"}[damage])
    with pytest.raises(CheckpointError, match=file.split("/", maxsplit=1)[0]):
        attnviz.load(checkpoint)


class _Malice:
    def __init__(self, target):
        self.target = os.fspath(target)

    def __reduce__(self):
        return (os.mkdir, (self.target,))


@pytest.mark.parametrize("file", WEIGHTS)
@pytest.mark.parametrize("container", ["zip", "pickle"])
def test_pickle_with_code_is_refused_and_runs_nothing(checkpoint, tmp_path, file, container):
    trap = tmp_path / "trap"
    content = {"generator": _Malice(trap), "conv_in.weight": _Malice(trap)}
    if container == "zip":
        torch.save(content, checkpoint / file)
    else:
        (checkpoint / file).write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match=file.split("/", maxsplit=1)[0]):
        attnviz.load(checkpoint)
    assert not trap.exists()


@pytest.mark.parametrize("file", WEIGHTS[:2])
def test_missing_tensor_is_refused_not_left_random(checkpoint, file):
    state = torch.load(checkpoint / file, weights_only=True)
    name = sorted(state)[5]
    del state[name]
    torch.save(state, checkpoint / file)
    with pytest.raises(CheckpointError, match="do not fit its config"):
        attnviz.load(checkpoint)


def test_tensor_of_the_wrong_shape_is_refused(checkpoint):
    path = checkpoint / "unet/diffusion_pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    state["conv_in.weight"] = state["conv_in.weight"][:, :3]
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="unet"):
        attnviz.load(checkpoint)


def edit(path, **changes):
    content = json.loads(path.read_text())
    (content[0] if isinstance(content, list) else content).update(changes)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("vocoder/config.json", {"num_mels": 80}, "vocoder"),
        ("vocoder/config.json", {"sampling_rate": 22050}, "22050"),
        ("vocoder/config.json", {"upsample_rates": [5, 4, 4, 4]}, "vocoder"),
        ("scheduler/scheduler_config.json", {"_class_name": "NoSuchScheduler"}, "NoSuchScheduler"),
        ("text_encoder_0/config.json", {"architectures": ["GPT17Model"]}, "GPT17Model"),
        ("condition_config.json", {"cross_attention_dim": 99}, "99"),
        ("unet/config.json", {"cross_attention_dim": 99}, "unet"),
        ("vae/config.json", {"latent_channels": 8}, "vae"),
    ],
)
def test_configuration_that_does_not_fit(checkpoint, file, changes, message):
    edit(checkpoint / file, **changes)
    with pytest.raises(CheckpointError, match=message):
        attnviz.load(checkpoint)


@pytest.mark.parametrize(
    "file", ["condition_config.json", "unet/config.json", "vocoder/config.json", "scheduler/scheduler_config.json"]
)
@pytest.mark.parametrize("content", ["{", "[1, 2]", "", "\x00\x01"])
def test_malformed_json_names_the_file(checkpoint, file, content):
    (checkpoint / file).write_text(content)
    with pytest.raises(CheckpointError, match=file.split("/", maxsplit=1)[0]):
        attnviz.load(checkpoint)


def test_parts_of_two_models_do_not_fit(checkpoint, tmp_path):
    other = write_adapter_checkpoint(tmp_path / "other", cross_attention_dim=40)
    shutil.rmtree(checkpoint / "unet")
    shutil.copytree(other / "unet", checkpoint / "unet")
    with pytest.raises(CheckpointError, match=r"unet/config\.json.*40.*24"):
        attnviz.load(checkpoint)


def test_not_a_checkpoint(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(CheckpointError, match=r"holiday\.jpg"):
        attnviz.load(tmp_path)
    with pytest.raises(CheckpointError, match="no folder"):
        attnviz.load("no such place")
    with pytest.raises(CheckpointError, match="revision"):
        checkpoints.locate(tmp_path, revision="main")


# Bad calls ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipe(adapter_checkpoint):
    return attnviz.load(adapter_checkpoint)


@pytest.fixture
def no_model_runs(pipe, monkeypatch):
    for part in (pipe.unet, pipe.vae, pipe.conditioner, pipe.vocoder):
        monkeypatch.setattr(part, "forward", lambda *a, **k: pytest.fail("a model ran"))
    monkeypatch.setattr(pipe.vae, "encode", lambda *a, **k: pytest.fail("a model ran"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"prompt": ""}, PromptError, "empty"),
        ({"prompt": ["a dog", " \n"]}, PromptError, "empty"),
        ({"prompt": []}, PromptError, "non-empty list"),
        ({"prompt": 3}, PromptError, "not a string"),
        ({"negative_prompt": ["a", "b"]}, PromptError, "2 negative prompts for 1"),
        ({"width": 1023}, AudioError, "1023.*nearest is 1024"),
        ({"width": 0}, AudioError, "width=0"),
        ({"height": 252}, AudioError, "252"),
        ({"height": 128}, AudioError, "256 mel bands"),
        ({"duration": 10_000}, AudioError, "milliseconds"),
        ({"duration": 0}, AudioError, "duration"),
        ({"duration": float("nan")}, AudioError, "duration"),
        ({"output_type": "pil"}, AttnVizError, "'audio'"),
    ],
)
def test_bad_text_to_audio_calls(pipe, no_model_runs, arguments, error, message):
    with pytest.raises(error, match=message):
        pipe(**{"prompt": "a dog", **arguments})


CLIP = torch.rand(48_000, generator=torch.Generator().manual_seed(0)) - 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": 80}, "percent"),
        ({"strength": -0.1}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"strength": 0.001}, "no step"),
        ({"audio": "no such file.wav"}, "no such file"),
        ({"audio": [CLIP, CLIP]}, "2 clips for 1"),
        ({"audio": CLIP[:0]}, "0 samples"),
        ({"audio": CLIP * float("nan")}, "NaN"),
        ({"width": 500}, "500"),
        ({"duration": 11}, "duration"),
    ],
)
def test_bad_audio_to_audio_calls(pipe, no_model_runs, arguments, message):
    style = AuffusionAudioToAudioPipeline.from_pipe(pipe)
    with pytest.raises(AttnVizError, match=message):
        style(**{"prompt": "a dog", "audio": CLIP, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Give the part to regenerate once"),
        ({"span": (0, 1), "mask": torch.zeros(256, 1024)}, "once"),
        ({"span": (2, 1)}, "not inside the clip"),
        ({"span": (1000, 2000)}, "milliseconds"),
        ({"span": (1, 3.5)}, "3 s long"),
        ({"span": (1, 1.001)}, "nothing"),
        ({"mask": torch.zeros(256, 1024)}, "nothing"),
        ({"mask": torch.ones(256, 1024)}, "everything"),
        ({"mask": torch.ones(1024, 256)}, "shape"),
        ({"mask": torch.full((256, 1024), 0.5)}, "other than 0 and 1"),
    ],
)
def test_bad_inpainting_calls(pipe, no_model_runs, arguments, message):
    inpaint = AuffusionInpaintPipeline.from_pipe(pipe)
    with pytest.raises(AttnVizError, match=message):
        inpaint(prompt="a dog", audio=CLIP, **arguments)
