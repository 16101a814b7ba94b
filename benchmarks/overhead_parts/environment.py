"""Describe the environment of the measurements: processor, libraries and code, without host names and paths."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from overhead_parts.settings import Settings
from overhead_parts.tools import TOOLS

ROOT = Path(__file__).parents[2]
_LIBRARIES = ("diffusers", "transformers", "numpy")


def describe(settings: Settings) -> dict[str, Any]:
    """Return properties of the environment of the tools as JSON-serialisable values."""
    cuda = settings.device == "cuda"
    return {
        "processor": _processor(),
        "cores": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if cuda else "",
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{library: metadata.version(library) for library in _LIBRARIES},
        "tools": {name: TOOLS[name].version for name in settings.tools},
        "shims": {name: list(TOOLS[name].shims) for name in settings.tools if TOOLS[name].shims},
        "code": code_digest(),
    }


def code_digest() -> str:
    """Return a short digest of the source of attnviz and the benchmark, so that runs are not mixed."""
    digest = hashlib.sha256()
    for folder in (ROOT / "attnviz", ROOT / "benchmarks" / "harness", Path(__file__).parent):
        for file in sorted(folder.rglob("*.py")):
            digest.update(file.relative_to(ROOT).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
