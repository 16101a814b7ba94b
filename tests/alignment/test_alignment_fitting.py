"""Fitting readouts to planted maps whose right weights are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from alignment_synthetic import COLUMNS, DOG, GRID, HEARD, PROMPT, RAIN, event_rows
from maps.maps_synthetic import table as token_table
from sklearn.metrics import roc_auc_score

from attnviz.alignment import align, fit_readout, fitting, weights
from attnviz.alignment.calibration import read_clips, splits
from attnviz.errors import AttnVizError, EventsError, MapsError
from attnviz.events import column_activity
from attnviz.maps import AttentionMaps, FittedReadout, LayerAttention, ReadoutPart

A, B, C, D = (f"{place}.attentions.0" for place in ("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.1"))
ROWS = 3
TIMESTEPS = [50.0, 150.0, 400.0]


def right(share, rng):
    return share


def inverted(share, rng):
    return 1 - share


def noise(share, rng):
    return rng.random(len(share))


def halfway(share, rng):
    return share + 0.8 * rng.normal(size=len(share))


def planted(layers, shares, rng, *, columns, prompt=PROMPT, **facts):
    """Maps whose layers hold, for each step and head, curves made of a phrase's shares.

    `layers` maps a name to a maker, or to rows of makers: steps, and in each the heads.
    """
    tokens = token_table(prompt)
    arrays = {}
    for name, makers in layers.items():
        rows = makers if isinstance(makers, list) else [[makers]]
        width = columns.get(name, COLUMNS)
        attention = np.full((1, 1, len(rows), len(rows[0]), 16, ROWS, width), 0.01, dtype=np.float32)
        for span, share in shares.items():
            for step, of_step in enumerate(rows):
                for head, maker in enumerate(of_step):
                    curve = maker(share, rng).reshape(width, -1).mean(axis=1)
                    # How much there is in all says nothing: another level for every phrase.
                    curve = rng.uniform(0.01, 0.1) * np.clip(1 + curve, 0.05, None)
                    attention[0, 0, step, head, tokens.find(span)] = curve
        arrays[name] = LayerAttention(
            attention, ("prompt", "image", "step", "head", "token", "row", "column"), len(rows[0])
        )
    timesteps = TIMESTEPS[: len(rows)]
    return AttentionMaps.from_layers(
        arrays, tokens=[tokens], positions=range(16), timesteps=timesteps, grid=GRID,
        provenance={"model": "planted", "image": int(rng.integers(1000)), **facts},
    )  # fmt: skip


def clips(layers, *, number=24, recordings=30, seed=0, columns=None):
    """Clips of two sounds each; recordings recur over clips."""
    rng = np.random.default_rng(seed)
    made = []
    for clip in range(number):
        lengths = rng.uniform(0.12, 0.3, 2)
        starts = rng.uniform(0.06 - lengths, 0.72 - 0.06)
        onsets, offsets = np.maximum(starts, 0.0), np.minimum(starts + lengths, 0.72)
        shares = {
            span: column_activity([on], [off], GRID, COLUMNS)
            for span, on, off in zip((DOG, RAIN), onsets, offsets, strict=True)
        }
        # Each time round with other partners, so that recordings can be held out.
        names = [2 * clip % recordings, (2 * clip + 1 + 2 * (2 * clip // recordings)) % recordings]
        events = event_rows(
            ("dog barks", onsets[0], offsets[0]), ("rain falls", onsets[1], offsets[1]),
            clip=f"{clip}.wav", source=[f"recording {name}" for name in names],
        )  # fmt: skip
        made.append((planted(layers, shares, rng, columns=columns or {}), events))
    return made


def weights_of(fit):
    return {(part.layer, part.head, part.timesteps): part.weight for part in fit.readout.parts}


def gain(fit, over):
    return fit.gains.set_index("over").loc[over]


# ---- known answers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_right():
    return fit_readout(clips({A: noise, B: right, C: noise, D: inverted}, columns={A: 20, C: 10}))


def test_the_one_layer_that_is_right_gets_the_weight(one_right):
    assert weights_of(one_right) == {(B, None, None): 1.0}
    scores = one_right.scores.set_index("method")["value"]
    assert scores["fitted"] == scores["best layer"] > 0.99
    assert gain(one_right, "mean")["verdict"] == "better"
    assert gain(one_right, "best layer")["verdict"] == "no difference shown"
    assert set(one_right.table["layer"]) == {B}


def test_the_head_that_is_right_gets_the_weight():
    made = clips({A: [[noise, inverted]], B: [[inverted, right]]})
    assert weights_of(fit_readout(made, heads=True)) == {(B, 1, None): 1.0}
    assert fit_readout(made).scores["value"][0] < 0.8  # the heads of a layer cancel out


def test_the_timesteps_that_are_right_get_the_weight():
    made = clips({A: [[noise], [noise], [noise]], B: [[right], [right], [inverted]]})
    ranges = ((0, 100), (100, 200), (200, 500))
    found = weights_of(fit_readout(made, timesteps=ranges))
    assert (B, None, (200.0, 500.0)) not in found
    assert found.get((B, None, (0.0, 100.0)), 0) + found.get((B, None, (100.0, 200.0)), 0) > 0.95
    assert weights_of(fit_readout(made, timesteps=ranges[2:])).keys() == {(A, None, (200.0, 500.0))}


def test_two_layers_that_complement_each_other_beat_each():
    fit = fit_readout(clips({A: halfway, B: noise, C: halfway}, number=30))
    found = weights_of(fit)
    assert found[A, None, None] == pytest.approx(0.5, abs=0.12)
    assert found[C, None, None] == pytest.approx(0.5, abs=0.12)
    assert gain(fit, "best layer")["verdict"] == "better"
    assert gain(fit, "best layer")["value"] > 0.03


@pytest.mark.parametrize("seed", range(3))
def test_noise_gains_nothing(seed):
    fit = fit_readout(clips(dict.fromkeys((A, B, C, D), noise), seed=seed))
    fitted = fit.scores.iloc[0]
    assert fitted["low"] < 0.5 < fitted["high"]
    assert (fit.gains["low"] <= 0).all()


def test_what_is_inverted_everywhere_is_told(one_right):
    fit = fit_readout(clips({A: inverted, B: inverted}))
    assert fit.scores["value"][0] < 0.05
    assert sum(weights_of(fit).values()) == pytest.approx(1.0)


# ---- no leakage ------------------------------------------------------------------------------------------


def leaky(examples, folds):
    """Every phrase in a fold of its own turn, whatever its recording."""
    numbers = np.arange(len(examples))
    for fold in range(folds):
        yield numbers[numbers % folds != fold].tolist(), numbers[numbers % folds == fold].tolist()


def test_a_layer_that_knows_the_recording_is_not_rewarded(monkeypatch):
    """Half of the phrases are of one recording; one layer is right for that, and noise for all others."""
    known = clips({A: right, B: noise, C: noise}, number=12)
    others = clips({A: noise, B: noise, C: noise}, number=12, seed=1)
    made = [(maps, events.assign(source="known", clip=f"known {n}.wav")) for n, (maps, events) in enumerate(known)]
    fit = fit_readout(made + others)
    assert fit.scores["value"][0] < 0.58
    monkeypatch.setattr(fitting, "splits", leaky)
    monkeypatch.setattr(weights, "splits", leaky)
    assert fit_readout(made + others).scores["value"][0] > 0.7  # what a leak would have reported


@pytest.mark.parametrize("recordings", [4, 7, 30])
@pytest.mark.parametrize("folds", [2, 3, 5])
def test_no_recording_sounds_on_both_sides(recordings, folds):
    made = clips({A: noise}, recordings=recordings, number=20, seed=recordings)
    rng = np.random.default_rng(1)
    made = [(maps, events.assign(source=rng.permutation(recordings)[:2].astype(str))) for maps, events in made]
    examples = read_clips(made, heads=False, timesteps=()).examples
    heard_in = {clip: set(rows["source"]) for _, rows in made for clip in rows["clip"]}
    held_out = []
    for rest, held in splits(examples, folds):
        away = {examples[index].phrase.events.source for index in held}
        assert not set(rest) & set(held)
        for index in rest:
            assert not heard_in[examples[index].phrase.events.clip] & away
        held_out += held
    assert sorted(held_out) == list(range(len(examples)))


def test_a_recording_whose_phrase_is_silent_still_counts_as_heard():
    made = clips({A: noise}, number=6, recordings=4)
    maps, events = made[0]
    events.loc[1, ["onset", "offset"]] = np.nan
    example = read_clips([(maps, events), *made[1:]], heads=False, timesteps=()).examples[0]
    assert example.heard == {("source", "recording 0"), ("source", "recording 1")}


def test_without_sources_clips_are_held_out():
    made = [(maps, events.drop(columns="source")) for maps, events in clips({A: right, B: noise}, number=8)]
    fit = fit_readout(made)
    assert set(fit.table["source"]) == {f"clip: {number}.wav" for number in range(8)}
    assert (fit.table.groupby("clip")["fold"].nunique() == 1).all()


# ---- what is reported ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study():
    made = clips({A: halfway, B: halfway, C: noise}, number=12, columns={C: 20})
    return made, fit_readout(made)


def test_a_fit_scores_as_align_does(study):
    made, fit = study
    examples = read_clips(made, heads=False, timesteps=()).examples
    by_part = {part.layer: part.weight for part in fit.readout.parts}
    row = np.array([[by_part.get(name, 0.0) for name in (A, B, C)]])
    assert B in by_part  # the finest: so the readout has the columns of the calibration
    scored = [align(maps, events, readout=fit.readout) for maps, events in made]
    fitted = np.concatenate([one.table.query("method == 'map'")["roc_auc"] for one in scored])
    np.testing.assert_allclose(weights.areas(examples, row)[:, 0], fitted, atol=1e-12)
    assert {one.readout for one in scored} == {fit.readout.name}
    assert scored[0].concat(scored).readout == fit.readout.name
    mean = np.concatenate([align(*one).table.query("method == 'map'")["roc_auc"] for one in made])
    np.testing.assert_allclose(fit.table["mean"], mean, atol=1e-12)
    layer = np.concatenate([align(*one, readout=B).table.query("method == 'map'")["roc_auc"] for one in made])
    own = weights.areas(examples, np.eye(3)[[1]], layers=True)[:, 0]
    np.testing.assert_allclose(own, layer, atol=1e-12)


def test_areas_vs_sklearn(study):
    made, _ = study
    examples = read_clips(made, heads=False, timesteps=()).examples
    rows = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    by_hand = [[roc_auc_score(one.phrase.active, row @ one.parts) for row in rows] for one in examples]
    np.testing.assert_allclose(weights.areas(examples, rows), by_hand, atol=1e-12)


def test_gains_are_paired_and_scores_are_means(study):
    _, fit = study
    values = fit.scores.set_index("method")["value"]
    for name in ("mean", "best layer"):
        assert gain(fit, name)["value"] == pytest.approx(values["fitted"] - values[name])
        assert gain(fit, name)["value"] == pytest.approx((fit.table["fitted"] - fit.table[name]).mean())
    assert (fit.scores["low"] <= fit.scores["value"]).all()
    assert (fit.scores["value"] <= fit.scores["high"]).all()
    assert (fit.scores["sources"] == fit.table["source"].nunique()).all()


def test_few_recordings_give_no_verdict():
    made = [(maps, events[:1]) for maps, events in clips({A: right, B: inverted}, number=8, recordings=8)]
    fit = fit_readout(made)
    assert fit.table["source"].nunique() == 4
    assert set(fit.gains["verdict"]) == {"too few sources to tell"}


def test_every_held_out_score_is_made_without_its_recording(study):
    """By hand: what the rest of a fold gives and chooses, applied to the fold."""
    made, fit = study
    examples = read_clips(made, heads=False, timesteps=()).examples
    for fold, (rest, held) in enumerate(splits(examples, 5)):
        fitted_on, tested = [examples[index] for index in rest], [examples[index] for index in held]
        rows = fit.table.iloc[held]
        assert set(rows["fold"]) == {fold}
        choice = int(np.argmax(weights.choice_scores(fitted_on, 5)))
        assert set(rows["choice"]) == {weights.CHOICES[choice]}
        by_hand = weights.areas(tested, weights.choice_weights(fitted_on)[[choice]])[:, 0]
        np.testing.assert_array_equal(rows["fitted"], by_hand)
        layer = int(np.argmax(weights.areas(fitted_on, np.eye(3), layers=True).mean(axis=0)))
        assert set(rows["layer"]) == {(A, B, C)[layer]}
        np.testing.assert_array_equal(rows["best layer"], weights.areas(tested, np.eye(3), layers=True)[:, layer])


def test_the_same_clips_give_the_same_fit(study):
    made, fit = study
    again = fit_readout(clip for clip in made)
    assert again.readout == fit.readout
    pd.testing.assert_frame_equal(again.table, fit.table)
    pd.testing.assert_frame_equal(again.gains, fit.gains)


def test_provenance_says_where_it_comes_from(study, tmp_path):
    made, fit = study
    said = fit.readout.provenance
    assert said["model"] == "planted"
    assert said["maps"] == {"model": "planted"}  # the image differs from clip to clip
    assert said["clips"] == [f"{number}.wav" for number in range(12)]
    assert said["sources"] == sorted(f"source: recording {number}" for number in range(24))
    assert said["held-out ROC-AUC"]["fitted"] == pytest.approx(fit.scores["value"][0])
    assert {"attnviz", "numpy", "scikit-learn"} == set(said["versions"])
    assert said["choice"] == fit.choices.loc[fit.choices["roc_auc"].idxmax(), "choice"]
    fit.readout.save(tmp_path / "r.json")
    again = FittedReadout.load(tmp_path / "r.json")
    assert again == fit.readout
    maps = made[0][0]
    np.testing.assert_array_equal(maps.activation(DOG, readout=again), maps.activation(DOG, readout=fit.readout))


def test_the_summary_says_it_in_words(study):
    _, fit = study
    text = fit.summary()
    assert "gain over best layer" in text
    assert "24 phrases from 24 recordings (5 folds)" in text
    assert fit.readout.name in text
    assert all(part.layer in text for part in fit.readout.parts)


# ---- weights ---------------------------------------------------------------------------------------------


def test_the_net_is_the_elastic_net_of_its_definition(study):
    """Its optimality conditions: the gradient is 0 where there is weight, and not below where there is none."""
    made, _ = study
    examples = read_clips(made, heads=False, timesteps=()).examples
    rows = np.concatenate([(one.parts - one.parts.mean(1, keepdims=True)) / 6 for one in examples], axis=1).T
    active = [one.phrase.active.astype(float) for one in examples]
    truth = np.concatenate([(one - one.mean()) / 6 for one in active])
    assert all(one.parts.shape[1] == HEARD == 36 for one in examples)
    highest = (rows.T @ truth).max() / len(truth) / 0.5
    for shares, strength in zip(weights.choice_weights(examples)[2:], weights.STRENGTHS, strict=True):
        assert shares.sum() == pytest.approx(1.0)
        assert (shares >= 0).all()
        alpha = strength * highest
        # The shares say the direction; along it the best length is known.
        pull = shares @ rows.T @ truth / len(truth) - 0.5 * alpha
        length = pull / (shares @ rows.T @ rows @ shares / len(truth) + 0.5 * alpha * shares @ shares)
        net = length * shares
        gradient = rows.T @ (rows @ net - truth) / len(truth) + 0.5 * alpha + 0.5 * alpha * net
        assert length > 0
        np.testing.assert_allclose(gradient[shares > 0], 0.0, atol=1e-5 * highest)
        assert (gradient > -1e-5 * highest).all()


def test_padding_takes_no_part():
    made = clips({A: halfway, B: noise}, number=8)
    other = []
    for maps, events in made:
        layers = {}
        for name in maps.layers:
            attention = maps[name].to_numpy()[..., ::-1, :].copy()
            attention[..., HEARD:] = 0.7
            layers[name] = LayerAttention(
                attention, ("prompt", "image", "step", "head", "token", "row", "column"), 1
            )
        changed = AttentionMaps.from_layers(
            layers, tokens=maps.tokens, positions=range(16), timesteps=maps.timesteps, grid=GRID,
            provenance=maps.provenance,
        )  # fmt: skip
        other.append((changed, events))
    one, two = fit_readout(made), fit_readout(other)
    assert one.readout == two.readout
    pd.testing.assert_frame_equal(one.table, two.table)


# ---- calibration data that cannot be used ----------------------------------------------------------------


@pytest.fixture
def few():
    return clips({A: noise, B: right}, number=6, recordings=12)


def test_no_clips():
    with pytest.raises(MapsError, match="no events"):
        fit_readout([])


def test_one_clip(few):
    with pytest.raises(MapsError, match="from 2 source recordings; at least 3"):
        fit_readout(few[:1])


def test_one_recording(few):
    with pytest.raises(MapsError, match="from 1 source recordings"):
        fit_readout([(maps, events.assign(source="7")) for maps, events in few])


def test_a_recording_in_every_clip(few):
    for number, (_, events) in enumerate(few):
        events["source"] = ["everywhere", str(number)]
    with pytest.raises(MapsError, match="held out, no clip is left"):
        fit_readout(few)


def test_only_silent_phrases(few):
    silent = [(maps, events.assign(onset=np.nan, offset=np.nan)) for maps, events in few]
    with pytest.raises(MapsError, match="can be scored: 12 silent in the clip"):
        fit_readout(silent)


def test_phrases_that_cannot_be_scored_are_counted(few):
    few[0][1].loc[0, ["onset", "offset"]] = np.nan
    few[1][1].loc[1, ["onset", "offset"]] = (0.0, 0.72)
    fit = fit_readout(few)
    assert fit.undefined == {"silent in the clip": 1, "over the whole clip": 1}
    assert len(fit.table) == 10
    assert "Excluded: 1 phrase silent in the clip" in fit.summary()
    assert fit.readout.provenance["left out"] == fit.undefined


def test_another_model(few):
    rng = np.random.default_rng(0)
    share = column_activity([0.1], [0.3], GRID, COLUMNS)
    for name, value in (("model", "other"), ("randomized", {"blocks": ["conv_out"]})):
        other = planted({A: noise, B: right}, {DOG: share, RAIN: share}, rng, columns={}, **{name: value})
        with pytest.raises(MapsError, match=f"clip 6 are of a different model .* {name}"):
            fit_readout([*few, (other, few[0][1])])
    other = planted({A: noise}, {DOG: share, RAIN: share}, rng, columns={})
    with pytest.raises(MapsError, match="clip 6 have the layers"):
        fit_readout([*few, (other, few[0][1])])


def test_maps_that_are_no_maps(few):
    with pytest.raises(MapsError, match="Clip 0 is a str"):
        fit_readout([("maps.zarr", few[0][1])])


def test_events_that_are_no_events(few):
    with pytest.raises(EventsError):
        fit_readout([(few[0][0], few[0][1].drop(columns="onset"))])


def test_axes_that_were_summed_out(few):
    with pytest.raises(MapsError, match="have 50"):
        fit_readout(few, timesteps=((100, 200),))
    dims = ("prompt", "image", "token", "row", "column")
    summed = []
    for maps, events in few:
        layers = {
            name: LayerAttention(maps[name].to_numpy()[:, :, 0, 0, :, ::-1], dims, 1) for name in maps.layers
        }
        again = AttentionMaps.from_layers(
            layers, tokens=maps.tokens, positions=range(16), timesteps=[50.0], grid=GRID
        )
        summed.append((again, events))
    with pytest.raises(MapsError, match=r"keep=\('head',\)"):
        fit_readout(summed, heads=True)
    with pytest.raises(MapsError, match=r"keep=\('step',\)"):
        fit_readout(summed, timesteps=((0, 100),))
    assert weights_of(fit_readout(summed)) == {(B, None, None): 1.0}


@pytest.mark.parametrize(
    "settings",
    [{"folds": 1}, {"folds": 2.5}, {"folds": True}, {"timesteps": ((0, 100), (50, 200))}, {"timesteps": ((9, 1),)},
     {"timesteps": ((0, 9), (0, 9))}],
    ids=str,
)  # fmt: skip
def test_settings_are_checked_before_a_clip_is_read(settings):
    def untouched():
        raise AssertionError
        yield

    with pytest.raises(AttnVizError):
        fit_readout(untouched(), **settings)


def test_align_takes_a_readout_and_its_controls_too(few):
    maps, events = few[0]
    readout = FittedReadout((ReadoutPart(B, 1.0),))
    result = align(maps, events, readout=readout, controls={"other": few[1][0]})
    own = result.table.query("method == 'other'")["roc_auc"].to_numpy()
    assert own == pytest.approx(
        align(few[1][0], events, readout=readout).table.query("method == 'map'")["roc_auc"]
    )
    with pytest.raises(MapsError, match="to the bundled model"):
        align(maps, events, readout="fitted")
