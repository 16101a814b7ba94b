"""The spectrogram alone."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from attnviz.audio import log_mel
from attnviz.audio.grid import SpectrogramGrid
from attnviz.errors import MapsError
from attnviz.plots import spectrogram

GRID = SpectrogramGrid(height=40, width=72, audio_seconds=0.6)
LOG_MEL = np.random.default_rng(0).normal(size=(40, 72))

pytestmark = pytest.mark.filterwarnings("error")


def test_values_stand_upright_over_seconds_and_hertz():
    ax = spectrogram(LOG_MEL, GRID)
    (image,) = ax.images
    FigureCanvasAgg(image.figure).draw()
    np.testing.assert_array_equal(image.get_array(), LOG_MEL)
    assert image.origin == "lower"
    assert image.get_extent() == [0.0, 0.72, 0.0, 1.0]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (s)", "frequency (Hz)")
    assert {"8k", "1k"} <= {label.get_text() for label in ax.get_yticklabels()}
    assert len(image.figure.axes) == 2
    (patch,) = ax.patches
    assert patch.get_x() == pytest.approx(0.6)
    assert patch.get_hatch()


@pytest.mark.parametrize("shift", [0.0, -5.0, 99.0])
def test_every_clip_has_the_same_scale_in_decibels(shift):
    ax = spectrogram(LOG_MEL + shift, GRID)
    (image,) = ax.images
    decibels = 20 * np.log10(np.exp([image.norm.vmin, image.norm.vmax]))
    np.testing.assert_allclose(decibels, [-60, 20])
    bar = ax.figure.axes[1]
    assert [label.get_text() for label in bar.get_yticklabels()] == ["-60", "-40", "-20", "0", "20"]


def test_silence_looks_silent_and_what_is_quieter_is_darker():
    noise = np.random.default_rng(0).standard_normal(32_000)
    shown = [
        spectrogram(log_mel((10 ** (db / 20) * noise).astype(np.float32)), GRID).images[0]
        for db in (-20, -50, -80)
    ]
    means = [float(image.norm(image.get_array()).clip(0, 1).mean()) for image in shown]
    assert means[0] > 0.5
    assert 0.1 < means[1] < 0.3
    assert means[2] < 0.01


def test_it_draws_where_it_is_told():
    figure = Figure()
    ax = figure.add_subplot()
    assert spectrogram(xr.DataArray(LOG_MEL, dims=("freq", "time")), GRID, ax=ax) is ax
    assert figure.axes == [ax]
    spectrogram(LOG_MEL, GRID, ax=ax, colorbar=True)
    assert len(figure.axes) == 2


def test_silence_and_padding_throughout_can_be_drawn():
    (silent,) = spectrogram(np.full((40, 72), -11.5), GRID).images
    FigureCanvasAgg(silent.figure).draw()
    assert silent.to_rgba(-11.5) == silent.to_rgba(silent.norm.vmin)
    spectrogram(LOG_MEL, SpectrogramGrid(height=40, width=72, audio_seconds=0.001))


@pytest.mark.parametrize("bad", [np.zeros((1, 40, 72)), np.zeros((40, 0)), np.full((4, 8), np.nan)])
def test_other_arrays_are_refused(bad):
    with pytest.raises(MapsError, match="bands, frames"):
        spectrogram(bad, GRID)
