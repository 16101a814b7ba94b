"""attnviz: which sound each word of a prompt made, when and at which frequencies."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from attnviz.api import align, explain, listen, load, read_events, trace
    from attnviz.diagnosis import diagnose
    from attnviz.errors import AttnVizError, AttnVizWarning
    from attnviz.maps import AttentionMaps
    from attnviz.pipelines import (
        AuffusionAudioToAudioPipeline,
        AuffusionInpaintPipeline,
        AuffusionOutput,
        AuffusionPipeline,
    )

# Resolved on first use, so that `import attnviz` and the command line's --help need not wait for torch.
_HOMES = {
    "align": "attnviz.api",
    "diagnose": "attnviz.diagnosis",
    "explain": "attnviz.api",
    "listen": "attnviz.api",
    "load": "attnviz.api",
    "read_events": "attnviz.events",
    "trace": "attnviz.api",
    "AttentionMaps": "attnviz.maps",
    "AttnVizError": "attnviz.errors",
    "AttnVizWarning": "attnviz.errors",
    "AuffusionAudioToAudioPipeline": "attnviz.pipelines",
    "AuffusionInpaintPipeline": "attnviz.pipelines",
    "AuffusionOutput": "attnviz.pipelines",
    "AuffusionPipeline": "attnviz.pipelines",
}

__all__ = [
    "AttentionMaps",
    "AttnVizError",
    "AttnVizWarning",
    "AuffusionAudioToAudioPipeline",
    "AuffusionInpaintPipeline",
    "AuffusionOutput",
    "AuffusionPipeline",
    "align",
    "diagnose",
    "explain",
    "listen",
    "load",
    "read_events",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'attnviz' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
