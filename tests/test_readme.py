"""The README's Python examples run, on the bundled model."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import numpy as np

from attnviz.audio import write_wav

README = Path(__file__).parents[1] / "README.md"


def test_python_examples(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    code = "\n".join(blocks)
    # A few seconds instead of minutes: fewer steps, a narrower spectrogram.
    code = code.replace("num_inference_steps=50", "num_inference_steps=1, width=256, guidance_scale=1")
    code = code.replace("strength=0.6", "strength=0.6, num_inference_steps=2, width=448, guidance_scale=1")
    code = code.replace("span=(2.0, 4.5)", "span=(1.0, 1.5), num_inference_steps=1, width=448, guidance_scale=1")
    assert code.count("width=") == 3
    monkeypatch.chdir(tmp_path)
    before = dict(mpl.rcParams)
    write_wav("dog.wav", np.sin(np.arange(48_000) / 5) * np.exp(-np.arange(48_000) / 9000))
    scope: dict = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert scope["heat"].dims == ("freq", "time")
    assert scope["when"].dims == ("time",)
    assert {path.name for path in tmp_path.iterdir()} == {"dog.wav", "dog.zarr", "dog.png"}
    assert dict(mpl.rcParams) == before
