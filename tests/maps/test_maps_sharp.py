"""The readout "sharp": what the spectrogram says of when, and the maps of whose sound it is."""

from __future__ import annotations

import numpy as np
import pytest
from maps.maps_synthetic import GRID, make

import attnviz
from attnviz.audio import SpectrogramGrid
from attnviz.errors import MapsError
from attnviz.maps import SharpReadout
from attnviz.maps.settling import settled
from attnviz.maps.sharing import NEIGHBOURHOODS, Neighbourhood, refined
from attnviz.maps.sharp import above_floor, own_cells, sharpened
from attnviz.testing import example_events, example_maps

FINE = SpectrogramGrid(height=24, width=100, audio_seconds=0.9)
CELLS = FINE.cells(24, 100)


def burst(start: int, end: int, low: int = 0, high: int = 24) -> np.ndarray:
    mel = np.full((24, 100), -8.0)
    mel[low:high, start:end] = 0.0
    return mel


def blurred(centre: float) -> np.ndarray:
    """A map as coarse as attention's: a bump of 0.3 s."""
    return np.tile(np.exp(-(((np.arange(100) - centre) / 30) ** 2)), (24, 1)) + 0.05


def test_it_begins_where_the_sound_begins():
    value = sharpened(blurred(30), [blurred(70)], np.logaddexp(burst(20, 40), burst(60, 80)), CELLS, CELLS)
    curve = value.mean(axis=0)
    assert np.flatnonzero(curve > 0.5 * curve.max()).tolist() == list(range(20, 40))
    assert curve[60:80].max() < 0.05 * curve.max()
    assert value.max() == 1.0


def test_a_constant_map_is_what_the_spectrogram_alone_says():
    mel = np.logaddexp(burst(20, 40), burst(60, 80))
    value = sharpened(np.ones_like(mel), [], mel, CELLS, CELLS)
    assert value == pytest.approx(above_floor(mel, CELLS) / above_floor(mel, CELLS).max())


def test_shares_of_all_phrases_are_the_whole():
    mel, heats = burst(10, 70), [blurred(20), blurred(50), blurred(90)]
    whole = above_floor(mel, CELLS)
    parts = []
    for number, heat in enumerate(heats):
        others = [one for at, one in enumerate(heats) if at != number]
        value = sharpened(heat, others, mel, CELLS, CELLS)
        parts.append(value / value.max())
    # each is relative to its own maximum: find the three factors that give the whole
    factors, *_ = np.linalg.lstsq(np.stack([part.ravel() for part in parts], axis=1), whole.ravel(), rcond=None)
    assert sum(f * part for f, part in zip(factors, parts, strict=True)) == pytest.approx(whole, abs=1e-3)


def test_padding_and_silence_have_none():
    value = sharpened(blurred(50), [], burst(80, 100), CELLS, CELLS)
    assert not value[:, 90:].any()
    assert not sharpened(blurred(50), [], np.full((24, 100), -11.5), CELLS, CELLS).any()


def test_loudness_does_not_matter():
    mel = np.random.default_rng(0).normal(-5, 2, (24, 100))
    one, louder = (sharpened(blurred(50), [blurred(10)], each, CELLS, CELLS) for each in (mel, mel + 3))
    assert louder == pytest.approx(one)


def test_refining_against_a_literal_average():
    rng = np.random.default_rng(1)
    mel, logarithms = rng.normal(-5, 2, (24, 100)), rng.normal(size=(2, 24, 100))
    near = Neighbourhood(0.02, 1 / 24)  # two columns and one row on each side
    found = refined(logarithms, mel, CELLS, [near])
    weights = np.exp(mel) * ~CELLS.padding
    for row, column in ((0, 0), (5, 50), (23, 88), (12, 89)):
        area = slice(max(row - 1, 0), row + 2), slice(max(column - 2, 0), column + 3)
        expected = (logarithms[:, *area] * weights[area]).sum(axis=(1, 2)) / weights[area].sum()
        assert found[:, row, column] == pytest.approx(expected, abs=1e-3)
    assert refined(np.ones((1, 24, 100)), mel, CELLS) == pytest.approx(1.0)
    assert len(NEIGHBOURHOODS) == 2


def test_columns_of_40_ms_are_means():
    cells = own_cells(FINE)
    assert cells.shape == (24, 25)
    assert cells.column_seconds == pytest.approx(0.04)
    mel = np.random.default_rng(2).normal(-5, 2, (24, 100))
    fine, coarse = (sharpened(blurred(50), [], mel, CELLS, target) for target in (CELLS, cells))
    means = fine.reshape(24, 25, 4).mean(axis=2)
    assert coarse == pytest.approx(means / means.max())


def test_maps_read_it():
    maps = example_maps()
    heat = maps.heatmap("dog barks", readout="sharp")
    assert heat.shape == (256, 256)
    assert heat.attrs["readout"] == "sharp mean"
    assert maps.heatmap("dog barks", readout=SharpReadout(), grid="image").shape == (256, 1024)
    assert heat.to_numpy() == pytest.approx(maps.heatmap("dog barks", readout=SharpReadout("mean")).to_numpy())
    result = attnviz.align(maps, example_events(), readout="sharp")
    pooled = result.table[result.table["method"] == "map"]
    assert (pooled["column_ms"] == 40).all()
    assert (pooled["roc_auc"] > 0.99).all()
    energy = result.table[result.table["method"] == "energy"]
    assert (energy["roc_auc"] < pooled["roc_auc"].to_numpy()).all()
    assert energy["roc_auc"].iloc[0] < 0.7  # the rain, which is the louder, does not tell when the dog barks
    layer = maps.heatmap("rain", readout=SharpReadout("up.2.0"))
    assert layer.attrs["layers"] == "up_blocks.2.attentions.0"


def test_a_width_that_is_no_multiple_of_four():
    grid = SpectrogramGrid(height=40, width=74, audio_seconds=0.7)
    maps = make(grid=grid, spectrogram=np.random.default_rng(0).normal(-5, 2, (1, 1, 40, 74)).astype(np.float32))
    heat = maps.heatmap("rain", readout="sharp")
    assert heat.shape == (40, 19)
    assert np.isfinite(heat).all()


@pytest.mark.parametrize("base", ["sharp", None, 3, SharpReadout()])
def test_it_refuses_a_base(base):
    with pytest.raises(MapsError, match="base"):
        SharpReadout(base)


def test_it_refuses_maps_without_a_spectrogram_or_frequencies():
    with pytest.raises(MapsError, match="refines maps by the spectrogram"):
        make(grid=GRID).heatmap("dog", readout="sharp")


@pytest.mark.parametrize(("method", "fitted"), [(None, True), ("attention", True), ("shapley", False)])
def test_the_fitted_readout_is_of_attention(monkeypatch, method, fitted):
    """Other methods have other layers, or other values in them."""
    monkeypatch.setattr("attnviz.maps.settling.is_of_bundled", lambda provenance: True)
    provenance = {} if method is None else {"attribution": {"method": method}}
    assert (settled("sharp", provenance) == SharpReadout("mean")) is not fitted
