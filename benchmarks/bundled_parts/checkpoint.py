"""Size of a checkpoint, and time of a generation with cold and warm start."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from harness import Model

from attnviz.cli.jobs import Generation
from attnviz.models.pipelines.sampling import Sampling
from attnviz.report.run_folder import save_run
from bundled_parts.settings import Settings

_PROMPT = "a dog barks, then rain falls"


def speed_rows(model: Model, settings: Settings) -> list[dict[str, Any]]:
    """Time `attnviz generate` in a new process, and the same work with the model loaded; medians of rounds."""
    _ = model.pipe  # loaded before the clock starts
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
                *([] if settings.speed_steps is None else ["--steps", str(settings.speed_steps)]),
            ]
            start = perf_counter()
            command += ["--model", model.name] if model.name else []
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"attnviz generate ended with {done.returncode}:\n{done.stderr}")
            cold.append(perf_counter() - start)
            start = perf_counter()
            request = Generation(_PROMPT, Sampling(settings.speed_steps, round_)).settled(model.pipe.recommended)
            audio, log_mel, maps = request.run(model.pipe)
            save_run(out, audio, log_mel, maps, {}, overwrite=True)
            warm.append(perf_counter() - start)
    return [
        {"name": "generate, cold start, s", "value": sorted(cold)[len(cold) // 2]},
        {"name": "generate, warm, s", "value": sorted(warm)[len(warm) // 2]},
        {"name": "cores", "value": torch.get_num_threads()},
    ]


def size_rows(model: Path) -> list[dict[str, Any]]:
    """Return the size in megabytes (10^6 bytes) of each folder of a checkpoint, and in total."""
    sizes = {
        folder.name: sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        for folder in sorted(model.iterdir())
        if folder.is_dir() and folder.name != "__pycache__"
    }
    sizes["all parts"] = sum(sizes.values())
    return [{"name": name, "value": size / 1e6} for name, size in sizes.items()]
