"""Fixtures every room's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

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
