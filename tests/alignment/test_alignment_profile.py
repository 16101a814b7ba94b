"""Profiles of planted maps: the step, layer and head that are right are found, and no others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from alignment_synthetic import COLUMNS, DOG, GRID, HEARD, PROMPT, RAIN, event_rows
from maps.maps_synthetic import table as token_table
from scipy import stats
from sklearn.metrics import roc_auc_score

from attnviz.alignment import align, pool_profile, profile
from attnviz.errors import EventsError, MapsError, PromptError
from attnviz.events import column_activity
from attnviz.maps import AttentionMaps, LayerAttention

FINE, COARSE = "down_blocks.0.attentions.0", "mid_block.attentions.0"
TIMESTEPS = [900.0, 500.0, 500.0]  # as PNDM's, one twice
TIMES = {DOG: (0.1, 0.3), RAIN: (0.35, 0.6)}
EVENTS = event_rows(("dog barks", *TIMES[DOG]), ("rain falls", *TIMES[RAIN]))


def made(rng, right=(), steps=3, log_mel=None):
    """Noise, but at the (layer, step, head) that are right: there the curve is the phrase's share."""
    tokens = token_table(PROMPT)
    layers = {}
    for name, heads, rows, columns in ((FINE, 2, 3, COLUMNS), (COARSE, 3, 2, 20)):
        attention = rng.uniform(0.1, 0.9, (1, 1, steps, heads, 16, rows, columns))
        for _, step, head in (cell for cell in right if cell[0] == name):
            for span, times in TIMES.items():
                share = column_activity([times[0]], [times[1]], GRID, columns)
                attention[0, 0, step, head, tokens.find(span)] = 0.1 + 0.5 * share
        dims = ("prompt", "image", "step", "head", "token", "row", "column")
        layers[name] = LayerAttention(attention.astype(np.float32), dims, heads)
    return AttentionMaps.from_layers(
        layers, tokens=[tokens], positions=range(16), timesteps=TIMESTEPS[:steps], grid=GRID, spectrogram=log_mel
    )


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def cell(table, layer, step, head, label="dog barks"):
    wanted = (table["layer"] == layer) & (table["step"] == step) & (table["head"] == head)
    return table[wanted & (table["label"] == label)].iloc[0]


def test_every_cell_and_its_means_are_there_once(rng):
    table = profile(made(rng), EVENTS)
    of_layers = (3 + 1) * (2 + 1) + (3 + 1) * (3 + 1)
    assert len(table) == 2 * (of_layers + (3 + 1))  # the mean readout has steps and no heads
    assert not table.duplicated(["start", "layer", "step", "head"]).any()
    assert set(table.loc[table["layer"] == FINE, "column_ms"]) == {20.0}
    assert set(table.loc[table["layer"] == COARSE, "column_ms"]) == {40.0}
    when = table.drop_duplicates("step").set_index("step")["timestep"]
    assert [when[step] for step in range(3)] == TIMESTEPS
    assert np.isnan(when[-1])


def test_the_planted_cells_are_found(rng):
    table = profile(made(rng, right=[(FINE, 1, 0), (COARSE, 2, 2)]), EVENTS)
    for label in ("dog barks", "rain falls"):
        assert cell(table, FINE, 1, 0, label)["roc_auc"] == 1.0
        assert cell(table, COARSE, 2, 2, label)["pearson"] == pytest.approx(1.0, abs=1e-6)
    single = table[(table["step"] >= 0) & (table["head"] >= 0)]
    assert (single["roc_auc"] > 0.99).sum() == 4


def test_scores_are_those_of_scipy_and_scikit_learn(rng):
    maps = made(rng, log_mel=rng.normal(size=(1, 1, GRID.height, GRID.width)))
    table = profile(maps, EVENTS)
    share = column_activity([0.35], [0.6], GRID, 20)[: HEARD // 2]
    tokens = maps.tokens[0].find(RAIN)
    curve = maps[COARSE].to_numpy()[0, 0, 2, 1][tokens].astype(float).mean(axis=(0, 1))[: HEARD // 2]
    row = cell(table, COARSE, 2, 1, "rain falls")
    assert row["roc_auc"] == pytest.approx(roc_auc_score(share >= 0.5, curve))
    assert row["pearson"] == pytest.approx(stats.pearsonr(curve, share).statistic, abs=1e-6)
    assert row["spearman"] == pytest.approx(stats.spearmanr(curve, share).statistic, abs=1e-6)
    assert np.isfinite(row["partial"])


@pytest.mark.parametrize("pool", ["mean", "max", "first", "last"])
def test_the_means_score_what_align_gives_that_readout(rng, pool):
    maps = made(rng, log_mel=rng.normal(size=(1, 1, GRID.height, GRID.width)))
    table = profile(maps, EVENTS, pool=pool)
    for layer in (FINE, COARSE, "mean"):
        for step in (-1, 0, 2):
            view = maps if step < 0 else maps.select(steps=step)
            whole = align(view, EVENTS, readout=layer, pool=pool).table.query("method == 'map'")
            for row in whole.itertuples():
                found = cell(table, layer, step, -1, row.label)
                for score in ("roc_auc", "pearson", "spearman", "partial"):
                    assert found[score] == pytest.approx(getattr(row, score), abs=1e-6), (layer, step, score)


def test_heads_score_what_align_gives_of_them_alone(rng):
    maps = made(rng)
    head = align(maps.select(layers=COARSE, heads=1), EVENTS, readout=COARSE).table.query("method == 'map'")
    assert cell(profile(maps, EVENTS), COARSE, -1, 1)["roc_auc"] == head["roc_auc"].iloc[0]


def test_narrowed_maps_keep_their_labels(rng):
    maps = made(rng)
    whole, part = profile(maps, EVENTS), profile(maps.select(steps=[0, 2]), EVENTS)
    assert sorted(set(part["step"])) == [-1, 0, 2]
    assert cell(part, FINE, 2, 1)["roc_auc"] == cell(whole, FINE, 2, 1)["roc_auc"]
    assert cell(part, FINE, 2, 1)["timestep"] == 500.0


def test_axes_that_were_summed_out_have_their_mean_alone(rng):
    dims = ("prompt", "image", "token", "row", "column")
    layers = {FINE: LayerAttention(rng.random((1, 1, 16, 3, COLUMNS), dtype=np.float32), dims, 4)}
    maps = AttentionMaps.from_layers(
        layers, tokens=[token_table(PROMPT)], positions=range(16), timesteps=[3.0, 2.0], grid=GRID
    )
    table = profile(maps, EVENTS)
    assert len(table) == 4
    assert set(table["step"]) == set(table["head"]) == {-1}
    assert table["partial"].isna().all()  # no spectrogram, no energy


def test_undefined_phrases_are_kept_and_score_nothing(rng):
    rows = event_rows(("dog barks", np.nan, np.nan), ("rain falls", 0.0, 0.72))
    table = profile(made(rng), rows)
    assert set(table["undefined"]) == {"silent in the clip", "over the whole clip"}
    assert table[["roc_auc", "pearson", "spearman", "partial"]].isna().all(axis=None)
    pooled = pool_profile(table)
    assert pooled["value"].isna().all()
    assert (pooled["phrases"] == 0).all()
    nothing = profile(made(rng), event_rows(("", np.nan, np.nan)))
    assert len(nothing) == len(pool_profile(nothing)) == 0
    assert list(nothing.columns) == list(table.columns)


def test_what_cannot_be_scored_is_refused(rng):
    maps = made(rng)
    with pytest.raises(PromptError, match="is not in the caption"):
        profile(maps, event_rows(("a cat meows", 0.1, 0.2)))
    with pytest.raises(EventsError, match="2 clips"):
        profile(maps, pd.concat([EVENTS, EVENTS.assign(clip="other")]))
    for choice in ({"prompt_index": 1}, {"sample": 1}, {"pool": "most"}):
        with pytest.raises(MapsError):
            profile(maps, EVENTS, **choice)
    with pytest.raises(MapsError, match=r"lacks the columns \['roc_auc'\]"):
        pool_profile(profile(maps, EVENTS).drop(columns="roc_auc"))
    for number in (0, 1.5, True):
        with pytest.raises(MapsError, match="n_resamples"):
            pool_profile(profile(maps, EVENTS), n_resamples=number)


# ---- many clips ------------------------------------------------------------------------------------------


def test_pools_average_phrases_and_draw_whole_sources(rng):
    profiles = []
    for clip in range(12):
        events = EVENTS.assign(clip=f"{clip}", source=[f"a{clip % 6}", f"b{clip % 6}"])
        profiles.append(profile(made(rng, right=[(FINE, 2, 1)]), events))
    joined = pd.concat(profiles, ignore_index=True)
    pooled = pool_profile(joined, n_resamples=400).set_index(["score", "layer", "step", "head"])
    right, wrong = pooled.loc["roc_auc", FINE, 2, 1], pooled.loc["roc_auc", FINE, 0, 0]
    assert right["value"] == right["low"] == right["high"] == 1.0
    assert right["phrases"] == 24
    assert right["sources"] == 12
    assert right["timestep"] == 500.0
    noise = joined[(joined["layer"] == FINE) & (joined["step"] == 0) & (joined["head"] == 0)]
    assert wrong["value"] == pytest.approx(noise["roc_auc"].mean())
    assert wrong["low"] < 0.5 < wrong["high"]
    # The interval is that of the means of whole sources, drawn with replacement.
    by_source = noise.groupby("source")["roc_auc"].mean().to_numpy()
    spread = by_source.std() / np.sqrt(len(by_source))
    assert wrong["high"] - wrong["low"] == pytest.approx(2 * 1.96 * spread, rel=0.25)


def test_seeds_of_one_prompt_are_one_unit(rng):
    """Ten seeds of two prompts are two units and no twenty: an interval of two."""
    profiles = [
        profile(made(rng), EVENTS.assign(clip=f"prompt {prompt}")) for prompt in range(2) for _ in range(10)
    ]
    pooled = pool_profile(pd.concat(profiles))
    assert set(pooled.loc[pooled["score"] == "roc_auc", "sources"]) == {2}
    assert set(pooled.loc[pooled["score"] == "roc_auc", "phrases"]) == {40}
    one = pool_profile(pd.concat(profiles[:10]))
    assert one["low"].isna().all()


def test_a_profile_keeps_the_class_and_is_pooled_by_it(rng):
    events = EVENTS.assign(**{"class": ["Dog", "Rain"]})
    joined = pd.concat([profile(made(rng), events.assign(clip=f"{number}")) for number in range(4)])
    assert set(zip(joined["label"], joined["class"], strict=True)) == {
        ("dog barks", "Dog"),
        ("rain falls", "Rain"),
    }
    assert set(profile(made(rng), EVENTS)["class"]) == {""}
    pooled = pool_profile(joined, by="class", n_resamples=50)
    for name in ("Dog", "Rain"):
        alone = pool_profile(joined[joined["class"] == name], n_resamples=50)
        own = pooled[pooled["class"] == name].drop(columns="class").reset_index(drop=True)
        pd.testing.assert_frame_equal(
            own.sort_values(["score", "layer", "step", "head"], ignore_index=True),
            alone.sort_values(["score", "layer", "step", "head"], ignore_index=True),
        )
    assert list(pool_profile(joined.iloc[:0], by=["class"]).columns)[:2] == ["class", "layer"]
    with pytest.raises(MapsError, match=r"lacks the columns \['species'\]"):
        pool_profile(joined, by="species")
    with pytest.raises(MapsError, match="already columns of the result"):
        pool_profile(joined, by="layer")
