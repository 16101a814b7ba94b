from __future__ import annotations

import pytest
from scenes.synthetic_scenes import library, write_layout


@pytest.fixture(scope="session")
def recordings():
    return library()


@pytest.fixture(scope="session")
def three_classes(tmp_path_factory):
    """A folder in the published layout with three classes; to be read, not written to."""
    return write_layout(tmp_path_factory.mktemp("esc10") / "three")
