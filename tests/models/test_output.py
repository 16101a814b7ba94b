"""What a pipeline returns can be written and played without knowing its rate by heart."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest
import soundfile

import attnviz
from attnviz import AuffusionOutput
from attnviz.errors import AudioError, OutputError


def test_audio_is_written_at_its_rate(tmp_path):
    first, second = (np.sin(np.linspace(0, 99, 8_000) * pitch).astype(np.float32) for pitch in (1, 2))
    out = AuffusionOutput(audios=[first, second])
    assert out.save(tmp_path / "dog.wav", 1) == tmp_path / "dog.wav"
    audio, rate = soundfile.read(tmp_path / "dog.wav")
    assert rate == out.sampling_rate == 16_000
    np.testing.assert_allclose(audio, second, atol=1e-4)
    with pytest.raises(OutputError, match="exists already"):
        out.save(tmp_path / "dog.wav")
    np.testing.assert_allclose(soundfile.read(tmp_path / "dog.wav")[0], second, atol=1e-4)
    assert out.save(str(tmp_path / "dog.wav"), overwrite=True).exists()
    np.testing.assert_allclose(soundfile.read(tmp_path / "dog.wav")[0], first, atol=1e-4)


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(AudioError, match="no waveform 1; there are 1"):
        AuffusionOutput(audios=[np.zeros(9, dtype=np.float32)]).save(tmp_path / "a.wav", 1)
    with pytest.raises(AudioError, match="output_type"):
        AuffusionOutput().save(tmp_path / "a.wav")
    with pytest.raises(OutputError, match="no folder"):
        AuffusionOutput(audios=[np.zeros(9, dtype=np.float32)]).save(tmp_path / "none" / "a.wav")
    assert not list(tmp_path.iterdir())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        AuffusionOutput(audios=[np.zeros(9, dtype=np.float32)]).save(tmp_path / "notes.txt", overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_result_is_shown_in_a_line():
    out = AuffusionOutput(audios=[np.zeros(9, dtype=np.float32)] * 2, images=np.zeros((2, 256, 1024), np.float32))
    assert repr(out) == (
        "AuffusionOutput(audios=<list of 2: <ndarray of shape (9,)>, ...>, spectrograms=None, "
        "images=<ndarray of shape (2, 256, 1024)>, latents=None)"
    )


ARRAYS = r"ndarray|DataFrame|DataArray|Tensor|Draws|AttentionMaps"


def public_classes():
    rooms = [one.name for one in pkgutil.iter_modules(attnviz.__path__) if one.ispkg]
    modules = [importlib.import_module(f"attnviz.{room}") for room in rooms]
    public = (getattr(module, name) for module in modules for name in getattr(module, "__all__", ()))
    return {one for one in public if isinstance(one, type)}


def test_no_public_result_prints_its_arrays():
    inner = ("attnviz.capture.", "attnviz.maps.layer")  # what capture hands over is no result of a user's call
    found = [one for one in public_classes() if dataclasses.is_dataclass(one)]
    found = [one for one in found if not one.__module__.startswith(inner)]
    held = [one for one in found if any(re.search(ARRAYS, str(field.type)) for field in dataclasses.fields(one))]
    assert len(held) >= 10
    for one in held:
        assert not hasattr(one.__repr__, "__wrapped__"), f"{one} has dataclasses' repr, which prints whole arrays"


def test_saving_never_replaces_unasked():
    """One rule for every public `save`."""
    savers = [one.save for one in public_classes() if callable(getattr(one, "save", None))]
    assert len(savers) >= 5
    for save in savers:
        assert inspect.signature(save).parameters["overwrite"].default is False, save.__qualname__
