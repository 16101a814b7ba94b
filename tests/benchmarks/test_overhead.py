"""benchmarks/overhead.py: the harness keeps shapes, restores, pairs rounds, and runs in tiny mode."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from overhead_parts.analysis import Estimate, Results, ToolResult, analyse  # noqa: E402
from overhead_parts.bars import judge  # noqa: E402
from overhead_parts.hollow import hollowed, true_grids  # noqa: E402
from overhead_parts.measure import generate  # noqa: E402
from overhead_parts.model import build_pipeline, build_tokenizer  # noqa: E402
from overhead_parts.settings import Settings  # noqa: E402
from overhead_parts.store import RunStore  # noqa: E402
from overhead_parts.worker import alternated  # noqa: E402

TINY = Settings(tools=("none", "attnviz")).as_tiny()


@pytest.fixture(scope="module")
def pipe():
    return build_pipeline(TINY)


def _cross_attention_shapes(pipe):
    shapes = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, kwargs, name=name: shapes.update(
                {name: (tuple(args[0].shape), tuple(kwargs["encoder_hidden_states"].shape))}
            ),
            with_kwargs=True,
        )
        for name, module in pipe.unet.named_modules()
        if name.endswith("attn2")
    ]
    generate(pipe, TINY, 1)
    for handle in handles:
        handle.remove()
    return shapes


def test_hollow_gives_every_cross_attention_what_the_whole_unet_gives_it(pipe):
    whole = _cross_attention_shapes(pipe)
    with hollowed(pipe.unet):
        hollow = _cross_attention_shapes(pipe)
    assert len(whole) == 16
    assert hollow == whole


def test_hollow_is_undone_and_computes_less(pipe):
    before = generate(pipe, TINY, 2)
    with hollowed(pipe.unet):
        hollow = generate(pipe, TINY, 2)
    with pytest.raises(KeyError), hollowed(pipe.unet, cross_attention=False):
        raise KeyError
    assert not hollow.equal(before)
    assert generate(pipe, TINY, 2).equal(before)


def test_true_grids_are_rows_by_columns(pipe):
    grids = true_grids(pipe.unet, lambda: generate(pipe, TINY, 1))
    assert len(grids) == 16
    assert grids["down_blocks.0.attentions.0"] == (32, 8)
    assert grids["mid_block.attentions.0"] == (4, 1)


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


def test_estimate_of_constant_and_of_spread():
    assert Estimate.of([1.5] * 5) == Estimate(1.5, 1.5, 1.5)
    spread = Estimate.of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert spread.value == 3.0
    assert 1.0 <= spread.low < 3.0 < spread.high <= 5.0


def _run(part, tool, **values):
    base = {"part": part, "tool": tool, "round": 0, "steps": 2, "latents": "x", "grids": {}, "call_seconds": [1.0]}
    return base | {"seconds": 2.0, "finish_seconds": 0.0, "held_bytes": 0} | values


def test_rounds_are_paired_so_a_slow_round_cancels(tmp_path):
    store = RunStore(tmp_path / "runs.jsonl")
    store.start({}, fresh=True)
    for round_, slow in enumerate([1.0, 3.0, 1.0, 2.0]):
        store.append(
            [
                _run("time", "none", round=round_, seconds=10 * slow),
                _run("time", "attnviz", round=round_, seconds=11 * slow),
            ]
        )
    ratio = analyse(store, TINY).tools["attnviz"].ratio
    assert ratio == Estimate(pytest.approx(1.1), pytest.approx(1.1), pytest.approx(1.1))


def test_a_tool_that_folds_the_grid_is_found_out(tmp_path):
    store = RunStore(tmp_path / "runs.jsonl")
    store.start({}, fresh=True)
    grids = {"fine": [32, 128], "coarse": [16, 64], "middle": [4, 16]}
    folded = {"fine": [64, 64], "coarse": [16, 64]}
    store.append([{"part": "grids", "grids": grids}])
    store.append(
        [
            _run("own", "none"),
            _run("own", "again"),
            _run("own", "empty", call_seconds=[0.4]),
            _run("own", "attnviz", grids=folded, call_seconds=[1.02, 1.02, 9.0], latents="y"),
            _run("own", "attnviz-steps", grids=grids),
        ]
    )
    results = analyse(store, TINY)
    tool = results.tools["attnviz"]
    assert (tool.layers, tool.true_layers, tool.believed_grid) == (2, 1, (64, 64))
    assert tool.own_ms.value == pytest.approx(20)
    assert results.modules_ms == pytest.approx(600)
    assert tool.latents_unchanged is False
    assert results.tools["attnviz-steps"].true_layers == 3


def test_memory_growth_is_fitted_over_steps(tmp_path):
    store = RunStore(tmp_path / "runs.jsonl")
    store.start({}, fresh=True)
    mib = 2**20
    for steps in (2, 5):
        store.append(
            [
                _run("memory", "none", hollow=True, steps=steps, peak_bytes_with_maps=100 * mib),
                _run(
                    "memory",
                    "attnviz",
                    hollow=True,
                    steps=steps,
                    peak_bytes_with_maps=(107 + 4 * steps) * mib,
                    held_bytes=4 * steps * mib,
                ),
            ]
        )
    tool = analyse(store, TINY).tools["attnviz"]
    assert tool.growth_per_step == pytest.approx(4)
    assert tool.more_memory_hollow == {2: pytest.approx(15), 5: pytest.approx(27)}


def _results(own, ratio, memory, layers):
    tool = ToolResult("attnviz", own_ms=own, ratio=ratio, more_memory=memory, layers=16, true_layers=layers)
    tool.maps_ms_per_step = 0.0
    peer = ToolResult("daam", own_ms=Estimate(40.0, 39.0, 41.0), maps_ms_per_step=5.0)
    return Results({"attnviz": tool, "daam": peer}, total_layers=16, call_ms=10_000.0)


def test_bars_are_reached_and_missed_where_they_should_be():
    good = _results(Estimate(19.0, 18.0, 20.0), Estimate(1.01, 0.99, 1.02), {1: 5.0, 3: 31.0}, 16)
    assert [bar.state for bar in judge(good)] == ["reached"] * 6
    bad = _results(Estimate(101.0, 99.0, 103.0), Estimate(1.02, 1.01, 1.03), {1: 5.0, 3: 33.0}, 15)
    assert [bar.state for bar in judge(bad)] == ["missed"] * 6
    nothing = Results({"attnviz": ToolResult("attnviz")})
    assert {bar.state for bar in judge(nothing)} == {"not measured"}


def test_a_cut_study_goes_on_and_another_study_starts_anew(tmp_path):
    store = RunStore(tmp_path / "runs.jsonl")
    assert store.start({"rounds": 3}, fresh=False) == 0
    store.append([_run("time", "none"), _run("time", "attnviz")])
    assert store.start({"rounds": 3}, fresh=False) == 2
    assert store.start({"rounds": 4}, fresh=False) == 0


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
    assert "layers on their true grid: 16 of 16" in done.stdout
    assert (tmp_path / "overhead.png").read_bytes()[:4] == b"\x89PNG"
    assert "The numbers mean nothing" in (tmp_path / "README.md").read_text(encoding="utf-8")
    with (tmp_path / "tools.csv").open(encoding="utf-8") as file:
        tools = {row["name"]: row for row in csv.DictReader(file)}
    assert tools["attnviz"]["latents_unchanged"] == "True"
    assert tools["attnviz"]["believed_grid"] == "32x8"
    environment = json.loads((tmp_path / "environment.json").read_text(encoding="utf-8"))
    assert environment["environment"]["tools"]["attnviz"]
