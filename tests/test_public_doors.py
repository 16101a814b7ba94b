"""Every public door is given odd things: it works, or its error is one of attnviz's and comes soon."""

from __future__ import annotations

import importlib
import inspect
import signal
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

import attnviz
from attnviz.alignment import align
from attnviz.audio import SpectrogramGrid
from attnviz.diagnosis import diagnose
from attnviz.errors import AttnVizError
from attnviz.maps import AttentionMaps, word_overlap
from attnviz.sounds import CLASSES, Decoding, Hearing
from attnviz.testing import example_events, example_maps, make_tokenizer
from attnviz.text import TokenTable, clip_token_table

ROOMS = (
    "", "alignment", "audio", "diagnosis", "editing", "events", "explaining", "maps", "plots", "report", "sounds",
    "text", "testing",
)  # fmt: skip
#: Run models, read the network, or play in a browser: their arguments are checked in tests of their own.
ELSEWHERE = {"fetch_esc10"}
#: Take a second or more where they work: these are given every fourth odd thing.
SLOW = {
    "write_adapter_checkpoint",
    "write_family_checkpoint",
    "write_plain_checkpoint",
    "AttentionMaps.save",
    "explore",
    "fit_readout",
    "griffin_lim",
    "load",
    "payload_of",
    "edit_comparison",
}
SECONDS = 10


class Hang(BaseException):
    """A call that took longer than `SECONDS`."""


def odd_things() -> list[Any]:
    return [
        None, True, -1, 0, 7, 10**9, 2.5, float("nan"), float("inf"), "", "  ,", "dog", "x" * 5000, "~nosuch/x",
        b"dog", [], [None], {}, {"dog": "x"}, (1, 2, 3), object(), int, np.zeros(0), np.full((2, 3), np.nan),
        np.arange(4), Path("nowhere/x"), pd.DataFrame(), torch.zeros(2, 3), slice(0, 3), "\udcff",
    ]  # fmt: skip


def odd_values(name: str, parameter: inspect.Parameter) -> list[Any]:
    """Return the odd things that a parameter of a door is given."""
    # A flag is taken as what it is true of: few values say whether it is.
    odd = odd_things()[: 3 if parameter.annotation == "bool" else None]
    return odd[:: 4 if name in SLOW else 1]


def doors() -> Iterator[tuple[str, Callable[..., Any], type | None]]:
    """Yield every public function and method: its name, itself, and the class whose object it is called on."""
    seen = set()
    for room in ROOMS:
        module = importlib.import_module("attnviz" + (f".{room}" if room else ""))
        for name in module.__all__:
            thing = getattr(module, name)
            if id(thing) in seen:
                continue
            seen.add(id(thing))
            if inspect.isfunction(thing):
                yield name, thing, None
            elif inspect.isclass(thing) and thing in OBJECTS:
                for key, member in inspect.getmembers(thing, callable):
                    inner = getattr(member, "__func__", member)
                    if not key.startswith("_") and str(getattr(inner, "__module__", "")).startswith("attnviz"):
                        yield f"{name}.{key}", member, None if inspect.ismethod(member) else thing


def parameters(door: Callable[..., Any], owner: type | None) -> list[inspect.Parameter]:
    found = list(inspect.signature(door).parameters.values())[1 if owner else 0 :]
    return [one for one in found if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]


@cache
def _made(maker: Callable[[], Any]) -> Any:
    """Return a maker's value, made once: public functions do not change what they are given."""
    return maker()


@cache
def _alignment() -> Any:
    return align(example_maps(), example_events())


OBJECTS: dict[type, Callable[[], Any]] = {
    AttentionMaps: lambda: example_maps(steps=2, heads=2),
    SpectrogramGrid: lambda: example_maps().grid,
    TokenTable: lambda: clip_token_table(make_tokenizer("clip"), "a dog barks"),
    attnviz.alignment.Alignment: _alignment,
    Decoding: Decoding,
    Hearing: lambda: attnviz.listen(np.zeros(16_000, dtype=np.float32)),
}
_CURVES, _ACTIVE = np.random.default_rng(0).random((2, 30)), np.arange(60).reshape(2, 30) % 7 < 3
_SCORES = {"c.wav": np.linspace(0, 1, 25)[:, None]}
_TRUTH = pd.DataFrame({"clip": ["c.wav"], "label": ["dog"], "onset": [0.2], "offset": [0.6]})
#: A value that works for every parameter that has no default, by its name.
GOOD: dict[str, Callable[[], Any]] = {
    "active": lambda: _ACTIVE,
    "activity": lambda: _ACTIVE.astype(float),
    "after": lambda: np.zeros((256, 64)),
    "audible": lambda: _ACTIVE[0],
    "audio": lambda: np.sin(np.arange(16_000, dtype=np.float32)),
    "before": lambda: np.zeros((256, 64)),
    "caption": lambda: "a dog barks, then rain falls",
    "classes": lambda: ["dog"],
    "clips": lambda: [(example_maps(), example_events()) for _ in range(2)],
    "column_seconds": lambda: 0.16,
    "columns": lambda: 64,
    "curves": lambda: _CURVES,
    "diagnosis": lambda: diagnose(example_maps()),
    "durations": lambda: {"c.wav": 1.0},
    "edges": lambda: np.linspace(0, 1, 26),
    "energy": lambda: _CURVES[0],
    "events": example_events,
    "family": lambda: "ace-step",
    "folder": lambda: Path("folder"),
    "given": lambda: {"sample_rate": 16_000},
    "grid": lambda: example_maps().grid,
    "ground_truth": lambda: _TRUTH,
    "heat": lambda: example_maps().heatmap("rain falls"),
    "image": lambda: np.zeros((256, 64)),
    "kind": lambda: "clip",
    "layers": lambda: {},
    "log_mel": lambda: np.full((256, 64), -5.0),
    "maps": lambda: example_maps(steps=2, heads=2),
    "mask": lambda: np.zeros((16, 64), bool),
    "matrix": lambda: word_overlap(example_maps()),
    "max_length": lambda: 77,
    "max_lengths": lambda: [77],
    "model": lambda: None,
    "name": lambda: "clip_0_10.wav",
    "offsets": lambda: [0.5],
    "onsets": lambda: np.zeros(2),
    "padded": lambda: True,
    "path": lambda: Path("written"),
    "payload": lambda: {"a": 1},
    "phrase": lambda: "dog",
    "pool": lambda: "mean",
    "profiles": lambda: attnviz.alignment.profile(example_maps(), example_events()),
    "prompt": lambda: "a dog barks",
    "result": _alignment,
    "results": lambda: [_alignment()],
    "rows": example_events,
    "rows_": lambda: 16,
    "run": lambda: Path("nowhere"),
    "scores": lambda: _SCORES,
    "seconds": lambda: 10.0,
    "shape": lambda: (8, 32),
    "sound": lambda: CLASSES[0],
    "source": lambda: np.zeros(1600, dtype=np.float32),
    "span": lambda: (0, 3),
    "table": example_events,
    "text": lambda: "[]",
    "token": lambda: 1,
    "tokenizer": lambda: make_tokenizer("clip"),
    "tokenizers": lambda: [make_tokenizer("clip")],
    "tokens": lambda: ["a", "dog"],
    "values": lambda: np.zeros((4, 16)),
}
# Whose parameters of these names mean something else than `GOOD` says.
GOOD_OF: dict[str, dict[str, Callable[[], Any]]] = {
    "mask_iou": {"heat": lambda: np.random.default_rng(0).random((16, 64))},
    "comparison": {"curves": lambda: {"a": example_maps().activation("rain falls")}},
    "comparison_panels": {"maps": lambda: {"a": example_maps(), "b": example_maps(seed=1)}},
    "layer_heads": {"table": lambda: attnviz.maps.attention_share(example_maps(heads=2), "rain falls")},
    "phrase_scores": {"table": lambda: _alignment().table},
    "match_clips": {"clips": lambda: ["c.wav"]},
    "Decoding.intervals": {
        "probabilities": lambda: np.full((10, 50), 0.3),
        "classes": lambda: list(CLASSES),
        "frame_seconds": lambda: 0.04,
    },
    "Decoding.smooth": {"probabilities": lambda: np.full((10, 50), 0.3), "frame_seconds": lambda: 0.04},
    "AttentionMaps.merge": {"maps": lambda: [example_maps()]},
    "Alignment.concat": {"results": lambda: [_alignment()]},
    "token_spans": {"caption": lambda: "a dog"},
    "column_activity": {"onsets": lambda: [0.2]},
}
#: Doors that need a model or recordings; `test_hostile_input` has most of them.
OF_MODELS = {
    "explain", "trace", "apply_edit", "invert", "refine", "reweight", "swap", "cascade", "compose", "scenes",
    "AttentionMaps.from_layers",
}  # fmt: skip
_DOORS = {name: (door, owner) for name, door, owner in doors()}


def _call(name: str, changed: str | None, value: Any) -> None:
    door, owner = _DOORS[name]
    good = {**GOOD, **GOOD_OF.get(name, {})}
    given = {
        one.name: _made(good[one.name])
        for one in parameters(door, owner)
        if one.default is one.empty and one.name != changed
    }
    if changed is not None:
        given[changed] = value
    if owner is not None:
        given = {next(iter(inspect.signature(door).parameters)): _made(OBJECTS[owner]), **given}
    positional = [
        one.name for one in inspect.signature(door).parameters.values() if one.kind is one.POSITIONAL_ONLY
    ]
    result = door(*[given.pop(one) for one in positional], **given)
    if inspect.isgenerator(result):
        next(result, None)
    if isinstance(result, plt.Figure) or plt.get_fignums():
        plt.close("all")


def within_seconds(call: Callable[[], Any]) -> None:
    """Call, and raise `Hang` once it takes longer than `SECONDS`."""

    def stop(*_: Any) -> None:
        raise Hang(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        call()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", sorted(set(_DOORS) - ELSEWHERE - OF_MODELS))
def test_a_door_works_or_says_what_is_wrong(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in parameters(*_DOORS[name]):
            for value in odd_values(name, one):
                try:
                    within_seconds(lambda one=one, value=value: _call(name, one.name, value))
                except AttnVizError:
                    pass
                except (Exception, Hang) as error:  # noqa: BLE001 the very thing that is looked for
                    wrong.append(f"{one.name}={_short(value)}: {type(error).__name__}: {str(error)[:80]}")
                plt.close("all")
    assert not wrong, "\n".join([f"{len(wrong)} of {name}", *wrong])


def _short(value: Any) -> str:
    return repr(value)[:40] if not isinstance(value, np.ndarray | pd.DataFrame) else type(value).__name__


def test_every_door_is_looked_at():
    unknown = [
        f"{name}({one.name})"
        for name, (door, owner) in _DOORS.items()
        if name not in ELSEWHERE | OF_MODELS
        for one in parameters(door, owner)
        if one.default is one.empty and one.name not in {**GOOD, **GOOD_OF.get(name, {})}
    ]
    assert not unknown
    assert len(_DOORS) > 90
    looked_at = set(_DOORS) - ELSEWHERE - OF_MODELS
    assert sum(len(odd_values(name, one)) for name in looked_at for one in parameters(*_DOORS[name])) >= 1000
