"""Small run folders for the report's tests, made without a model."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from maps.maps_synthetic import SMALL, captured, make, table

from attnviz.audio import SpectrogramGrid
from attnviz.events import event_table
from attnviz.maps import AttentionMaps
from attnviz.report.run_folder import save_run

HOSTILE = (
    "a \"dog\" barks & <b>loud</b> </script><script>window.attacked = 1</script> rain — 🐕‍🦺 'on' "
    "{{program}} ${1} <!-- roof \\u003c  falls"
)
GRID = SpectrogramGrid(height=40, width=400, audio_seconds=3.5)
"""4 s, of which the last half second is padding."""
KEYS = 77


def small_maps(prompt: str = HOSTILE, *, steps: int | None = None, **changes: Any) -> AttentionMaps:
    """Maps of three denoiser calls, averaged or (``steps=3``) kept apart, of every key position."""
    layers = captured(SMALL, steps=steps, tokens=KEYS)
    settings = {"tokens": [table(prompt, keys=KEYS)], "positions": range(KEYS), "grid": GRID}
    return make(layers, **{**settings, **changes})


def sweep(seconds: float = 3.5) -> np.ndarray:
    """A tone that rises, at 16 kHz."""
    time = np.arange(int(16_000 * seconds)) / 16_000
    return (0.4 * np.sin(2 * np.pi * (200 + 300 * time) * time)).astype(np.float32)


def log_mel() -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.normal(-6, 2, size=(GRID.height, GRID.width)).astype(np.float32)


def events() -> pd.DataFrame:
    rows = [
        {"clip": "a.wav", "label": "barks", "onset": 0.5, "offset": 1.25, "low": 500.0, "high": 4000.0},
        {"clip": "a.wav", "label": "rain", "onset": 2.0, "offset": 3.5, "low": None, "high": None},
        {"clip": "a.wav", "label": "a <i>bell</i>", "onset": 0.1, "offset": 0.2, "low": None, "high": None},
        {"clip": "a.wav", "label": "click", "onset": 0.1, "offset": 0.1, "low": None, "high": None},
    ]
    return event_table(rows)


def write_run(folder: Path, maps: AttentionMaps, **parts: Any) -> Path:
    record = {
        "attnviz": "0.1",
        "prompt": maps.prompts[0],
        "seed": 2**63 - 1,
        "model": {"model": "tiny"},
        "warnings": [],
    }
    return save_run(folder, sweep(), log_mel(), maps, record, **parts)


class Parsed(HTMLParser):
    """What a browser's parser would make of a page: its tags, and the text of its scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "title": []}
        self._inside: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in self.texts else None
        if self._inside:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[self._inside][-1] += data

    @property
    def payload(self) -> Any:
        return json.loads(self.texts["script"][0])["runs"][0]

    @property
    def policy(self) -> str:
        (policy,) = (attrs["content"] for tag, attrs in self.tags if attrs.get("http-equiv"))
        assert policy is not None
        return policy


def stored_map(payload: dict[str, Any], readout: int, view: int, item: int) -> tuple[np.ndarray, float]:
    """Read one map back as the page's program does; and half a step of its scale."""
    one = payload["readouts"][readout]
    number = view * len(payload["items"]) + item
    cells = np.frombuffer(base64.b64decode(one["data"]), np.uint8).reshape(-1, one["rows"], one["columns"])
    step = (one["high"][number] - one["low"][number]) / payload["levels"]
    return one["low"][number] + (cells[number].astype(float) - 1) * step, step / 2
