"""How long the command line takes to generate, from a cold start and warm."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import attnviz
from attnviz.pipelines import AuffusionPipeline
from bundled_parts.settings import Settings

_PROMPT = "a dog barks, then rain falls"


def speed_rows(pipe: AuffusionPipeline, settings: Settings, model: str) -> list[dict[str, Any]]:
    """Time `attnviz generate` as a fresh process, and a traced call in this one; medians of rounds."""
    cold, warm = [], []
    for round_ in range(settings.speed_rounds):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            command = [
                sys.executable,
                "-m",
                "attnviz",
                "generate",
                _PROMPT,
                "--out",
                str(out),
                "--steps",
                str(settings.steps),
            ]
            start = perf_counter()
            subprocess.run([*command, *(["--model", model] if model else [])], check=True, capture_output=True)
            cold.append(perf_counter() - start)
        start = perf_counter()
        with attnviz.trace(pipe) as trace:
            pipe(_PROMPT, num_inference_steps=settings.steps, generator=torch.Generator().manual_seed(round_))
        _ = trace.maps.heatmap("dog barks")
        warm.append(perf_counter() - start)
    return [
        {"name": "generate, cold start, s", "value": sorted(cold)[len(cold) // 2]},
        {"name": "generate, warm, s", "value": sorted(warm)[len(warm) // 2]},
        {"name": "cores", "value": torch.get_num_threads()},
    ]
