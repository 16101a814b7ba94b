"""Maps with negative values, as a negative weight of a word makes them: every readout, statistic and export.

The law that all of them are held to: negating the captured attention of a word negates its map, and changes
nothing that does not depend on the sign.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from maps.maps_synthetic import SMALL, captured, inside, make

from attnviz.diagnosis import diagnose
from attnviz.diagnosis.signs import entropy_share
from attnviz.maps import FittedReadout, ReadoutPart, attention_share, token_activation, word_overlap
from attnviz.plots import activations, comparison, heatmap, piano_roll, word_maps

DOWN, MIDDLE = "down_blocks.0.attentions.0", "down_blocks.1.attentions.0"
FITTED = FittedReadout((ReadoutPart(DOWN, 0.75), ReadoutPart(MIDDLE, 0.25)))
READOUTS = ["mean", "auffusion", FITTED, "mid.0"]
NAMES = ["mean", "auffusion", "fitted", "layer"]
BARKS = [3, 4]  # key positions: two tokens


def weighed(factor: float, positions=BARKS):
    """Maps of a run in which the attention to one word was multiplied by a factor."""
    layers = captured(SMALL, seed=3)
    for name, layer in layers.items():
        attention = layer.attention.copy()
        attention[:, :, positions] *= np.float32(factor)
        layers[name] = dataclasses.replace(layer, attention=attention)
    return make(layers)


@pytest.fixture(scope="module")
def plain():
    return weighed(1.0)


@pytest.fixture(scope="module")
def negative():
    return weighed(-2.0)


@pytest.mark.parametrize("readout", READOUTS, ids=NAMES)
@pytest.mark.parametrize("pool", ["mean", "max", "first", "last"])
@pytest.mark.parametrize("grid", ["finest", "image"])
def test_negating_a_word_negates_its_map(plain, negative, readout, pool, grid):
    own = plain.heatmap("barks", readout=readout, pool=pool, grid=grid)
    scale = 2.0 if readout in ("mean", "mid.0") else 1.0  # the others divide by a magnitude of their own
    read = negative.heatmap("barks", readout=readout, pool=pool, grid=grid)
    np.testing.assert_allclose(read, -scale * own, rtol=1e-5)
    assert float(np.abs(read).max()) > 0
    for axis in ("time", "freq"):
        np.testing.assert_allclose(
            negative.activation("barks", axis=axis, readout=readout, pool=pool),
            -scale * plain.activation("barks", axis=axis, readout=readout, pool=pool),
            rtol=1e-5,
        )


@pytest.mark.parametrize("readout", READOUTS, ids=NAMES)
def test_a_map_of_both_signs_keeps_its_shape(readout):
    """Attention that falls below 0 in some cells only is scaled by one positive number, cell for cell."""
    layers = captured(SMALL, seed=5)
    for name, layer in layers.items():
        layers[name] = dataclasses.replace(layer, attention=layer.attention - layer.attention.mean())
    maps = make(layers)
    read = maps.heatmap("dog", readout=readout).to_numpy().astype(float)
    assert read.min() < 0 < read.max()
    if readout == "auffusion":
        own = np.mean([maps[name].to_numpy()[0, 0, 2] for name in ("down.1.0", "up.1.0")], axis=0, dtype=float)
        np.testing.assert_allclose(read, own / np.abs(own).max(), rtol=1e-5)
        assert np.abs(read).max() == pytest.approx(1.0)


@pytest.mark.parametrize("readout", READOUTS, ids=NAMES)
def test_exports_keep_the_word_with_its_sign(plain, negative, readout, tmp_path):
    times = plain.to_audacity(tmp_path / "plain.txt", readout=readout)
    signed = negative.to_audacity(tmp_path / "negative.txt", readout=readout)
    assert "barks" in set(times["label"])
    renamed = times.assign(label=times["label"].replace("barks", "barks (negative)"))
    order = ["start", "end", "label"]
    assert signed.sort_values(order).to_numpy().tolist() == renamed.sort_values(order).to_numpy().tolist()
    rows = negative.to_dataframe(readout=readout).query("word == 'barks' and not padding")
    assert (rows["activation"] < 0).all()
    negative.to_npz(tmp_path / "words.npz", readout=readout)
    with np.load(tmp_path / "words.npz") as file:
        heat = file["heatmap"][file["word"] == "barks"][0, 0]
    np.testing.assert_array_equal(heat, negative.heatmap("barks", readout=readout))
    assert inside(tmp_path) == ["negative.txt", "plain.txt", "words.npz"]


def test_a_word_of_both_signs_has_labels_of_both(tmp_path):
    layers = {name: layer for name, layer in captured(SMALL).items() if name == DOWN}
    attention = np.zeros_like(layers[DOWN].attention)
    attention[0, 0, 2] = [0, 4, 5, 0, -5, -4, 1, 0, 0]
    maps = make({DOWN: dataclasses.replace(layers[DOWN], attention=attention)})
    written = maps.to_audacity(tmp_path / "words.txt", phrases=["dog"])
    assert [tuple(row) for row in written.round(6).to_numpy().tolist()] == [
        (0.08, 0.24, "dog"),
        (0.32, 0.48, "dog (negative)"),
    ]
    nothing = maps.to_audacity(tmp_path / "none.txt", phrases=["rain"])
    assert len(nothing) == 0


def test_summaries_of_signed_maps(plain, negative):
    own, signed = token_activation(plain), token_activation(negative)
    np.testing.assert_allclose(signed.sel(token=BARKS), -2 * own.sel(token=BARKS), rtol=1e-5)
    np.testing.assert_allclose(
        attention_share(negative, "barks")["share"], -2 * attention_share(plain, "barks")["share"]
    )
    before, after = word_overlap(plain), word_overlap(negative)
    assert np.isfinite(after).all()
    np.testing.assert_allclose(np.diag(after), 1.0)
    np.testing.assert_allclose(after, after.T)
    row = after.sel(word="barks").drop_sel(other="barks")
    np.testing.assert_array_equal(row, np.zeros(len(row)))  # what is everywhere negative overlaps no other word
    rest = [word for word in before["word"].to_numpy() if word != "barks"]
    np.testing.assert_allclose(after.sel(word=rest, other=rest), before.sel(word=rest, other=rest))
    both = word_overlap(weighed(-2.0, [2, *BARKS]))  # two negative words overlap as two positive ones do
    np.testing.assert_allclose(both.sel(word="dog", other="barks"), before.sel(word="dog", other="barks"))


def test_a_diagnosis_takes_magnitudes(plain, negative):
    rng = np.random.default_rng(0)
    cells = rng.random((3, 5))
    assert entropy_share(-cells) == entropy_share(cells)
    judged = {finding.name: finding for finding in diagnose(negative).findings}
    assert "negative weights" in judged["attention sink"].unjudged
    usual = {finding.name: finding for finding in diagnose(weighed(2.0)).findings}
    assert judged["word ignored"].value == pytest.approx(usual["word ignored"].value)
    assert judged["uniform attention"].value == pytest.approx(usual["uniform attention"].value)


def test_figures_draw_negative_maps_about_zero(negative):
    """Every figure of maps shows a negative word: no empty panel, no scale that begins at 0."""
    figure = word_maps(negative, words=["dog", "barks"])
    for ax, word in zip(figure.axes, ("dog", "barks"), strict=False):
        image = ax.images[-1]
        assert image.norm.vmin == -image.norm.vmax < 0
        np.testing.assert_array_equal(image.get_array(), negative.heatmap(word))
    own = word_maps(negative, words=["barks"], scale="own").axes[0].images[-1]
    assert own.norm.vmax == pytest.approx(float(np.abs(negative.heatmap("barks").to_numpy()[:, :7]).max()))
    (image,) = heatmap(negative.heatmap("barks"), negative.grid).images
    strongest = image.to_rgba(image.norm.vmin)
    assert image.norm.vmin < 0
    assert strongest[3] > 0.8 > image.to_rgba(0.0)[3]  # the most negative is opaque, 0 is not there
    for scale in ("shared", "own"):
        (roll,) = piano_roll(negative, scale=scale).images
        assert roll.norm.vmin == -roll.norm.vmax < 0
    lanes = activations(negative, phrases=["dog", "barks"]).collections
    dog, barks = (np.asarray(one.get_paths()[0].vertices)[:, 1] for one in lanes)
    assert np.all(np.abs(dog) <= 0.43 + 1e-9)  # each within its lane
    assert np.all(np.abs(barks - 1) <= 0.43 + 1e-9)
    assert np.ptp(barks) > 0.4
    ax = comparison({"barks": negative.activation("barks")})
    assert ax.get_ylim()[0] <= float(negative.activation("barks").min())
