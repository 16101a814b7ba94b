"""benchmarks/overhead.py: the harness keeps shapes, restores, pairs rounds, and runs in tiny mode."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from harness import Estimate, Study  # noqa: E402
from overhead_parts import models  # noqa: E402
from overhead_parts.analysis import Results, ToolResult, analyse  # noqa: E402
from overhead_parts.bars import judge  # noqa: E402
from overhead_parts.hollow import hollowed, true_grids  # noqa: E402
from overhead_parts.measure import run_once  # noqa: E402
from overhead_parts.models import SUBJECTS, build_pipeline, denoiser_of, generate  # noqa: E402
from overhead_parts.settings import Settings  # noqa: E402
from overhead_parts.stable_diffusion import build_tokenizer  # noqa: E402
from overhead_parts.tools import TOOLS  # noqa: E402
from overhead_parts.worker import alternated  # noqa: E402

TINY = Settings(tools=("none", "attnviz")).as_tiny()


@pytest.fixture(scope="module", params=SUBJECTS)
def bench(request):
    """Settings, pipeline and denoiser of every measured model, narrow."""
    settings = replace(TINY, model=request.param)
    pipe = build_pipeline(settings)
    return settings, pipe, denoiser_of(pipe, settings)


SITES = {"sd15": 16, "audioldm2": 10, "stable-audio": 2}
FINEST = {"sd15": (32, 8), "audioldm2": (8, 32), "stable-audio": (40,)}


def _text_attention_shapes(settings, pipe, denoiser):
    shapes = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, kwargs, name=name: shapes.update(
                {name: (tuple(args[0].shape), tuple(kwargs["encoder_hidden_states"].shape))}
            ),
            with_kwargs=True,
        )
        for name, module in denoiser.named_modules()
        if re.fullmatch(SUBJECTS[settings.model].sites, name)
    ]
    generate(pipe, settings, 1)
    for handle in handles:
        handle.remove()
    return shapes


def test_hollow_gives_every_text_attention_what_the_whole_model_gives_it_and_is_undone(bench):
    settings, pipe, denoiser = bench
    sites = SUBJECTS[settings.model].sites
    whole = _text_attention_shapes(*bench)
    before = generate(pipe, settings, 2)
    with hollowed(denoiser, sites):
        hollow = _text_attention_shapes(*bench)
        emptied = generate(pipe, settings, 2)
    with pytest.raises(KeyError), hollowed(denoiser, sites, text_attention=False):
        raise KeyError
    assert len(whole) == SITES[settings.model]
    assert hollow == whole
    assert not emptied.equal(before)
    assert generate(pipe, settings, 2).equal(before)


def test_attnviz_captures_the_true_grids_and_changes_nothing(bench):
    settings, pipe, denoiser = bench
    grids = true_grids(denoiser, SUBJECTS[settings.model], lambda: generate(pipe, settings, 1))
    assert len(grids) == SITES[settings.model]
    assert max(grids.values(), key=math.prod) == FINEST[settings.model]
    plain, traced = (run_once(pipe, TOOLS[name], settings, 2) for name in ("none", "attnviz"))
    assert traced["grids"] == grids
    assert traced["latents"] == plain["latents"]
    assert traced["map_bytes"] > 0
    assert len(plain["call_seconds"]) == 2


def test_the_published_models_have_their_size(monkeypatch):
    """Built without memory; what is counted is what `with_noise` would fill."""
    monkeypatch.setattr(models, "with_noise", _counted)
    for name, millions in (("sd15", 860), ("audioldm2", 347), ("stable-audio", 1057)):
        settings = Settings(model=name)
        denoiser = denoiser_of(SUBJECTS[name].build(settings), settings)
        assert round(sum(p.numel() for p in denoiser.parameters()) / 1e6) == millions


def _counted(made):
    with torch.device("meta"):
        return made()


def test_every_word_is_one_token():
    tokenizer = build_tokenizer(TINY.prompt)
    assert tokenizer.tokenize(TINY.prompt) == [f"{word}</w>" for word in TINY.prompt.split()]


def test_alternated_orders_cancel_a_drift():
    tools = ["none", "a", "b", "c"]
    orders = [alternated(tools, round_) for round_ in range(8)]
    assert all(sorted(order) == sorted(tools) for order in orders)
    assert {order[0] for order in orders} == set(tools)
    for first, second in zip(orders[::2], orders[1::2], strict=True):
        assert {first.index(tool) + second.index(tool) for tool in tools} == {3}


def _run(part, tool, **values):
    base = {"part": part, "tool": tool, "round": 0, "steps": 2, "latents": "x", "grids": {}, "call_seconds": [1.0]}
    return base | {"seconds": 2.0, "finish_seconds": 0.0, "held_bytes": 0} | values


def _measured(folder, **parts):
    """A study with these records."""
    study = Study(folder, TINY, {})
    for part, records in parts.items():
        study.measure(part.replace("_", "-"), [records], lambda rows, _: rows)
    return study


def test_rounds_are_paired_so_a_slow_round_cancels(tmp_path):
    records = [
        _run("time", tool, round=round_, seconds=seconds * slow)
        for round_, slow in enumerate([1.0, 3.0, 1.0, 2.0])
        for tool, seconds in (("none", 10), ("attnviz", 11))
    ]
    ratio = analyse(_measured(tmp_path, time=records), TINY).tools["attnviz"].ratio
    assert (ratio.value, ratio.low, ratio.high) == tuple(pytest.approx(1.1) for _ in range(3))


def test_a_tool_that_folds_the_grid_is_found_out(tmp_path):
    grids = {"fine": [32, 128], "coarse": [16, 64], "middle": [4, 16]}
    folded = {"fine": [64, 64], "coarse": [16, 64]}
    own = [
        _run("own", "none"),
        _run("own", "again"),
        _run("own", "empty", call_seconds=[0.4]),
        _run("own", "attnviz", grids=folded, call_seconds=[1.02, 1.02, 9.0], latents="y"),
        _run("own", "attnviz-steps", grids=grids),
    ]
    results = analyse(_measured(tmp_path, grids=[{"part": "grids", "grids": grids}], own=own), TINY)
    tool = results.tools["attnviz"]
    assert (tool.layers, tool.true_layers, tool.believed_grid) == (2, 1, (64, 64))
    assert tool.own_ms.value == pytest.approx(20)
    assert results.modules_ms == pytest.approx(600)
    assert tool.latents_unchanged is False
    assert results.tools["attnviz-steps"].true_layers == 3


def test_memory_growth_is_fitted_over_steps(tmp_path):
    mib = 2**20
    none = [_run("memory", "none", hollow=True, steps=steps, peak_bytes_with_maps=100 * mib) for steps in (2, 5)]
    growing = [
        _run(
            "memory",
            "attnviz",
            hollow=True,
            steps=steps,
            peak_bytes_with_maps=(107 + 4 * steps) * mib,
            held_bytes=4 * steps * mib,
        )
        for steps in (2, 5)
    ]
    tool = analyse(_measured(tmp_path, memory_none=none, memory_attnviz=growing), TINY).tools["attnviz"]
    assert tool.growth_per_step == pytest.approx(4)
    assert tool.more_memory_hollow == {2: pytest.approx(15), 5: pytest.approx(27)}


def _results(own, ratio, memory, layers):
    tool = ToolResult("attnviz", own_ms=own, ratio=ratio, more_memory=memory, layers=16, true_layers=layers)
    tool.maps_ms_per_step = 0.0
    peers = {
        "daam": ToolResult("daam", own_ms=Estimate(40.0, 39.0, 41.0), maps_ms_per_step=5.0),
        "attention-map-diffusers": ToolResult(
            "attention-map-diffusers", own_ms=Estimate(41.0, 40.0, 42.0), maps_ms_per_step=140.0
        ),
    }
    return Results({"attnviz": tool, **peers}, total_layers=16, call_ms=10_000.0)


def test_bars_are_reached_and_missed_where_they_should_be():
    good = _results(Estimate(19.0, 18.0, 20.0), Estimate(1.01, 0.99, 1.02), {1: 5.0, 3: 31.0}, 16)
    good.tools["attnviz"].latents_unchanged = True
    assert [bar.state for bar in judge(good, TINY)] == ["reached"] * 8
    bad = _results(Estimate(101.0, 99.0, 103.0), Estimate(1.02, 1.01, 1.03), {1: 5.0, 3: 33.0}, 15)
    bad.tools["attnviz"].latents_unchanged = False
    assert [bar.state for bar in judge(bad, TINY)] == ["missed"] * 8
    between = replace(good.tools["attnviz"], own_ms=Estimate(60.0, 59.0, 61.0))  # peers' maps cost 45 and 181 ms
    judged = judge(replace(good, tools={**good.tools, "attnviz": between}), TINY)
    assert [bar.state for bar in judged[1:4]] == ["missed", "missed", "reached"]
    # Other tools work on one model alone; the transformer of Stable Audio Open may take 64 MiB.
    states = {bar.what: bar.state for bar in judge(bad, replace(TINY, model="stable-audio"))}
    assert len(states) == 5
    assert states.pop("more peak memory than none, any number of steps") == "reached"
    assert set(states.values()) == {"missed"}
    nothing = Results({"attnviz": ToolResult("attnviz")})
    assert {bar.state for bar in judge(nothing, TINY)} == {"not measured"}


@pytest.mark.slow
def test_tiny_study_from_the_command_line(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "overhead.py"), "--tiny", "--tools", "none,attnviz"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "| layers on their true grid | 16 of 16 | 16 of 16 | **reached** |" in done.stdout
    assert (tmp_path / "overhead.png").read_bytes()[:4] == b"\x89PNG"
    assert "The numbers mean nothing" in (tmp_path / "README.md").read_text(encoding="utf-8")
    with (tmp_path / "tools.csv").open(encoding="utf-8") as file:
        tools = {row["name"]: row for row in csv.DictReader(file)}
    assert tools["attnviz"]["latents_unchanged"] == "True"
    assert tools["attnviz"]["believed_grid"] == "32x8"
    environment = json.loads((tmp_path / "study.json").read_text(encoding="utf-8"))
    assert environment["environment"]["tools"]["attnviz"]
