"""Terminals of few characters: nothing that is printed ends a command."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from attnviz.events import event_table, write_tsv
from attnviz.report.run_folder import save_run
from attnviz.report.saved_run import read_saved_run
from attnviz.testing import example_events, example_maps


@pytest.fixture
def run(tmp_path):
    maps, sound = example_maps(), np.zeros(8000, np.float32)
    return save_run(tmp_path / "Hündchen 🐕 Δ", sound, maps.spectrogram[0, 0].to_numpy(), maps, {"attnviz": "0"})


@pytest.mark.parametrize("encoding", [pytest.param("ascii", marks=pytest.mark.slow), "cp1252"])
def test_every_character_is_printed_or_escaped(encoding, run, tmp_path):
    write_tsv(event_table(example_events().assign(clip="Δ🐕.wav")), tmp_path / "events.tsv")
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "80"}
    for command in (["--help"], ["align", run, "--events", tmp_path / "events.tsv"]):
        done = subprocess.run(
            [sys.executable, "-m", "attnviz", *map(str, command)],
            env=environment, capture_output=True, timeout=300, check=False,
        )  # fmt: skip
        output = (done.stdout + done.stderr).decode(encoding)
        assert done.returncode == 0, output
        assert "Traceback" not in output
    assert "\\u0394" in output
    assert read_saved_run(run).scores is not None
