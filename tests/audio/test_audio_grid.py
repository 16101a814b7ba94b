"""The grid: what second and what Hz a row and a column is."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnviz.audio import MelConfig, SpectrogramGrid
from attnviz.errors import AudioError


def slaney_mel(hz: float | np.ndarray) -> np.ndarray:
    """Slaney's scale from its definition: 15 mel a 1000 Hz up to there, then 27 mel a factor of 6.4."""
    hz = np.asarray(hz, dtype=np.float64)
    return np.where(hz < 1000, 3 * hz / 200, 15 + 27 * np.log(np.maximum(hz, 1e-9) / 1000) / math.log(6.4))


grids = st.builds(
    SpectrogramGrid,
    height=st.integers(1, 300),
    width=st.integers(1, 1200),
    sampling_rate=st.integers(16_000, 48_000),
    hop_length=st.integers(1, 500),
    fmin=st.floats(0, 900),
    fmax=st.floats(1_000, 8_000),
)


def test_the_default_is_the_image_of_the_published_model() -> None:
    grid = SpectrogramGrid()
    assert (grid.height, grid.width) == (256, 1024)
    assert grid.seconds == 10.24
    for columns, milliseconds in ((128, 80), (64, 160), (32, 320), (16, 640), (1024, 10)):
        assert grid.column_seconds(columns) == pytest.approx(milliseconds / 1000, rel=1e-12)
    np.testing.assert_allclose(grid.time(1024), 0.005 + 0.01 * np.arange(1024), rtol=1e-12)


@given(grids, st.integers(1, 400))
def test_columns_are_equal_shares_of_all_the_seconds(grid: SpectrogramGrid, columns: int) -> None:
    times = grid.time(columns)
    assert times.shape == (columns,)
    assert times.dtype == np.float64
    edges = np.concatenate([[0.0], times + grid.column_seconds(columns) / 2])
    np.testing.assert_allclose(np.diff(edges), grid.seconds / columns, rtol=1e-6)
    assert edges[-1] == pytest.approx(grid.width * grid.hop_length / grid.sampling_rate, rel=1e-9)


@given(grids, st.integers(1, 400))
def test_rows_are_equal_shares_of_the_mel_axis_in_ascending_hz(grid: SpectrogramGrid, rows: int) -> None:
    hz = grid.freq(rows)
    assert hz.shape == (rows,)
    assert hz.dtype == np.float64
    assert (np.diff(hz) > 0).all()
    low, high = slaney_mel(grid.fmin), slaney_mel(grid.fmax)
    np.testing.assert_allclose(
        slaney_mel(hz), low + (np.arange(rows) + 0.5) / rows * (high - low), rtol=1e-9, atol=1e-9
    )


@given(grids, st.integers(1, 60), st.integers(1, 9))
def test_a_coarse_centre_is_the_mean_of_the_fine_ones_it_covers(
    grid: SpectrogramGrid, coarse: int, factor: int
) -> None:
    fine_times = grid.time(coarse * factor).reshape(coarse, factor)
    np.testing.assert_allclose(grid.time(coarse), fine_times.mean(1), rtol=1e-9)
    fine_mels = slaney_mel(grid.freq(coarse * factor)).reshape(coarse, factor)
    np.testing.assert_allclose(slaney_mel(grid.freq(coarse)), fine_mels.mean(1), rtol=1e-9, atol=1e-9)


@given(st.floats(0.001, 10.24), st.integers(1, 1024))
def test_padding_is_the_columns_whose_centre_lies_beyond_the_audio(length: float, columns: int) -> None:
    grid = SpectrogramGrid(audio_seconds=length)
    padding = grid.padding(columns)
    assert padding.dtype == bool
    assert padding.tolist() == [(i + 0.5) * 10.24 / columns > length for i in range(columns)]


@pytest.mark.parametrize(("columns", "padded"), [(1024, 24), (128, 3), (64, 1), (32, 1), (16, 0)])
def test_padding_of_ten_seconds(columns: int, padded: int) -> None:
    padding = SpectrogramGrid(audio_seconds=10).padding(columns)
    assert padding.tolist() == [False] * (columns - padded) + [True] * padded


def test_without_a_length_nothing_is_padding() -> None:
    assert not SpectrogramGrid().padding(128).any()
    assert not SpectrogramGrid(audio_seconds=10.24).padding(1024).any()


def test_a_centre_exactly_at_the_end_is_audio() -> None:
    grid = SpectrogramGrid(width=8, hop_length=16_000, audio_seconds=4.5)
    assert grid.padding(8).tolist() == [False] * 5 + [True] * 3


@pytest.mark.parametrize("length", [160_000, 10_000, 10.25])
def test_a_length_in_samples_or_milliseconds_is_refused_with_the_likely_mistake(length: float) -> None:
    with pytest.raises(AudioError, match=r"10\.24 s.*seconds.*samples or milliseconds"):
        SpectrogramGrid(audio_seconds=length)


@pytest.mark.parametrize(
    "wrong",
    [
        {"audio_seconds": 0},
        {"audio_seconds": -1.0},
        {"audio_seconds": math.nan},
        {"audio_seconds": "ten"},
        {"audio_seconds": [1.0, 2.0]},
        {"height": 0},
        {"width": -4},
        {"width": 10.5},
        {"width": True},
        {"sampling_rate": 0},
        {"sampling_rate": "16000"},
        {"hop_length": 0},
        {"fmin": -1},
        {"fmin": 8000.0},
        {"fmax": math.inf},
        {"fmax": 8001.0},
        {"fmin": 5000, "fmax": 100},
        {"fmin": np.array([1.0, 2.0])},
    ],
)
def test_a_value_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(AudioError, match=next(iter(wrong))):
        SpectrogramGrid(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, -1, 2.5, True, None])
@pytest.mark.parametrize("method", ["time", "freq", "padding", "column_seconds"])
def test_a_count_that_is_none_is_refused(method: str, count: object) -> None:
    with pytest.raises(AudioError, match=r"columns|rows"):
        getattr(SpectrogramGrid(), method)(count)


@given(grids, st.one_of(st.none(), st.floats(0.01, 0.99)))
def test_a_dictionary_through_json_gives_the_same_grid(grid: SpectrogramGrid, share: float | None) -> None:
    length = None if share is None else share * grid.seconds
    full = SpectrogramGrid(**{**grid.to_dict(), "audio_seconds": length})
    assert SpectrogramGrid.from_dict(json.loads(json.dumps(full.to_dict()))) == full


def test_numpy_numbers_become_plain_ones() -> None:
    grid = SpectrogramGrid(height=np.int64(24), width=np.int32(40), audio_seconds=np.float32(0.25))
    assert grid == SpectrogramGrid(height=24, width=40, audio_seconds=0.25)
    json.dumps(grid.to_dict())


def test_a_damaged_dictionary_is_refused() -> None:
    good = SpectrogramGrid().to_dict()
    with pytest.raises(AudioError, match="unknown: \\['hop'\\]"):
        SpectrogramGrid.from_dict({**good, "hop": 160})
    with pytest.raises(AudioError, match="missing: \\['fmin'\\]"):
        SpectrogramGrid.from_dict({key: value for key, value in good.items() if key != "fmin"})
    with pytest.raises(AudioError, match="audio_seconds"):
        SpectrogramGrid.from_dict({**good, "audio_seconds": 160_000})
    with pytest.raises(AudioError, match="mapping"):
        SpectrogramGrid.from_dict([1, 2])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_fft": 1000},
        {"hop_length": 1500},
        {"hop_length": 161},
        {"n_mels": 0},
        {"fmax": 9000.0},
        {"win_length": "1024"},
        {"fmin": None},
    ],
)
def test_spectrogram_settings_that_contradict_each_other_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(AudioError, match=next(iter(wrong))):
        MelConfig(**wrong)  # type: ignore[arg-type]


def test_a_grid_saved_under_the_earlier_name_of_the_sampling_rate_is_read():
    grid = SpectrogramGrid(height=72, width=232, sampling_rate=44_100, hop_length=441, fmax=10_000.0)
    saved = {"sample_rate" if name == "sampling_rate" else name: value for name, value in grid.to_dict().items()}
    assert SpectrogramGrid.from_dict(saved) == grid
    with pytest.raises(AudioError, match="unknown: \\['sample_rate'\\]"):
        SpectrogramGrid.from_dict({**grid.to_dict(), "sample_rate": 16_000})
