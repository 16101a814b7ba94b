"""Measure a model on a prompt or a scene: what is heard, and how the maps of each encoder align."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bundled_parts.generation import heard_row
from bundled_parts.levels import level
from harness import Model
from harness.material import Prompt, heard_events
from second_judge import CHOICE_FOLDS, SecondJudge

import attnviz
from attnviz.alignment import roc_auc
from attnviz.audio import log_mel
from attnviz.evaluation import listener_embedder
from attnviz.maps import AttentionMaps
from attnviz.scenes import read_esc10
from encoders_parts.captions import restyled
from encoders_parts.settings import Settings
from encoders_parts.systems import RATE, SECONDS, System

COLUMNS = 64
"""Columns of 160 ms, in which all models are scored: those of the coarsest maps."""
ACTIVE_SHARE = 0.5


def generated(
    system: System, settings: Settings, prompts: Sequence[Prompt], case: tuple[str, int], _: int
) -> list[dict[str, Any]]:
    """Generate a prompt in a style; return a row of what is heard, and one of each phrase's maps."""
    style, number = case
    prompt = restyled(prompts[number], style)
    audio, maps, seconds = system.generate(prompt.text, settings.seed_of(number), settings)
    hearing = _listener().listen(audio)
    named = {"style": style, "number": number}
    whole = {
        **named,
        "text": prompt.text,
        **heard_row(hearing, prompt),
        "judged": _judge(settings.esc10).name(audio) if len(prompt.classes) == 1 else None,
        "level": level(audio),
        "seconds": seconds,
        **embedded(audio),
        "shares": encoder_shares(maps),
    }
    events = heard_events(hearing, prompt, f"{number:04d}")
    return [whole, *({**named, **row} for row in aligned(maps, prompt, events, audio))]


def explained(system: System, settings: Settings, scene: Any, number: int) -> list[dict[str, Any]]:
    """Explain a scene; return a row of its attention, and one of each phrase's maps."""
    audio = scene.mixture.astype(np.float32)
    maps = system.explain(audio, scene.caption, settings.seed_of(number), settings)
    prompt = Prompt(
        scene.caption, tuple(one.sound for one in scene.sounds), tuple(one.span for one in scene.sounds), False
    )
    rows = aligned(maps, prompt, scene.events, audio)
    return [{"number": number, "shares": encoder_shares(maps)}, *({"number": number, **row} for row in rows)]


def reference_row(scene: Any, _: int) -> list[dict[str, Any]]:
    """Return embedding and logits of a real scene."""
    return [embedded(scene.mixture.astype(np.float32))]


def aligned(maps: AttentionMaps, prompt: Prompt, events: pd.DataFrame, audio: np.ndarray) -> list[dict[str, Any]]:
    """Return the ROC-AUC of each phrase in columns of 160 ms: of all keys, of each encoder's, and of controls.

    Returns
    -------
    list of dict
        ``phrase`` (number), ``sound``, ``auc``, ``energy`` and ``reversed`` (controls), ``own_columns`` (the
        ROC-AUC in the columns of the maps), and ``encoders``: the ROC-AUC of each text encoder's tokens alone.
        None where the sound is always or never active.
    """
    energy = binned(np.exp(log_mel(audio)).sum(axis=0))
    rows = attnviz.align(maps, events).table.query("method == 'map'")
    own = dict(zip(zip(rows["start"], rows["end"], strict=True), rows["roc_auc"], strict=True))
    found: list[dict[str, Any]] = []
    for number, (sound, span) in enumerate(zip(prompt.classes, prompt.spans, strict=True)):
        times = events.loc[events["span"].map(tuple) == span, ["onset", "offset"]].dropna().to_numpy()
        active = shares_of(times) >= ACTIVE_SHARE
        curve = binned(maps.activation(span).to_numpy())
        curves = {"auc": curve, "energy": energy, "reversed": curve[::-1]}
        row: dict[str, Any] = {name: auc(values, active) for name, values in curves.items()}
        one = own.get(span, np.nan)
        row["own_columns"] = None if np.isnan(one) else float(one)
        row["encoders"] = {
            str(encoder): auc(binned(maps.select(encoder=encoder).activation(span).to_numpy()), active)
            for encoder in encoders_of(maps)
        }
        found.append({"phrase": number, "sound": sound, **row})
    return found


def encoder_shares(maps: AttentionMaps) -> dict[str, dict[str, float]]:
    """Return what each text encoder's keys receive of the attention: of all keys, and of those of words.

    Means over layers, steps and cells.
    """
    by_kind: dict[str, dict[str, list[float]]] = {"all": {}, "words": {}}
    for name in maps.layers:
        layer = maps[name].isel(prompt=0, image=0)
        held = layer.where(~layer["padding"]).mean([dim for dim in layer.dims if dim != "token"]).to_numpy()
        encoder, kind = layer["token_encoder"].to_numpy(), layer["token_kind"].to_numpy()
        for of, kept in (("all", np.ones(len(held), dtype=bool)), ("words", kind == "text")):
            whole = held[kept].sum()
            for one in np.unique(encoder):
                part = held[kept & (encoder == one)].sum()
                by_kind[of].setdefault(str(one), []).append(float(part / whole))
    return {of: {one: float(np.mean(shares)) for one, shares in found.items()} for of, found in by_kind.items()}


def encoders_of(maps: AttentionMaps) -> list[int]:
    """Return the indices of the text encoders whose tokens are stored."""
    return sorted(set(maps[maps.layers[0]]["token_encoder"].to_numpy().tolist()))


def binned(curve: np.ndarray) -> np.ndarray:
    """Return the means of a curve over a clip in columns of 160 ms, ``(64,)``; padding (NaN) is left out."""
    known = np.asarray(curve, dtype=np.float64)
    known = known[~np.isnan(known)]
    place = ((np.arange(len(known)) + 0.5) * COLUMNS / len(known)).astype(int)
    if len(known) < COLUMNS:
        return known[((np.arange(COLUMNS) + 0.5) * len(known) / COLUMNS).astype(int)]
    return np.bincount(place, known, COLUMNS) / np.bincount(place, minlength=COLUMNS)


def shares_of(times: np.ndarray) -> np.ndarray:
    """Return the share of each column of 160 ms that events cover, ``(64,)``."""
    edges = np.linspace(0, SECONDS, COLUMNS + 1)
    inside = [np.minimum(edges[1:], offset) - np.maximum(edges[:-1], onset) for onset, offset in times]
    return np.clip(inside, 0, None).sum(axis=0) / (SECONDS / COLUMNS) if inside else np.zeros(COLUMNS)


def auc(curve: np.ndarray, active: np.ndarray) -> float | None:
    """Return the ROC-AUC of a curve; None if the sound is always or never active."""
    return float(roc_auc(curves=curve, active=active)) if 0 < active.sum() < len(active) else None


def embedded(audio: np.ndarray) -> dict[str, list[float]]:
    """Return embedding and logits of the bundled listener."""
    found = listener_embedder(_listener().listener.listener)(audio, RATE)
    return {name: found[name].astype(float).tolist() for name in ("embedding", "logits")}


@cache
def _listener() -> Model:
    return Model()


@cache
def _judge(esc10: Path) -> SecondJudge:
    return SecondJudge(read_esc10(esc10, folds=CHOICE_FOLDS))
