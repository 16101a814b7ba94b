from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from alignment_synthetic import COLUMNS, DOG, GRID, HEARD, PROMPT, RAIN, event_rows, planted_maps

import attnviz
from attnviz.alignment import Alignment, align, roc_auc
from attnviz.audio import SpectrogramGrid
from attnviz.errors import AttnVizError, EventsError, MapsError, PromptError
from attnviz.events import column_activity
from attnviz.report import payload_of


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def maps(rng):
    log_mel = rng.normal(size=(GRID.height, GRID.width))
    return planted_maps({DOG: rng.random(COLUMNS), RAIN: rng.random(COLUMNS)}, log_mel=log_mel)


DOG_ROW = ("dog barks", 0.1, 0.3)


def of(result, method="map", label="dog barks"):
    rows = result.table
    return rows[(rows["method"] == method) & (rows["label"] == label)].iloc[0]


def test_the_front_door():
    assert attnviz.align is align


def test_scores_are_of_the_readouts_own_columns(maps):
    result = align(maps, event_rows(DOG_ROW))
    curve = maps.activation(DOG).to_numpy()
    share = column_activity([0.1], [0.3], GRID, COLUMNS)
    assert np.isnan(curve[HEARD:]).all()
    wanted = roc_auc(curves=curve[:HEARD], active=share[:HEARD] >= 0.5)
    assert of(result)["roc_auc"] == pytest.approx(wanted, abs=1e-12)
    assert of(result)["column_ms"] == pytest.approx(20.0)
    assert result.column_ms == (20.0,)
    assert "columns of 20 ms" in result.summary()


def test_padding_takes_no_part(rng):
    first, second = rng.random((2, COLUMNS))
    changed = np.where(np.arange(COLUMNS) >= HEARD, 7.0, first)
    mel = rng.normal(size=(GRID.height, GRID.width))
    loud = np.where(np.arange(GRID.width) >= 2 * HEARD, 9.0, mel)
    one = align(planted_maps({DOG: first, RAIN: second}, log_mel=mel), event_rows(DOG_ROW))
    two = align(planted_maps({DOG: changed, RAIN: second}, log_mel=loud), event_rows(DOG_ROW))
    pd.testing.assert_frame_equal(one.table, two.table)


def test_energy_is_that_of_the_columns(maps):
    phrase = align(maps, event_rows(DOG_ROW)).phrases[0]
    mel = maps.spectrogram.to_numpy()[0, 0].astype(np.float64)
    by_hand = np.log(np.exp(2 * mel).reshape(GRID.height, COLUMNS, 2).mean(axis=2).sum(axis=0))
    np.testing.assert_allclose(phrase.energy, by_hand[:HEARD], rtol=1e-12)
    assert len(phrase.energy) == HEARD


def test_without_a_spectrogram_there_is_no_energy_control(rng):
    result = align(planted_maps({DOG: rng.random(COLUMNS), RAIN: rng.random(COLUMNS)}), event_rows(DOG_ROW))
    assert "energy" not in set(result.table["method"])
    assert np.isnan(of(result)["partial"])
    assert np.isfinite(of(result)["roc_auc"])
    assert "no spectrogram" in result.summary()


def test_a_layer_of_its_own_width(rng):
    coarse = planted_maps({DOG: rng.random(10), RAIN: rng.random(10)})
    result = align(coarse, event_rows(DOG_ROW), readout="down.0.0")
    assert result.column_ms == (80.0,)
    assert len(result.phrases[0].share) == 9
    with pytest.raises(MapsError, match="Unknown readout"):
        align(coarse, event_rows(DOG_ROW), readout="down.9.9")


# ---- phrases -----------------------------------------------------------------------------------------------


def test_events_of_a_phrase_are_one_activity(maps):
    rows = event_rows(("dog barks", 0.4, 0.5), DOG_ROW, ("dog barks", 0.2, 0.35), ("rain falls", 0, 0.1))
    result = align(maps, rows)
    assert [phrase.events.label for phrase in result.phrases] == ["dog barks", "rain falls"]
    expected = column_activity([0.1, 0.4], [0.35, 0.5], GRID, COLUMNS)[:HEARD]
    np.testing.assert_allclose(result.phrases[0].share, expected)
    assert result.phrases[0].onset == 0.1


def test_spans_go_before_labels(rng):
    prompt = "a dog and another dog"
    first, second = rng.random((2, COLUMNS))
    maps = planted_maps({(2, 5): first, (18, 21): second}, prompt=prompt)
    by_span = event_rows(("dog", 0.1, 0.2), ("hound", 0.3, 0.5)).assign(span=[(18, 21), (2, 5)])
    result = align(maps, by_span)
    assert [phrase.events.label for phrase in result.phrases] == ["hound", "dog"]
    np.testing.assert_allclose(result.phrases[1].curves["map"][0], second[:HEARD], rtol=1e-6)
    with pytest.raises(PromptError, match=r"occurs 2 times .*'dog' at 2:5, 'dog' at 18:21.*column span"):
        align(maps, event_rows(("dog", 0.1, 0.2)))


def test_events_of_other_captions_are_for_other_maps(maps):
    rows = event_rows(DOG_ROW, ("rain falls", 0.3, 0.5), ("a cat", 0.0, 0.1))
    rows = rows.assign(caption=[PROMPT, None, "a cat meows"], span=[DOG, RAIN, (0, 5)])
    result = align(maps, rows)
    assert [phrase.events.label for phrase in result.phrases] == ["dog barks", "rain falls"]
    with pytest.raises(EventsError, match=r"1 caption, 'a cat meows', and none .*'a dog barks, then"):
        align(maps, rows.iloc[2:])


def test_undefined_phrases_are_counted_and_listed(maps):
    rows = event_rows(("dog", 0.2, 0.2), ("barks", 0, 0.72), ("rain", np.nan, np.nan), ("falls", 0.105, 0.112))
    result = align(maps, rows)
    assert result.undefined["reason"].tolist() == [
        *("zero-length events only", "over the whole clip"),
        *("silent in the clip", "shorter than half a column"),
    ]
    scores = result.table.loc[:, "roc_auc":]
    assert scores.isna().all(axis=None)
    assert result.counts["scored"] == 0
    assert result.counts["zero-length events"] == 1
    summary = result.summary()
    assert "1 silent in the clip" in summary
    assert "No phrase could be scored" in summary


@pytest.mark.parametrize(("onset", "offset", "active"), [
    (0.11, 0.15, [5, 6, 7]), (0.1101, 0.15, [6, 7]), (0.11, 0.1499, [5, 6]), (0.11, 0.13, [5, 6]),
])  # fmt: skip
def test_a_column_is_active_from_exactly_half_of_it(maps, onset, offset, active):
    """Columns of 20 ms: the fifth is from 0.10 to 0.12 s."""
    result = align(maps, event_rows(("dog barks", onset, offset)))
    assert np.flatnonzero(result.phrases[0].active).tolist() == active
    assert result.counts["scored"] == 1


def test_zero_length_events_beside_others_are_not_scored(maps):
    with_it = align(maps, event_rows(DOG_ROW, ("dog barks", 0.05, 0.05)))
    without = align(maps, event_rows(DOG_ROW))
    pd.testing.assert_frame_equal(with_it.table, without.table)
    assert with_it.counts["zero-length events"] == 1


def test_ends_just_past_the_audio_are_cut(maps):
    cut, exact = (align(maps, event_rows(("dog barks", 0.5, end))) for end in (0.76, 0.72))
    pd.testing.assert_frame_equal(cut.table, exact.table)
    assert cut.counts["events cut at the end of their clip"] == 1
    with pytest.raises(EventsError, match=r"ends at 0.78 s, but the audio ends at 0.72 s"):
        align(maps, event_rows(("dog barks", 0.5, 0.78)))


def test_a_clip_without_events(maps):
    empty = align(maps, event_rows(("", np.nan, np.nan)))
    assert len(empty.phrases) == len(empty.table) == 0
    assert "No phrase could be scored" in empty.summary()
    full = align(maps, event_rows(DOG_ROW, clip="y.wav"))
    assert len(Alignment.concat([empty, full]).phrases) == 1


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (
            event_rows(("a cat meows", 0.1, 0.2)),
            PromptError,
            "not in the caption .*as a class.* are a, dog",
        ),
        (pd.concat([event_rows(DOG_ROW), event_rows(DOG_ROW, clip="y")]), EventsError, "2 clips, .*concat"),
        (event_rows(DOG_ROW, DOG_ROW, source=["a", "b"]), EventsError, "2 source recordings"),
        (event_rows(DOG_ROW, span=[(2, 99)]), PromptError, "99"),
        (pd.DataFrame({"clip": ["x"]}), EventsError, "needs the columns"),
    ],
)
def test_events_that_do_not_fit(maps, rows, error, message):
    with pytest.raises(error, match=message):
        align(maps, rows)


@pytest.mark.parametrize("choice", [{"prompt_index": 1}, {"prompt_index": -1}, {"sample": 3}, {"pool": "most"}])
def test_unknown_choices(maps, choice):
    with pytest.raises(MapsError):
        align(maps, event_rows(DOG_ROW), **choice)


def test_no_column_holds_audio(rng):
    grid = SpectrogramGrid(height=6, width=80, audio_seconds=0.01)
    maps = planted_maps({DOG: rng.random(COLUMNS), RAIN: rng.random(COLUMNS)}, grid=grid)
    assert len(align(maps, event_rows(("dog barks", 0, 0.01))).phrases) == 1
    coarse = planted_maps({DOG: rng.random(10), RAIN: rng.random(10)}, grid=grid)
    with pytest.raises(MapsError, match="no column contains audio"):
        align(coarse, event_rows(("dog barks", 0, 0.01)))


# ---- controls ----------------------------------------------------------------------------------------------


def test_constant_and_reversed(maps):
    result = align(maps, event_rows(DOG_ROW))
    assert of(result, "constant")["roc_auc"] == 0.5
    assert np.isnan(of(result, "constant")["pearson"])
    phrase = result.phrases[0]
    backwards = roc_auc(curves=phrase.curves["map"][0][::-1], active=phrase.active)
    assert of(result, "reversed")["roc_auc"] == pytest.approx(backwards)
    assert "other_clip" not in set(result.table["method"])


def test_given_maps_are_draws(maps, rng):
    seeds = [planted_maps({DOG: rng.random(COLUMNS), RAIN: rng.random(COLUMNS)}) for _ in range(3)]
    result = align(maps, event_rows(DOG_ROW), controls={"random weights": seeds})
    rows = result.table[result.table["method"] == "random weights"]
    assert rows["draw"].tolist() == [0, 1, 2]
    alone = [of(align(one, event_rows(DOG_ROW)))["roc_auc"] for one in seeds]
    np.testing.assert_allclose(rows["roc_auc"], alone)
    scores = result.pooled.scores.set_index(["method", "score"])
    assert scores.loc[("random weights", "roc_auc"), "value"] == pytest.approx(np.mean(alone))
    assert scores.loc[("random weights", "roc_auc"), "phrases"] == 1


def test_another_caption_is_read_at_the_phrase_or_at_every_word(maps, rng):
    meow, dog, same = rng.random((3, COLUMNS))
    other = planted_maps({(2, 5): meow, (6, 11): dog}, prompt="a cat meows")
    result = align(maps, event_rows(DOG_ROW), controls={"cat": other})
    assert result.table.query("method == 'cat'")["draw"].tolist() == [0, 1, 2]  # a, cat, meows
    again = planted_maps({(6, 15): same}, prompt="then, dog barks")
    result = align(maps, event_rows(DOG_ROW), controls={"again": again})
    np.testing.assert_allclose(result.phrases[0].curves["again"][0], same[:HEARD], rtol=1e-6)


def test_a_coarser_control_is_brought_to_the_same_columns(maps, rng):
    coarse = planted_maps({DOG: rng.random(10), RAIN: rng.random(10)}, rows=2)
    result = align(maps, event_rows(DOG_ROW), controls={"coarse": coarse})
    assert result.phrases[0].curves["coarse"][0].shape == (HEARD,)


def test_controls_that_do_not_fit(maps, rng):
    longer = SpectrogramGrid(height=6, width=80)
    curves = {DOG: rng.random(COLUMNS), RAIN: rng.random(COLUMNS)}
    cases = [
        ({"map": maps}, "cannot be named 'map'"),
        ({"": maps}, "cannot be named ''"),
        ({"random": []}, "contains nothing"),
        ({"random": [1.0]}, "float"),
        ({"random": planted_maps(curves, grid=longer)}, "a different grid"),
        ({"random": planted_maps(curves, images=2)}, "2 images, but the maps have 1"),
    ]
    for controls, message in cases:
        with pytest.raises(MapsError, match=message):
            align(maps, event_rows(DOG_ROW), controls=controls)


# ---- masks -------------------------------------------------------------------------------------------------


def test_iou_of_events_with_bands():
    centres = GRID.freq(3)
    heat = np.zeros((3, COLUMNS))
    heat[1, 5:15] = 1.0
    maps = planted_maps({DOG: heat, RAIN: heat}, log_mel=np.ones((GRID.height, GRID.width)))
    band = {"low": centres[1] - 10, "high": centres[1] + 10}
    result = align(maps, event_rows(("dog barks", 0.1, 0.3), **band))
    assert of(result)["iou"] == pytest.approx(1.0)
    chance = 10 / (3 * HEARD)
    assert of(result, "constant")["iou"] == pytest.approx(chance / (2 - chance))
    assert of(result, "energy")["iou"] == pytest.approx(chance / (2 - chance))
    assert of(result, "reversed")["iou"] == 0.0
    one_without = event_rows(("dog barks", 0.1, 0.3), ("dog barks", 0.4, 0.5)).assign(
        low=[band["low"], np.nan], high=[band["high"], np.nan]
    )
    assert np.isnan(of(align(maps, one_without))["iou"])


def test_iou_of_given_shares(rng):
    shares = np.zeros((2, 6, 80))
    shares[0, 2:4, 10:30] = 0.8  # on the maps' grid: row 1, columns 5 to 14
    masks = xr.DataArray(shares, {"source": ["dog barks", "background"]}, ("source", "freq", "time"))
    heat = np.zeros((3, COLUMNS))
    heat[1, 5:15] = 1.0
    results = [
        align(planted_maps({DOG: heat, RAIN: heat}), event_rows(DOG_ROW, clip=name), masks=masks) for name in "ab"
    ]
    assert of(results[0])["iou"] == pytest.approx(1.0)
    assert of(Alignment.concat(results), "other_clip")["iou"] == pytest.approx(1.0)
    assert np.isnan(of(align(planted_maps({DOG: heat, RAIN: heat}), event_rows(DOG_ROW)))["iou"])
    for bad, message in (
        (masks.rename(source="label"), "the dims"),
        (masks.assign_coords(source=["x", "x"]), "repeated labels"),
        (masks * 2, "fractions"),
    ):
        with pytest.raises(MapsError, match=message):
            align(planted_maps({DOG: heat, RAIN: heat}), event_rows(DOG_ROW), masks=bad)


def test_a_cell_is_in_the_mask_from_exactly_half_of_it():
    """Once of events with bands, once of given shares."""
    centres = GRID.freq(3)
    heat = np.zeros((3, COLUMNS))
    heat[1, 5:8] = 1.0
    maps = planted_maps({DOG: heat, RAIN: heat})
    rows = event_rows(("dog barks", 0.11, 0.15), low=centres[1] - 10, high=centres[1] + 10)
    mask = align(maps, rows).phrases[0].mask
    np.testing.assert_array_equal(mask, (heat > 0)[:, : mask.shape[1]])
    shares = np.zeros((1, 6, 80))  # a cell of the maps is 2 x 2 of these
    shares[0, 2, 10:12] = 1.0  # half of the bands
    shares[0, 2:4, 12] = 1.0  # half of the frames
    shares[0, 2:4, 14:16] = 0.5
    shares[0, 2:4, 16:18] = 0.4999
    masks = xr.DataArray(shares, {"source": ["dog barks"]}, ("source", "freq", "time"))
    mask = align(maps, event_rows(DOG_ROW), masks=masks).phrases[0].mask
    np.testing.assert_array_equal(mask, (heat > 0)[:, : mask.shape[1]])


# ---- pooling -----------------------------------------------------------------------------------------------


def test_concat_keeps_every_score(maps, rng):
    others = planted_maps({DOG: rng.random(COLUMNS), RAIN: rng.random(COLUMNS)}, log_mel=np.ones((6, 80)))
    single = [align(maps, event_rows(DOG_ROW)), align(others, event_rows(DOG_ROW, clip="y.wav"))]
    pooled = Alignment.concat(single)
    together = pd.concat([one.table.assign(phrase=i) for i, one in enumerate(single)], ignore_index=True)
    without = pooled.table[~pooled.table["method"].isin(["other_clip", "order"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(without, together)
    assert set(pooled.table["method"]) - set(together["method"]) == {"other_clip", "order"}
    swapped = roc_auc(curves=pooled.phrases[1].curves["map"][0], active=pooled.phrases[0].active)
    assert of(pooled, "other_clip")["roc_auc"] == pytest.approx(swapped)


def test_concat_refuses_a_mismatch(maps):
    plain = align(maps, event_rows(DOG_ROW))
    for other, message in (
        (align(maps, event_rows(DOG_ROW), readout="down.0.0"), "different readout.*'down.0.0' instead of 'mean'"),
        (align(maps, event_rows(DOG_ROW), seed=1), "different seed"),
        (align(maps, event_rows(DOG_ROW), controls={"random": maps}), "different controls"),
    ):
        with pytest.raises(MapsError, match=message):
            Alignment.concat([plain, other])
    with pytest.raises(MapsError, match="0 alignments"):
        Alignment.concat([])


def test_units_are_sources_or_clips(maps):
    named = align(maps, event_rows(DOG_ROW, ("rain falls", 0.3, 0.5), source=["a", "b"]))
    assert named.unit == "source recordings"
    assert named.table["source"].unique().tolist() == ["a", "b"]
    plain = align(maps, event_rows(DOG_ROW, ("rain falls", 0.3, 0.5), clip="y"))
    assert "clips" in plain.unit
    scores = plain.pooled.scores
    assert scores["low"].isna().all()
    assert "No intervals: the bootstrap resamples clips" in plain.summary()
    assert "or clips if" in Alignment.concat([named, plain]).unit


@pytest.mark.parametrize("choice", [{"n_resamples": 0}, {"n_permutations": 2.5}, {"n_resamples": True}])
def test_bad_numbers_of_draws(maps, choice):
    with pytest.raises(AttnVizError, match="whole number from 1 to"):
        align(maps, event_rows(DOG_ROW)).pool(**choice)


def test_prompt_is_the_one_planted():
    assert (PROMPT[slice(*DOG)], PROMPT[slice(*RAIN)]) == ("dog barks", "rain falls")


def test_phrases_are_named_as_the_prompt_writes_them(maps):
    """A label may be a class of sounds; tables, verdicts and figures name the phrase that was scored."""
    result = align(maps, event_rows(("Dog_bark", 0.1, 0.3), ("Rain", 0.2, 0.5)))
    named = result.table.drop_duplicates("phrase")
    assert named["label"].tolist() == ["Dog_bark", "Rain"]
    assert named["text"].tolist() == [
        PROMPT[start:end] for start, end in zip(named["start"], named["end"], strict=True)
    ]
    assert named["text"].tolist() == ["a dog barks", "rain"]
    ticks = [tick.get_text() for tick in attnviz.plots.phrase_scores(result.table).get_yticklabels()]
    assert ticks == ["a dog barks", "rain"]
    old = result.table.drop(columns="text")
    assert [tick.get_text() for tick in attnviz.plots.phrase_scores(old).get_yticklabels()] == ["Dog_bark", "Rain"]
    lanes = attnviz.plots.activations(maps, event_rows(("Dog_bark", 0.1, 0.3))).get_yticklabels()
    assert [tick.get_text() for tick in lanes] == ["a dog barks"]
    rows = payload_of(maps, scores=result.table)["scores"]["rows"]
    assert list(dict.fromkeys(row["phrase"] for row in rows)) == ["a dog barks", "rain"]
