"""What figures ask of maps, against literal computation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from maps.maps_synthetic import GRID, PROMPT, SMALL, captured, make, table
from scipy import stats

from attnviz.errors import MapsError, PromptError
from attnviz.maps import LayerAttention, attention_share, step_activation, token_activation, word_overlap
from attnviz.testing import example_events, example_maps

HEARD = ~GRID.padding(9)


@pytest.fixture(scope="module")
def kept():
    return make(captured(SMALL, steps=3, heads=2))


def test_each_step_is_the_activation_of_that_step_alone(kept):
    rows = step_activation(kept, "dog barks", pool="max", readout="up.2.0")
    assert rows.dims == ("step", "time")
    assert rows["timestep"].to_numpy().tolist() == [981.0, 501.0, 1.0]
    attention = kept["up.2.0"].to_numpy()[0, 0]  # step, head, token, freq, time
    for step in range(3):
        tokens = attention[step][:, kept.tokens[0].find("dog barks")].mean(axis=0, dtype=float)
        np.testing.assert_allclose(rows[step].to_numpy()[HEARD], tokens.max(axis=0).mean(axis=0)[HEARD], rtol=1e-6)
    assert np.isnan(rows.to_numpy()[:, ~HEARD]).all()
    np.testing.assert_allclose(
        step_activation(kept, "dog").mean("step"), kept.activation("dog"), rtol=1e-5, equal_nan=True
    )
    narrowed = step_activation(kept.select(steps=[0, 2]), "dog")
    assert narrowed["step"].to_numpy().tolist() == [0, 2]
    with pytest.raises(MapsError, match=r"keep=\('step',\)"):
        step_activation(make(), "dog")


def test_tokens_stand_by_their_positions(kept):
    rows = token_activation(kept)
    assert rows["token_text"].to_numpy().tolist() == ["a", "dog", "bark", "s", ",", "then", "rain", "fall", "s"]
    for number, position in enumerate(rows["token"].to_numpy()):
        np.testing.assert_array_equal(rows[number], kept.token_activation(int(position)))
    kinds = token_activation(kept, special_tokens=True)["token_kind"].to_numpy().tolist()
    assert (kinds[0], kinds[-1], len(kinds)) == ("start", "end", 11)
    with pytest.raises(MapsError, match="no prompt 1"):
        token_activation(kept, prompt_index=1)


def test_shares_of_all_tokens_sum_to_one(kept):
    words = [*(attention_share(kept, word.span)["share"] for word in kept.occurrences())]
    table_ = attention_share(kept, "dog barks")
    assert table_["layer"].unique().tolist() == ["down.0.0", "down.1.0", "mid.0", "up.1.0", "up.2.0"]
    assert table_["head"].tolist() == [0, 1] * 5
    # "barks" has two tokens: a phrase of three tokens is their mean, as in its map
    np.testing.assert_allclose(table_["share"], (words[1] + 2 * words[2]) / 3)
    whole = attention_share(make(), "dog barks").iloc[0]
    heat = make().select(layers=make().layers[:1]).heatmap("dog barks")
    assert whole["share"] == pytest.approx(float(heat[:, ~heat["padding"]].mean()), rel=1e-5)
    cells = kept["down.1.0"].to_numpy()[0, 0][..., ~GRID.padding(5)]
    wanted = cells.sum(axis=2).mean()  # over every key
    assert wanted == pytest.approx(1.0, rel=1e-5)
    own = cells[:, 1][:, kept.tokens[0].find("rain")].mean(axis=1).mean(dtype=float)
    got = attention_share(kept, "rain").set_index(["layer", "head"]).loc[("down.1.0", 1), "share"]
    assert got == pytest.approx(own, rel=1e-6)
    assert attention_share(make(), "rain")["head"].unique().tolist() == [-1]
    with pytest.raises(PromptError):
        attention_share(kept, "cat")


def planted(**rows):
    """One layer, 2 x 6 cells without padding; words by their maps."""
    prompt = " ".join(rows)
    tokens = table(prompt, keys=8)
    attention = np.zeros((1, 1, 8, 2, 6))
    for word, values in rows.items():
        attention[0, 0, tokens.find(word)] = values
    layers = {
        "mid_block.attentions.0": LayerAttention(attention, ("prompt", "image", "token", "row", "column"), 2)
    }
    return make(layers, tokens=[tokens], positions=range(8), grid=type(GRID)(height=2, width=6))


def test_overlap_has_its_known_values():
    left, right = np.zeros((2, 6)), np.zeros((2, 6))
    left[:, :3] = 1
    right[:, 3:] = 5
    maps = planted(one=left, two=right, both=left + right / 5, same=left * 7, none=left * 0)
    values = word_overlap(maps)
    assert values["word"].to_numpy().tolist() == ["one", "two", "both", "same", "none"]
    expected = np.array([[1, 0, 0.5, 1], [0, 1, 0.5, 0], [0.5, 0.5, 1, 0.5], [1, 0, 0.5, 1]])
    np.testing.assert_allclose(values.to_numpy()[:4, :4], expected, atol=1e-7)
    assert np.isnan(values.to_numpy()[4]).all()
    correlation = word_overlap(maps, measure="correlation").to_numpy()
    np.testing.assert_allclose(correlation[0, [0, 1, 3]], [1, -1, 1], atol=1e-7)
    assert np.isnan(correlation[2]).all()  # both: the same everywhere
    with pytest.raises(MapsError, match="'overlap' or 'correlation'"):
        word_overlap(maps, measure="iou")


def test_correlation_vs_scipy(kept):
    values = word_overlap(kept, measure="correlation").to_numpy()
    heats = [kept.heatmap(word.span).to_numpy()[:, HEARD].ravel() for word in kept.occurrences()]
    for i, j in itertools.product(range(6), repeat=2):
        assert values[i, j] == pytest.approx(stats.pearsonr(heats[i], heats[j]).statistic, abs=1e-6)


def test_a_clip_of_no_column_says_so():
    short = make(grid=type(GRID)(height=40, width=72, audio_seconds=0.001))
    with pytest.raises(MapsError, match="No column of the maps contains audio"):
        word_overlap(short)
    assert attention_share(short, "dog")["share"].isna().all()


def test_the_example_is_what_it_says():
    maps = example_maps(steps=2, heads=3, both=True)
    assert maps.branch == "both"
    assert maps.prompts == [PROMPT]
    for name in maps.layers:
        np.testing.assert_allclose(maps[name].sum("token"), 1, rtol=1e-5)
    events = example_events()
    for label, onset, offset, low, high in events[["label", "onset", "offset", "low", "high"]].to_numpy():
        heat = maps.heatmap(label)
        inside = heat.sel(freq=slice(low, high), time=slice(onset + 0.2, offset - 0.2))
        assert float(inside.min()) > 1.5 * float(heat.median())
    assert example_maps().tree.identical(example_maps().tree)
    assert not example_maps(seed=1).tree.identical(example_maps().tree)
