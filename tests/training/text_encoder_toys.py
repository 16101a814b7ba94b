"""Scenes of bright bands and configurations of tiny text encoders."""

from __future__ import annotations

import numpy as np
import torch

from attnviz.scenes import CLASSES
from attnviz.scenes.captions import Heard, write_caption
from attnviz.training.config import TrainingConfig
from attnviz.training.scene_store import SceneStore

CPU = torch.device("cpu")
KINDS = ("clip", "clap", "t5", "bert")
TINY = {"vocabulary": 560, "hidden_size": 16, "layers": 1, "heads": 2, "cross_attention_dim": 12}
SOUND = {
    "clip": {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "patch_size": 64},
    "clap": {
        "patch_embeds_hidden_size": 16,
        "depths": [1],
        "num_attention_heads": [2],
        "patch_size": 32,
        "patch_stride": [32, 32],
    },
}


COLUMNS = 768  # pictures of 256 x 384; CLAP stretches its spectrograms to 1024 frames


def scenes_of(count: int, columns: int = COLUMNS) -> SceneStore:
    """Scenes of one sound each, drawn as a bright band of its own."""
    rng = np.random.default_rng(3)
    images = (0.1 * rng.random((count, 256, columns))).astype(np.float16)
    sounds = []
    for i in range(count):
        name = CLASSES[i % len(CLASSES)]
        images[i, 24 * (i % len(CLASSES)) :][:20, 30 * (i // len(CLASSES)) :] = 0.9
        sounds.append([{"class": name, "label": name, "span": [0, 1], "onset": 1.0, "offset": 2.0}])
    captions = [
        write_caption([Heard(s[0]["class"], 1.0, 2.0)], np.random.default_rng(i))[0] for i, s in enumerate(sounds)
    ]
    activity = np.zeros((count, len(CLASSES), columns), dtype=bool)
    return SceneStore(images, np.zeros((count, 16), dtype=np.int16), activity, captions, sounds, "bands")


def text_config(kind, *, model=None, objective=None, **changes):
    made = {**TINY, **({"sound_encoder": SOUND[kind]} if kind in SOUND else {}), **(model or {})}
    return TrainingConfig.from_dict(
        {
            "part": "text",
            "steps": 3,
            "batch_size": 4,
            "learning_rate": 3e-3,
            "checkpoint_every": 2,
            "sample_every": 3,
            "log_every": 1,
            "seed": 2,
            "data": {"folds": [1], "scenes": 10, "validation_folds": [4], "validation_scenes": 10},
            "model": made,
            "objective": {"kind": kind, **(objective or {})},
            **changes,
        }
    )
