"""benchmarks/encoders.py: captions in other styles, scores in shared columns, encoders apart, planted models."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scenes.synthetic_scenes import write_layout

import attnviz
from attnviz.scenes import CLASSES, PHRASES
from attnviz.testing import write_adapter_checkpoint, write_family_checkpoint

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import encoders
from encoders_parts.captions import STYLES, restyled
from encoders_parts.measuring import COLUMNS, aligned, auc, binned, encoder_shares, encoders_of, shares_of
from encoders_parts.tables import compared, encoder_table, model_row
from harness.material import Prompt

# ---- captions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES[1:])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("count", [1, 2])
def test_spans_of_other_styles_hold_the_phrase_of_their_class(style, ordered, count):
    templates = {name for phrases in PHRASES.values() for name in (*phrases.clauses, *phrases.nouns)}
    words: dict[str, set[str]] = {name: set() for name in CLASSES}
    for first in range(10):
        classes = tuple(CLASSES[(first + 3 * place) % 10] for place in range(count))
        made = restyled(Prompt("unused", classes, ((0, 1),) * count, ordered), style)
        assert made.classes == classes
        assert made.ordered == ordered
        for name, (start, end) in zip(made.classes, made.spans, strict=True):
            words[name].add(made.text[start:end])
        assert made.text not in templates
        if style == "reordered" and count == 2:
            assert made.spans[0][0] > made.spans[1][1]
    assert all(len(found) == 1 for found in words.values())
    assert len(set().union(*words.values())) == 10


# ---- shared columns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [512, 128, 64, 16, 513])
def test_a_curve_keeps_its_events_in_shared_columns(columns):
    """A curve that is the activity itself separates perfectly, whatever its columns were."""
    edges = np.linspace(0, 10.24, columns + 1)
    curve = ((edges[1:] > 2.56) & (edges[:-1] < 5.12)).astype(float)
    active = shares_of(np.array([[2.56, 5.12]])) >= 0.5
    assert active.sum() == 16
    assert auc(binned(curve), active) == 1
    assert auc(binned(1 - curve), active) == 0
    assert binned(np.full(columns, 3.0)) == pytest.approx(np.full(COLUMNS, 3.0))


def test_shared_columns_are_means_without_padding():
    curve = np.concatenate([np.arange(128.0), np.full(7, np.nan)])
    np.testing.assert_allclose(binned(curve), np.arange(64) * 2 + 0.5)
    np.testing.assert_allclose(shares_of(np.array([[0.08, 0.16], [0.32, 0.48]]))[:4], [0.5, 0, 1, 0])
    assert shares_of(np.empty((0, 2))).sum() == 0
    assert auc(np.arange(64.0), np.zeros(64, dtype=bool)) is None


# ---- encoders ----------------------------------------------------------------------------------------------


def test_shares_of_encoders_are_those_of_their_tokens(tmp_path):
    pipe = attnviz.load(write_adapter_checkpoint(tmp_path / "two", encoders=("clip", "t5"), published=False))
    wave = np.random.default_rng(0).normal(size=163_840).astype(np.float32) / 20
    maps = attnviz.explain(pipe, wave, "a dog barks", timesteps=[200], draws=1, seed=0, tokens="all")
    assert encoders_of(maps) == [0, 1]
    shares = encoder_shares(maps)
    for found in shares.values():
        assert sum(found.values()) == pytest.approx(1)
    # Nothing but keys is attended to, so that the share of all is what the keys of an encoder receive.
    own = []
    for name in maps.layers:
        layer = maps[name].isel(prompt=0, image=0)
        received = layer.sel(token=layer["token"][layer["token_encoder"] == 1]).sum("token")
        own.append(float(received.mean()))
    assert shares["all"]["1"] == pytest.approx(np.mean(own), rel=1e-5)


def test_phrases_have_their_own_scores_wherever_they_stand_in_the_caption(small_checkpoint):
    pipe = attnviz.load(small_checkpoint)
    wave = np.random.default_rng(0).normal(size=163_840).astype(np.float32) / 20
    caption = "rain after a dog"
    maps = attnviz.explain(pipe, wave, caption, timesteps=[200], draws=1, seed=0, tokens="all")
    prompt = Prompt(caption, ("Dog bark", "Rain"), ((11, 16), (0, 4)), True)
    events = pd.DataFrame(
        {"clip": "x", "label": ["a dog", "rain"], "onset": [1.0, 6.0], "offset": [3.0, 9.0], "span": prompt.spans}
    )
    rows = aligned(maps, prompt, events, wave)
    assert [row["sound"] for row in rows] == ["Dog bark", "Rain"]
    for row, span, time in zip(rows, prompt.spans, ([1.0, 3.0], [6.0, 9.0]), strict=True):
        only = attnviz.align(maps, events[events["span"] == span]).table.query("method == 'map'")
        assert row["own_columns"] == pytest.approx(only["roc_auc"].item())
        active = shares_of(np.array([time])) >= 0.5
        assert row["auc"] == auc(binned(maps.activation(span).to_numpy()), active)
        assert row["encoders"] == {"0": row["auc"]}
    assert rows[0]["own_columns"] != rows[1]["own_columns"]


# ---- tables ------------------------------------------------------------------------------------------------


def planted(right, level_of_maps, shift=0.0, clips=24):
    """Generations and scenes of a model with a known success rate and alignment; the first encoder is better."""
    rng = np.random.default_rng(5)
    made, scenes = [], []
    for style in STYLES:
        for number in range(clips if style == STYLES[0] else clips // 2):
            noise = rng.normal(size=2)
            named = {"style": style, "number": number}
            made.append(
                {
                    **named,
                    "text": "",
                    "classes": "Rain",
                    "heard": "Rain",
                    "ordered": False,
                    "right": number % 12 < right,
                    "in order": None,
                    "judged": "Rain" if number % 2 else "Dog bark",
                    "level": -30.0,
                    "seconds": 2.0,
                    "embedding": (noise + shift).tolist(),
                    "logits": noise.tolist(),
                    "shares": {"all": {"0": 0.75, "1": 0.25}, "words": {"0": 0.5, "1": 0.5}},
                }
            )
            made.append({**named, **_phrase(rng, level_of_maps)})
    for number in range(clips):
        scenes.append({"number": number, "shares": {"all": {"0": 0.75, "1": 0.25}, "words": {"0": 0.5, "1": 0.5}}})
        scenes += [{"number": number, **_phrase(rng, level_of_maps)} for _ in range(2)]
    return made, scenes


def _phrase(rng, level):
    value = level + 0.01 * rng.normal()
    return {
        "phrase": 0, "sound": "Rain", "auc": value, "own_columns": value, "energy": 0.6, "reversed": 0.5,
        "encoders": {"0": value, "1": value - 0.2},
    }  # fmt: skip


REFERENCE = [
    {"embedding": row.tolist(), "logits": row.tolist()} for row in np.random.default_rng(9).normal(size=(40, 2))
]


def test_planted_models_are_told_apart():
    models = {"C": planted(6, 0.8), "T": planted(12, 0.9), "L": planted(6, 0.7)}
    found = compared(models, "C", 0).set_index(["model", "measure"])
    assert found.loc[("T", "right"), "difference"] == pytest.approx(0.5)
    assert found.loc[("T", "right"), "verdict"] == "better"
    assert found.loc[("T", "scenes auc"), "difference"] == pytest.approx(0.1, abs=0.01)
    assert found.loc[("L", "scenes auc"), "verdict"] == "worse"
    assert found.loc[("L", "right"), "verdict"] == "no difference shown"
    assert set(found["against"]) == {"C"}
    assert np.isnan(found.loc[("T", "in order"), "difference"])  # nothing was in order or not


def test_a_model_has_every_measure_with_its_interval():
    row = model_row(*planted(6, 0.8), REFERENCE, 0)
    far = model_row(*planted(6, 0.8, shift=3.0), REFERENCE, 0)
    assert (row["prompts"], row["scenes"]) == (24, 24)
    assert row["right"] == 0.5
    assert row["right low"] < 0.5 < row["right high"]
    assert row["judged right"] == 0.5
    assert row["scenes auc"] == pytest.approx(0.8, abs=0.01)
    assert row["scenes energy"] == pytest.approx(0.6)
    assert far["FD-listener"] > 10 * row["FD-listener"]
    assert far["KL-softmax-listener"] == row["KL-softmax-listener"]


def test_encoders_are_listed_with_share_and_alignment():
    table = encoder_table({"C+T": planted(6, 0.8)}, {"C+T": ["clip", "t5"]}, 0)
    assert table["encoder"].tolist() == ["clip", "t5"]
    np.testing.assert_allclose(table["share of all"], [0.75, 0.25])
    np.testing.assert_allclose(table["auc"], [0.8, 0.6], atol=0.01)


# ---- the whole ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("models", [["C"], ["=x"], ["C=x", "C=y"]])
def test_models_without_names_are_refused(models, tmp_path):
    with pytest.raises(SystemExit, match="give NAME=CHECKPOINT"):
        encoders.main(["--data", str(tmp_path), "--models", *models])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::attnviz.errors.AttnVizWarning")
def test_it_runs_goes_on_and_draws(small_checkpoint, tmp_path):
    esc10 = write_layout(tmp_path / "esc10", range(1, 11), folds=(1, 2, 3, 4), per_fold=2)
    two = write_adapter_checkpoint(tmp_path / "two", encoders=("clip", "t5"), published=False)
    codes = write_family_checkpoint(tmp_path / "codes", "musicgen")
    out = tmp_path / "out"
    models = [f"C={small_checkpoint}", f"C+T={two}", f"waveform={codes}"]
    arguments = ["--data", str(esc10), "--tiny", "--out", str(out), "--models"]
    assert encoders.main([*arguments, *models[:2]]) == 0
    before = {path: path.stat().st_mtime_ns for path in (out / "models").rglob("*.json") if "pieces" in path.parts}
    assert encoders.main([*arguments, *models]) == 0
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert pd.read_csv(out / "models.csv")["model"].tolist() == ["C", "C+T", "waveform"]
    assert pd.read_csv(out / "encoders.csv")["encoder"].tolist() == ["clip", "clip", "t5", "t5"]
    assert {path.name for path in out.glob("*.png")} == {"models.png", "encoders.png"}
