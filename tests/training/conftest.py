from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training.text_encoder_toys import KINDS, scenes_of, text_config
from training.training_toys import ToyPart, toy_scenes

from attnviz.audio import log_mel, mel_to_image
from attnviz.training import loop
from attnviz.training.scene_store import SceneStore
from attnviz.training.text import TextPart


@pytest.fixture
def toy_training(monkeypatch, tmp_path):
    """Return a function that trains the toy in a folder; it leaves the part it trained in `parts`."""
    scenes = toy_scenes()
    parts = []

    def train(config, name="run", *, noisy=True, before_batch=None, held_out=False, **options):
        def make_part(config, *_):
            parts.append(ToyPart(config, noisy=noisy))
            parts[-1].before_batch = before_batch or parts[-1].before_batch
            return parts[-1]

        monkeypatch.setattr(loop, "make_part", make_part)
        monkeypatch.setattr(loop, "open_scenes", lambda *_: (scenes, scenes if held_out else None))
        return loop.train(config, esc10=tmp_path, out=tmp_path / name, cache=tmp_path / "cache", **options)

    train.parts = parts
    return train


@pytest.fixture
def run_script(tmp_path):
    """Return a function that runs a script in a process of its own and returns what it printed."""
    root = Path(__file__).resolve().parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root / "tests"), str(root)]),
        "ACCELERATE_USE_CPU": "1",
        "OMP_NUM_THREADS": "1",
    }

    def run(text, argument, launcher=()):
        script = tmp_path / "script.py"
        script.write_text(text)
        finished = subprocess.run(
            [sys.executable, *launcher, script, argument],
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    return run


@pytest.fixture(scope="session")
def banded_scenes():
    return scenes_of(10)


@pytest.fixture(scope="session")
def exported(tmp_path_factory, banded_scenes):
    """The model folder of an untrained encoder of each kind."""
    root = tmp_path_factory.mktemp("encoders")
    for kind in KINDS:
        torch.manual_seed(KINDS.index(kind))
        TextPart(text_config(kind), banded_scenes, root / "cache").export(root / kind)
    return root


@pytest.fixture(scope="session")
def scenes():
    """Three scenes of 10.24 s: tones in noise, so that images and audio belong together."""
    rng = np.random.default_rng(11)
    time = np.arange(163_840) / 16_000
    audio = np.stack([0.1 * np.sin(2 * np.pi * f * time) * (time > 3) for f in (300, 900, 2500)])
    audio = (audio + 0.003 * rng.standard_normal(audio.shape)).astype(np.float32)
    activity = np.zeros((3, 10, 1024), dtype=bool)
    activity[:, 0, 300:] = True
    sound = {"class": "Dog bark", "label": "a dog barks", "span": [0, 11], "onset": 3.0, "offset": 10.24}
    return SceneStore(
        images=np.stack([mel_to_image(log_mel(wave)) for wave in audio]).astype(np.float16),
        audio=np.round(audio * 32768).astype(np.int16),
        activity=activity,
        captions=["a dog barks"] * 3,
        sounds=[[sound]] * 3,
        name="tones",
    )
