"""Fixtures every room's tests share."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest
import torch

from attnviz.testing import write_adapter_checkpoint, write_plain_checkpoint

# An example's time is the machine's, not the code's: no test is to fail because another one ran beside it.
hypothesis.settings.register_profile("attnviz", deadline=None)
hypothesis.settings.load_profile("attnviz")

SHARED = Path(__file__).resolve().parents[2] / "shared"


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
def two_encoder_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint in the adapter layout with a CLIP and a T5 encoder."""
    return write_adapter_checkpoint(tmp_path_factory.mktemp("checkpoints") / "two", encoders=("clip", "t5"))


@pytest.fixture(scope="session")
def plain_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint in the plain Stable Diffusion layout, with a vocoder beside it."""
    return write_plain_checkpoint(tmp_path_factory.mktemp("checkpoints") / "plain")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
