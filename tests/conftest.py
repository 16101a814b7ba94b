"""Fixtures every room's tests share."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import hypothesis
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import UNet2DConditionModel

import attnviz
from attnviz.models.pipelines import AuffusionPipeline
from attnviz.testing import write_adapter_checkpoint, write_plain_checkpoint
from attnviz.testing.models import UNET_CONFIG

# An example's time is the machine's, not the code's: no test is to fail because another one ran beside it.
hypothesis.settings.register_profile("attnviz", deadline=None)
hypothesis.settings.load_profile("attnviz")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(3600))


def pytest_collection_finish() -> None:
    """Exclude all modules and tests from garbage collection, which would traverse them again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_precision_is_left():
    """Reset accelerate, which keeps the precision of a process's first training, as its own tests do."""
    yield
    if AcceleratorState._shared_state:
        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def _threads_are_as_they_were():
    """Fail a test that changes PyTorch's threads: workers with more than their own slow each other down."""
    before = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    yield
    after = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(before[0])
    assert after == before


def _beside_the_checkout(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"shared/{name} is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Reference numbers of the authors' code, where they are found beside the checkout."""
    return _beside_the_checkout("golden")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real recordings and annotation files, where they are found beside the checkout."""
    return _beside_the_checkout("data")


@pytest.fixture(scope="session")
def adapter_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint in the adapter layout, one encoder, files as published."""
    return write_adapter_checkpoint(tmp_path_factory.mktemp("checkpoints") / "adapter")


@pytest.fixture(scope="session")
def loaded_once(adapter_checkpoint: Path) -> AuffusionPipeline:
    """The pipeline of `adapter_checkpoint`, for copies: loading it takes three times as long as copying it."""
    return attnviz.load(adapter_checkpoint)


@pytest.fixture(scope="session")
def two_encoder_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint in the adapter layout with a CLIP and a T5 encoder."""
    return write_adapter_checkpoint(tmp_path_factory.mktemp("checkpoints") / "two", encoders=("clip", "t5"))


@pytest.fixture(scope="session")
def plain_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint in the plain Stable Diffusion layout, with a vocoder beside it."""
    return write_plain_checkpoint(tmp_path_factory.mktemp("checkpoints") / "plain")


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with few layers, none at the finest level: a denoiser call takes little."""
    folder = write_adapter_checkpoint(tmp_path_factory.mktemp("checkpoints") / "small", published=False)
    down = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    config = {
        **UNET_CONFIG, "block_out_channels": (8, 16, 16), "layers_per_block": 1, "attention_head_dim": 2,
        "norm_num_groups": 4, "down_block_types": down, "cross_attention_dim": 24,
        "up_block_types": tuple(name.replace("Down", "Up") for name in reversed(down)),
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        UNet2DConditionModel(**config).save_pretrained(folder / "unet")
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
