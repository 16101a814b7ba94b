from __future__ import annotations

import json

import pytest
import torch

from attnviz.errors import AudioError, CheckpointError, OutputError
from attnviz.listener import Listener, ListenerConfig

SMALL = {"channels": (4, 6), "hidden": 5, "mel_bands": 32}


@pytest.fixture
def listener():
    torch.manual_seed(0)
    model = Listener(ListenerConfig(**SMALL))
    model(torch.rand(3, 256, 48))  # so that the batch normalisation's statistics are not those of a new one
    return model.eval()


@pytest.fixture
def folder(listener, tmp_path):
    listener.save_pretrained(tmp_path / "deep" / "listener")
    return tmp_path / "deep" / "listener"


@pytest.mark.parametrize("columns", [4, 52, 1024])
def test_a_frame_is_four_columns(listener, columns):
    with torch.no_grad():
        assert listener(torch.rand(2, 256, columns)).shape == (2, 10, columns // 4)


@pytest.mark.parametrize("shape", [(2, 128, 8), (256, 8), (1, 256, 10), (1, 1, 256, 8)])
def test_other_shapes_are_refused(listener, shape):
    with pytest.raises(AudioError, match="columns a multiple of 4"):
        listener(torch.rand(shape))


def test_what_was_saved_is_what_is_loaded(listener, folder):
    loaded = Listener.from_pretrained(folder)
    assert loaded.config == listener.config
    assert not loaded.training
    state = loaded.state_dict()
    assert set(state) == set(listener.state_dict())
    for name, part in listener.state_dict().items():
        assert state[name].dtype == part.dtype
        assert torch.equal(state[name], part), name
    images = torch.rand(1, 256, 88)
    with torch.no_grad():
        assert torch.equal(loaded(images), listener(images))


def test_a_loaded_listener_can_be_trained_on(folder):
    loaded = Listener.from_pretrained(folder).train()
    loaded(torch.rand(2, 256, 16)).sum().backward()
    assert all(part.grad is not None for part in loaded.parameters())


def test_half_precision_is_loaded_as_float32(listener, tmp_path):
    listener.bfloat16().save_pretrained(tmp_path)
    assert {part.dtype for part in Listener.from_pretrained(tmp_path).parameters()} == {torch.float32}


def _cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def _not_a_number(folder):
    loaded = Listener.from_pretrained(folder)
    loaded.out.bias.data[3] = torch.nan
    loaded.save_pretrained(folder)


def _edit(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "listener.safetensors").unlink(), "listener.safetensors"),
        (lambda folder: _cut(folder / "config.json"), "not contain a readable listener"),
        (lambda folder: _cut(folder / "listener.safetensors"), "not contain a readable listener"),
        (lambda folder: (folder / "config.json").write_text("[]"), "not list"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "listener"),
        (_not_a_number, r"NaN or infinite weights: \['out.bias'\]"),
        (lambda folder: _edit(folder, hidden=6), "does not match"),
        (lambda folder: _edit(folder, hidden=10**7), "does not match"),  # and takes no memory to find out
        (lambda folder: _edit(folder, classes=["one", "two"]), "does not match"),
        (lambda folder: _edit(folder, heads=3), "heads"),
    ],
)
def test_damaged_files_are_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        Listener.from_pretrained(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"classes": []},
        {"classes": "Rain"},
        {"classes": ["Rain", "Rain"]},
        {"classes": ["Rain", 3]},
        {"channels": [16, 0]},
        {"channels": [2] * 7},
        {"hidden": True},
        {"hidden": 1.5},
        {"mel_bands": 48},
        {"time_halvings": 6},
        {"time_halvings": False},
        {"dropout": 1},
        {"dropout": "0.1"},
    ],
)
def test_impossible_configurations_are_refused(values):
    with pytest.raises(CheckpointError, match=next(iter(values)) if values != {"channels": [2] * 7} else "halved"):
        ListenerConfig.from_dict(values)


def test_a_place_that_cannot_be_written(listener, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        listener.save_pretrained(tmp_path / "file" / "listener")
