"""Generate and describe a clip: embedding, classes heard, level, and alignment of its maps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundled_parts.generation import heard_row
from bundled_parts.levels import level
from harness import Model
from harness.material import Prompt, heard_events

import attnviz
from attnviz.evaluation import Embedder, listener_embedder
from attnviz.maps import FittedReadout
from attnviz.scenes import Scene
from sweep_parts.settings import Case, Settings

RATE = 16_000
FITTED = "fitted"


def generated(
    model: Model,
    settings: Settings,
    prompts: Sequence[Prompt],
    readout: Path | None,
    case: Case,
    number: int,
) -> list[dict[str, Any]]:
    """Generate a prompt at one setting, and return its row.

    Returns
    -------
    list of dict
        One row: scale, steps, prompt, what was heard (see `bundled_parts.generation.heard_row`), ``level`` in dB
        of full scale, ``embedding`` and ``logits`` of the listener, and ``auc``: for each method and each phrase
        of the prompt, the ROC-AUC, None if undefined. Methods are the readouts and the energy of the clip.
    """
    prompt = prompts[case.prompt]
    with attnviz.trace(model.pipe) as trace:
        out = model.pipe(
            prompt.text,
            num_inference_steps=case.steps,
            guidance_scale=case.scale,
            guidance_interval=settings.guidance_interval,
            generator=torch.Generator().manual_seed(settings.seed_of(case.prompt)),
            duration=10.24,
        )
    audio = out.audios[0]
    hearing = model.listen(audio)
    events = heard_events(hearing, prompt, f"prompt {case.prompt}")
    row = {
        **case._asdict(),
        **heard_row(hearing, prompt),
        "level": level(audio),
        **_embedded(model, audio),
        "auc": alignment(trace.maps, events, _fitted(readout or model.folder / "readout.json")),
    }
    return [row]


def of_reference(model: Model, scene: Scene, number: int) -> list[dict[str, Any]]:
    """Return the row of a real scene: embedding and logits."""
    return [_embedded(model, scene.mixture.astype(np.float32))]


def alignment(maps: Any, events: Any, fitted: FittedReadout | None) -> dict[str, list[float | None]]:
    """Return the ROC-AUC of each phrase with each readout, and that of the clip's energy."""
    readouts: dict[str, Any] = {"mean": "mean"} | ({} if fitted is None else {FITTED: fitted})
    found: dict[str, list[float | None]] = {}
    for name, readout in readouts.items():
        rows = attnviz.align(maps, events, readout=readout).table
        for method, named in (("map", name), ("energy", "energy")):
            values = rows.loc[rows["method"] == method, "roc_auc"]
            found[named] = [None if np.isnan(value) else float(value) for value in values]
    return found


def _embedded(model: Model, audio: np.ndarray) -> dict[str, list[float]]:
    found = _embedder(model)(audio, RATE)
    return {name: found[name].astype(float).tolist() for name in ("embedding", "logits")}


@cache
def _embedder(model: Model) -> Embedder:
    return listener_embedder(model.listener.listener)


@cache
def _fitted(path: Path) -> FittedReadout | None:
    return FittedReadout.load(path) if path.exists() else None
