"""attnviz: map each word of a prompt to the time and frequency of its sound.

Submodules are imported on first use: ``attnviz.plots`` works after ``import attnviz``. attnviz logs under the name
``attnviz``: ``logging.basicConfig(); logging.getLogger("attnviz").setLevel("INFO")`` shows the messages.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import pkgutil
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from attnviz.api import align, explain, listen, load, read_events, trace
    from attnviz.corpus import Corpus
    from attnviz.diagnosis import diagnose
    from attnviz.errors import AttnVizError, AttnVizWarning
    from attnviz.maps import AttentionMaps
    from attnviz.models.pipelines import (
        AuffusionAudioToAudioPipeline,
        AuffusionInpaintPipeline,
        AuffusionOutput,
        AuffusionPipeline,
    )
    from attnviz.report import explore
    from attnviz.separation import solo

logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent unless the caller configures logging
# transformers warns, wherever torchvision is not installed, of image processors that attnviz does not use.
logging.getLogger("transformers.utils.import_utils").addFilter(
    lambda record: "requires torchvision" not in record.getMessage()
)

# Resolved on first use, so that `import attnviz` and the command line's --help do not wait for torch.
_HOMES = {
    "align": "attnviz.api",
    "diagnose": "attnviz.diagnosis",
    "explain": "attnviz.api",
    "explore": "attnviz.report",
    "listen": "attnviz.api",
    "load": "attnviz.api",
    "read_events": "attnviz.events",
    "solo": "attnviz.separation",
    "trace": "attnviz.api",
    "AttentionMaps": "attnviz.maps",
    "Corpus": "attnviz.corpus",
    "AttnVizError": "attnviz.errors",
    "AttnVizWarning": "attnviz.errors",
    "AuffusionAudioToAudioPipeline": "attnviz.models.pipelines",
    "AuffusionInpaintPipeline": "attnviz.models.pipelines",
    "AuffusionOutput": "attnviz.models.pipelines",
    "AuffusionPipeline": "attnviz.models.pipelines",
}

__all__ = [
    "AttentionMaps",
    "AttnVizError",
    "AttnVizWarning",
    "AuffusionAudioToAudioPipeline",
    "AuffusionInpaintPipeline",
    "AuffusionOutput",
    "AuffusionPipeline",
    "Corpus",
    "align",
    "diagnose",
    "explain",
    "explore",
    "listen",
    "load",
    "read_events",
    "solo",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    submodules = (module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return sorted({*globals(), *__all__, *submodules})
