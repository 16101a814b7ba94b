"""The spectrogram alone."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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


def test_padding_leaves_the_colours_alone():
    loud = LOG_MEL.copy()
    loud[:, 60:] = 99
    (image,) = spectrogram(loud, GRID).images
    assert (image.norm.vmin, image.norm.vmax) == (LOG_MEL[:, :60].min(), LOG_MEL[:, :60].max())


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
    assert silent.norm.vmin < -11.5 < silent.norm.vmax
    spectrogram(LOG_MEL, SpectrogramGrid(height=40, width=72, audio_seconds=0.001))


@pytest.mark.parametrize("bad", [np.zeros((1, 40, 72)), np.zeros((40, 0)), np.full((4, 8), np.nan)])
def test_other_arrays_are_refused(bad):
    with pytest.raises(MapsError, match="bands, frames"):
        spectrogram(bad, GRID)
