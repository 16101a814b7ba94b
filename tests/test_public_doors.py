"""Every public door is given odd things: it works, or its error is one of attnviz's and comes soon."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
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
from attnviz.alignment import (
    Alignment,
    EventCounts,
    Pooled,
    PsdsResult,
    ReadoutFit,
    SegmentF1Result,
    align,
)
from attnviz.attribution import Curve, DeletionInsertion
from attnviz.audio import CellGrid, MelConfig, SpectrogramGrid
from attnviz.corpus import (
    ClipResult,
    ClipSource,
    CorpusStatus,
    ExplainSettings,
    GenerateSettings,
    KeepSettings,
    ModelSettings,
    Plan,
    PlannedClip,
    ScoreSettings,
)
from attnviz.diagnosis import THRESHOLDS, Diagnosis, Finding, Threshold, diagnose
from attnviz.editing import LocalBlend, PromptEdit
from attnviz.errors import AttnVizError
from attnviz.evaluation import Clip, EmbeddedClips, Embedder, EmbeddingCache, Estimate, Evaluation, Moments
from attnviz.events import ClipFiles
from attnviz.listener import Decoding, Hearing, Listener, ListenerConfig
from attnviz.maps import (
    AttentionMaps,
    FittedReadout,
    LayerAttention,
    ReadoutPart,
    SharpReadout,
    StoredWord,
    word_overlap,
)
from attnviz.models.conditioning import Adapter, ConditionSpec
from attnviz.models.pipelines.recommended import RecommendedSettings
from attnviz.models.vocoder import HifiGan, HifiGanConfig
from attnviz.plots import EditedWord
from attnviz.report import Explorer
from attnviz.scenes import CLASSES, PHRASES, ComposerConfig, Phrases, Recording, Scene, SceneSound
from attnviz.separation import Separation, Solo, separate
from attnviz.testing import example_events, example_maps, make_tokenizer
from attnviz.text import TokenTable, clip_token_table

ROOMS = (
    "", "alignment", "attribution", "audio", "capture", "corpus", "diagnosis", "editing", "evaluation", "events",
    "listener", "maps", "models.conditioning", "models.pipelines", "models.vocoder", "plots", "report", "scenes",
    "separation", "text", "testing",
)  # fmt: skip
#: Public names that are not given odd things, and why.
EXCLUDED = {
    "fetch_esc10": "reads the network",
    "Heard": "a protocol: what has it is given odd things",
    "AttentionEdit": "a protocol: what has it is given odd things",
    **dict.fromkeys(
        ("AttentionRecorder", "AttentionStore", "Branches", "CapturedLayer", "Changes", "Conditioning",
         "CrossAttentionLayer", "EditedRow", "PromptConditioning", "Recording", "SequenceRecorder",
         "SequenceRecording", "TracingProcessor", "attention_probabilities", "held",
         "held_processor", "Measure", "measure_of"),
        "capture's own parts: a trace makes and calls them, with arguments of its own",
    ),
    **dict.fromkeys(
        ("AuffusionPipeline", "AuffusionAudioToAudioPipeline", "AuffusionInpaintPipeline"),
        "needs a checkpoint: test_hostile_input",
    ),
    **dict.fromkeys(
        ("explain", "trace", "invert", "refine", "reweight", "swap", "apply_edit"),
        "needs a checkpoint: test_hostile_input",
    ),
    **dict.fromkeys(
        ("Attention", "Attribution", "Gradient", "GradientShap", "HeardWord", "IntegratedGradients", "LeaveOneOut",
         "Rollout", "Shapley", "Value"),
        "needs a checkpoint: test_attribution_methods",
    ),
    **dict.fromkeys(
        ("CellAblation", "HeadAblation", "WordAblation", "sensitivity_max", "weight_randomization"),
        "needs a checkpoint: test_faithfulness_models",
    ),
    **dict.fromkeys(("embed_clips", "evaluate"), "needs clips: test_cli_evaluate"),
    **dict.fromkeys(("Corpus", "CorpusAlignment", "run_corpus"), "needs the folder of a run: tests/corpus"),
    "TextConditioner": "needs a checkpoint: test_hostile_input",
    "EditedAudio": "a record of arrays and maps that `apply_edit` makes",
    "InvertedClip": "a record that `invert` makes, whose methods `apply_edit` calls",
    "HifiGan.forward": "PyTorch calls it in training, with tensors alone",
    "Listener.forward": "PyTorch calls it in training, with tensors alone",
    "Listener.features": "the listener's forward calls it, with tensors alone",
    "Adapter.forward": "PyTorch calls it in training, with tensors alone",
}  # fmt: skip
#: Doors that take long where they work: each parameter is given every n-th odd thing, another part of them each.
EVERY = {
    **dict.fromkeys(
        ("explore", "griffin_lim", "payload_of", "fit_readout", "load", "solo", "separate"), 16
    ),
    **dict.fromkeys(
        ("comparison_panels", "denoising_steps", "diagnose", "edit_comparison", "word_maps",
         "write_adapter_checkpoint", "write_family_checkpoint", "write_plain_checkpoint"),
        8,
    ),
    **dict.fromkeys(
        ("AttentionMaps.save", "AttentionMaps.to_audacity", "AttentionMaps.to_npz", "HifiGan", "Listener",
         "activations", "align", "compose", "example_maps", "heatmap", "layer_heads", "piano_roll",
         "scenes", "spectrogram"),
        4,
    ),
}  # fmt: skip
SECONDS = 10


class Hang(BaseException):
    """A call that took longer than `within_seconds` allows."""


def odd_things() -> list[Any]:
    return [
        None, True, -1, 0, 7, 10**9, 2.5, float("nan"), float("inf"), "", "  ,", "dog", "x" * 5000, "~nosuch/x",
        b"dog", [], [None], {}, {"dog": "x"}, (1, 2, 3), object(), int, np.zeros(0), np.full((2, 3), np.nan),
        np.arange(4), Path("nowhere/x"), pd.DataFrame(), torch.zeros(2, 3), slice(0, 3), "\udcff",
    ]  # fmt: skip


def odd_values(name: str, parameter: inspect.Parameter) -> list[Any]:
    """Return the odd things that a parameter of a door is given."""
    odd = odd_things()
    # A flag is taken as what it is true of: few values say whether it is.
    if parameter.annotation == "bool":
        return odd[:3]
    every = EVERY.get(name, 1)
    return odd[len(parameter.name) % every :: every]


def public_names() -> Iterator[tuple[str, Any]]:
    """Yield every public callable of the rooms, once: its name and itself."""
    seen = set()
    for room in ROOMS:
        module = importlib.import_module("attnviz" + (f".{room}" if room else ""))
        for name in module.__all__:
            thing = getattr(module, name)
            if (inspect.isfunction(thing) or inspect.isclass(thing)) and id(thing) not in seen:
                seen.add(id(thing))
                yield name, thing


def doors() -> Iterator[tuple[str, Callable[..., Any], type | None]]:
    """Yield every public function, constructor and method: its name, itself, and the class of its object."""
    for name, thing in public_names():
        if inspect.isfunction(thing):
            yield name, thing, None
        elif not issubclass(thing, Exception):
            yield name, thing, None
            for key, member in inspect.getmembers(thing, callable):
                inner = getattr(member, "__func__", member)
                if not key.startswith("_") and str(getattr(inner, "__module__", "")).startswith("attnviz"):
                    yield f"{name}.{key}", member, None if inspect.ismethod(member) else thing


def is_excluded(name: str) -> bool:
    return name in EXCLUDED or name.split(".", maxsplit=1)[0] in EXCLUDED


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


@cache
def _vocoder() -> HifiGan:
    return HifiGan(HifiGanConfig("1", (16, 10), (32, 20), 8, (3,), ((1, 3, 5),)))


STEMS = np.stack([np.sin(np.arange(16_000, dtype=np.float32)), np.full(16_000, 1e-3, np.float32)])


@cache
def _scene() -> Scene:
    heard = SceneSound("dog", (2, 5), "Dog bark", "1-1-A-0", 1, 1, 0.5, 1.0, -20.0, 0.0, ((0.5, 1.0),))
    return Scene(
        "a.wav", np.zeros(16_000, np.float32), "a dog barks", (heard,), (0,), ComposerConfig(seconds=1.0), STEMS
    )


class _Game:
    """A game of three players."""

    players = ("a", "b", "c")

    def __call__(self, coalitions):
        return torch.tensor([float(len(one)) for one in coalitions])

    def random_scores(self, generator):
        return generator.permutation(3).astype(float)


_FIT = FittedReadout((ReadoutPart("up.1.0", 0.5), ReadoutPart("mid.0", 0.5)))
#: An object of every public class: its methods are called on it, and its fields are what its constructor takes.
OBJECTS: dict[type, Callable[[], Any]] = {
    AttentionMaps: lambda: example_maps(steps=2, heads=2),
    attnviz.AuffusionOutput: lambda: attnviz.AuffusionOutput([np.zeros(1600, np.float32)]),
    Adapter: lambda: Adapter(8, 4),
    ConditionSpec: lambda: ConditionSpec("text_encoder_0", "condition_adapter_0", 77, 8, 4),
    SpectrogramGrid: lambda: example_maps().grid,
    CellGrid: lambda: example_maps().grid.cells(16, 64),
    Curve: lambda: Curve(np.linspace(0, 1, 3), np.ones(3)),
    DeletionInsertion: lambda: DeletionInsertion(*[Curve(np.linspace(0, 1, 3), np.ones(3))] * 2),
    HifiGan: _vocoder,
    HifiGanConfig: lambda: _vocoder().config,
    MelConfig: MelConfig,
    TokenTable: lambda: clip_token_table(make_tokenizer("clip"), "a dog barks"),
    Alignment: _alignment,
    EventCounts: lambda: EventCounts(1, 0, 0, 0),
    Pooled: lambda: _alignment().pool(n_resamples=10),
    PsdsResult: lambda: PsdsResult(0.5, {"dog": 0.5}, np.zeros(2), np.ones(2), 1, EventCounts(1, 0, 0, 0)),
    ReadoutFit: lambda: ReadoutFit(
        _FIT,
        pd.DataFrame({"clip": ["a", "b"], "source": ["a", "b"], "fold": [0, 1], "fitted": 0.9, "mean": 0.8,
                      "best layer": 0.7}),
        pd.DataFrame({"choice": ["layers"], "roc_auc": [0.9]}), {}, 0,
    ),
    SegmentF1Result: lambda: SegmentF1Result(
        0.5, 0.5, {"dog": 0.5}, pd.DataFrame(), 1, EventCounts(1, 0, 0, 0)
    ),
    Decoding: Decoding,
    Diagnosis: lambda: diagnose(example_maps()),
    Finding: lambda: diagnose(example_maps()).findings[0],
    Threshold: lambda: THRESHOLDS["uniform attention"],
    LocalBlend: lambda: LocalBlend(["dog"], ["cat"], 0.3, 0.2),
    PromptEdit: lambda: PromptEdit("swap", "a dog barks", "a cat barks", {"cat": 2.0}),
    Clip: lambda: Clip(Path("a.wav"), "a", "a dog barks"),
    EmbeddedClips: lambda: EmbeddedClips(_EMBEDDINGS[0], None, np.zeros(12)),
    Embedder: lambda: Embedder("rms", np.std, digest="1"),
    EmbeddingCache: lambda: EmbeddingCache("cache"),
    Estimate: lambda: Estimate(0.5, 0.4, 0.6, 12, 12, 4, "lower"),
    Evaluation: lambda: Evaluation(
        pd.DataFrame({"metric": ["FD-rms"], "better": "lower", "undefined": "too few clips"}), ("rms: an example",)
    ),
    Moments: lambda: Moments.of(_EMBEDDINGS[0]),
    ClipResult: lambda: ClipResult((), False),
    ClipSource: lambda: ClipSource("list.csv"),
    CorpusStatus: lambda: CorpusStatus("c", "ab", 2, 1, 2, 1, 0, 0, {}, (), 0.1, 9.0),
    ExplainSettings: ExplainSettings,
    GenerateSettings: GenerateSettings,
    KeepSettings: KeepSettings,
    ModelSettings: ModelSettings,
    Plan: lambda: Plan("generate", ClipSource("list.csv")),
    PlannedClip: lambda: PlannedClip(0, "a.wav", "a dog barks", 1),
    ScoreSettings: ScoreSettings,
    ClipFiles: lambda: ClipFiles({}, (), {}, ()),
    FittedReadout: lambda: _FIT,
    LayerAttention: lambda: LayerAttention(
        np.ones((1, 1, 5, 4, 16)), ("prompt", "image", "token", "row", "column"), 2
    ),
    ReadoutPart: lambda: _FIT.parts[0],
    Separation: lambda: separate(example_maps(), np.zeros(160_000, np.float32)),
    SharpReadout: SharpReadout,
    Solo: lambda: attnviz.solo(example_maps(), "dog barks", np.sin(np.arange(160_000, dtype=np.float32))),
    StoredWord: lambda: example_maps().occurrences()[0],
    EditedWord: lambda: EditedWord(None, None),
    Explorer: lambda: attnviz.explore(example_maps()),
    ComposerConfig: ComposerConfig,
    Hearing: lambda: attnviz.listen(np.zeros(16_000, dtype=np.float32)),
    Listener: lambda: Listener(ListenerConfig(channels=(2, 2), hidden=2)),
    ListenerConfig: ListenerConfig,
    Phrases: lambda: PHRASES[CLASSES[0]],
    Recording: lambda: Recording(Path("1-1-A.ogg"), "Dog bark", 1, 1, 1, "A"),
    Scene: _scene,
    SceneSound: lambda: _scene().sounds[0],
}  # fmt: skip
_EMBEDDINGS = np.random.default_rng(1).random((2, 12, 3))
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
    "embedder": lambda: _made(OBJECTS[Embedder]),
    "embeddings": lambda: _EMBEDDINGS[0],
    "energy": lambda: _CURVES[0],
    "estimate": lambda: np.sin(np.arange(16_000, dtype=np.float32)),
    "evaluated": lambda: _EMBEDDINGS[0],
    "events": example_events,
    "family": lambda: "ace-step",
    "folder": lambda: Path("folder"),
    "folders": lambda: ".",
    "found": lambda: {"embedding": np.zeros(3)},
    "game": _Game,
    "given": lambda: {"sampling_rate": 16_000},
    "grid": lambda: example_maps().grid,
    "ground_truth": lambda: _TRUTH,
    "heat": lambda: example_maps().heatmap("rain falls"),
    "image": lambda: np.zeros((256, 64)),
    "kind": lambda: "clip",
    "layers": lambda: {},
    "log_mel": lambda: np.full((256, 64), -5.0),
    "maps": example_maps,
    "mask": lambda: np.zeros((16, 64), bool),
    "matrix": lambda: word_overlap(example_maps()),
    "max_length": lambda: 77,
    "max_lengths": lambda: [77],
    "model": lambda: None,
    "module": lambda: torch.nn.Linear(2, 2),
    "name": lambda: "clip_0_10.wav",
    "offsets": lambda: [0.5],
    "onsets": lambda: np.zeros(2),
    "padded": lambda: True,
    "parts": lambda: [Moments.of(part) for part in _EMBEDDINGS],
    "path": lambda: Path("written"),
    "payload": lambda: {"a": 1},
    "phrase": lambda: "dog",
    "pool": lambda: "mean",
    "profiles": lambda: attnviz.alignment.profile(example_maps(), example_events()),
    "prompt": lambda: "a dog barks",
    "reference": lambda: _EMBEDDINGS[1],
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
    "unet": lambda: None,
    "values": lambda: np.zeros((4, 16)),
}
# Whose parameters of these names mean something else than `GOOD` says, or are given though they have a default.
GOOD_OF: dict[str, dict[str, Callable[[], Any]]] = {
    "mask_iou": {"heat": lambda: np.random.default_rng(0).random((16, 64))},
    "deletion_insertion": {"scores": lambda: [1.0, 0.0, 2.0]},
    "infidelity": {"scores": lambda: [1.0, 0.0, 2.0]},
    "comparison": {"curves": lambda: {"a": example_maps().activation("rain falls")}},
    "comparison_panels": {"maps": lambda: {"a": example_maps(), "b": example_maps(seed=1)}},
    "denoising_steps": {"maps": lambda: example_maps(steps=2)},
    "step_activation": {"maps": lambda: example_maps(steps=2)},
    "griffin_lim": {"iterations": lambda: 1},
    "layer_heads": {"table": lambda: attnviz.maps.attention_share(example_maps(heads=2), "rain falls")},
    "phrase_scores": {"table": lambda: _alignment().table},
    "match_clips": {"clips": lambda: ["c.wav"]},
    "Decoding.intervals": {
        "probabilities": lambda: np.full((10, 50), 0.3),
        "classes": lambda: list(CLASSES),
        "frame_seconds": lambda: 0.04,
    },
    "AttentionMaps": {"tree": lambda: example_maps().tree},
    "AttentionMaps.from_layers": {
        "layers": lambda: {"up_blocks.1.attentions.0": _made(OBJECTS[LayerAttention])},
        "tokens": lambda: [_made(OBJECTS[TokenTable])],
        "positions": lambda: range(5),
        "timesteps": lambda: [50],
    },
    "Adapter": {"condition_dim": lambda: 8, "cross_attention_dim": lambda: 4},
    "CellGrid": {"stride": lambda: (16.0, 16.0)},
    "HifiGan": {"config": lambda: _vocoder().config},
    "Listener": {"config": lambda: ListenerConfig(channels=(2, 2), hidden=2)},
    "ListenerConfig.from_dict": {"values": lambda: {"hidden": 2}},
    "compose": {"recordings": lambda: [], "seed": lambda: 0},
    "scenes": {"recordings": lambda: [], "count": lambda: 1, "seed": lambda: 0},
    "LocalBlend.settled": {"threshold": lambda: 0.3, "start": lambda: 0.2},
    "MelConfig.frames": {"samples": lambda: 1600},
    "PromptEdit.injection": {
        "source": lambda: _made(OBJECTS[TokenTable]),
        "target": lambda: clip_token_table(make_tokenizer("clip"), "a cat barks"),
    },
    "PromptEdit.reweighting": {"weights": lambda: {"dog": 2.0}},
    "PromptEdit.settled": {"recommended": RecommendedSettings},
    "Threshold.passed": {"value": lambda: 0.5},
    "Threshold.position": {"value": lambda: 0.5},
    "Decoding.smooth": {"probabilities": lambda: np.full((10, 50), 0.3), "frame_seconds": lambda: 0.04},
    "AttentionMaps.merge": {"maps": lambda: [example_maps()]},
    "Alignment.concat": {"results": lambda: [_alignment()]},
    "token_spans": {"caption": lambda: "a dog"},
    "EmbeddingCache.get": {"path": lambda: __file__},
    "EmbeddingCache.put": {"path": lambda: __file__},
    "clap_score": {"audio": lambda: _EMBEDDINGS[0], "text": lambda: _EMBEDDINGS[1]},
    "inception_score": {"scores": lambda: _EMBEDDINGS[0]},
    "pair_clips": {name: lambda: [_made(OBJECTS[Clip])] for name in ("evaluated", "reference")},
    "column_activity": {"onsets": lambda: [0.2]},
    "separate": {"audio": lambda: np.sin(np.arange(160_000, dtype=np.float32))},
    "si_sdr": {"reference": lambda: np.cos(np.arange(16_000, dtype=np.float32))},
    "solo": {"audio": lambda: np.sin(np.arange(160_000, dtype=np.float32))},
}
_DOORS = {name: (door, owner) for name, door, owner in doors()}


def good_values(name: str) -> dict[str, Callable[[], Any]]:
    """Return what makes a value that works for each parameter of a door."""
    good = {**GOOD, **GOOD_OF.get(name, {})}
    door, _ = _DOORS[name]
    if dataclasses.is_dataclass(door) and door in OBJECTS:
        fields = [one.name for one in dataclasses.fields(door) if one.init]
        good |= {field: lambda field=field: getattr(_made(OBJECTS[door]), field) for field in fields}
    return good


def _call(name: str, changed: str | None, value: Any) -> None:
    door, owner = _DOORS[name]
    good = good_values(name)
    given = {
        one.name: _made(good[one.name])
        for one in parameters(door, owner)
        if (one.default is one.empty or one.name in GOOD_OF.get(name, {})) and one.name != changed
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
    """Call, and raise `Hang` once it takes `SECONDS` of processor time, or ten times that by the clock.

    Processor time does not depend on what else the machine does.
    """

    def stop(*_: Any) -> None:
        raise Hang(f"more than {SECONDS} s")

    limits = {signal.SIGPROF: (signal.ITIMER_PROF, SECONDS), signal.SIGALRM: (signal.ITIMER_REAL, 10 * SECONDS)}
    before = {number: signal.signal(number, stop) for number in limits}
    try:
        for timer, seconds in limits.values():
            signal.setitimer(timer, seconds)
        call()
    finally:
        for number, (timer, _) in limits.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


LOOKED_AT = sorted(name for name in _DOORS if not is_excluded(name))


@pytest.mark.parametrize("name", LOOKED_AT)
def test_a_door_works_or_says_what_is_wrong(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if _DOORS[name][1] is not None and not parameters(*_DOORS[name]):
            _call(name, None, None)  # takes nothing odd: it works
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


def test_every_public_callable_is_given_odd_things_or_excluded_for_a_reason():
    rooms = {
        module.name.removeprefix("attnviz.")
        for module in pkgutil.walk_packages(attnviz.__path__, "attnviz.")
        if module.ispkg and hasattr(importlib.import_module(module.name), "__all__")
    }
    behind_other_doors = {"alignment.streamed", "models.families"}
    assert rooms - behind_other_doors == {room for room in ROOMS if room}
    without = [
        name
        for name, thing in public_names()
        if inspect.isclass(thing)
        and not issubclass(thing, Exception)
        and not is_excluded(name)
        and thing not in OBJECTS
    ]
    assert not without, "classes without an object in OBJECTS, or a reason in EXCLUDED"
    unknown = [
        f"{name}({one.name})"
        for name in LOOKED_AT
        for one in parameters(*_DOORS[name])
        if one.default is one.empty and one.name not in good_values(name)
    ]
    assert not unknown, "parameters without a value in GOOD"
    assert set(EXCLUDED) <= set(_DOORS), "no longer public"
    assert all(EXCLUDED.values())
    assert sum(len(odd_values(name, one)) for name in LOOKED_AT for one in parameters(*_DOORS[name])) >= 1000
