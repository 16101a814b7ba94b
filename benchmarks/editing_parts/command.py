"""Swaps with the command line: `attnviz edit swap SOURCE TARGET`, without other settings than the seed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from harness import Model
from typer.testing import CliRunner

from attnviz.audio import load_audio
from attnviz.audio.levels import loudest_level
from attnviz.cli.app import app
from editing_parts.settings import Settings
from editing_parts.tasks import Task


def command_rows(model: Model, task: Task, settings: Settings, number: int) -> list[dict[str, Any]]:
    """Run the swap of one task with the command line in this process, and run the listener on its audio."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = ["edit", "swap", task.edit.source, task.edit.target, "--out", str(out)]
        command += ["--seed", str(settings.seed_of("swap", number))]
        command += ["--model", model.name] if model.name else []
        command += [] if settings.steps is None else ["--steps", str(settings.steps)]
        done = CliRunner().invoke(app, command)
        if done.exit_code:
            raise SystemExit(f"attnviz {' '.join(command)} ended with {done.exit_code}:\n{done.output}")
        audio = load_audio(out / "audio.wav")
    heard = model.listen(audio)
    return [
        {
            "case": number,
            "source": task.edit.source,
            "target": task.edit.target,
            "new": task.new,
            "new heard": heard.onset(str(task.new)) is not None,
            "new peak": float(heard.peaks.sel(sound=task.new)),
            "level, dBFS": loudest_level(audio),
        }
    ]
