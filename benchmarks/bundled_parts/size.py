"""Sizes of the parts of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def size_rows(model: Path) -> list[dict[str, Any]]:
    """Return the size in megabytes (10^6 bytes) of each folder of a checkpoint, and in total."""
    sizes = {
        folder.name: sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        for folder in sorted(model.iterdir())
        if folder.is_dir() and folder.name != "__pycache__"
    }
    sizes["all parts"] = sum(sizes.values())
    return [{"name": name, "value": size / 1e6} for name, size in sizes.items()]
