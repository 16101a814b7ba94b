"""Clips longer than a window: where windows begin, how their maps are joined, and that nothing else changes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import soundfile
import torch
from attribution_small import small_pipeline
from capture.literal import literal_attention
from hypothesis import given
from hypothesis import strategies as st

import attnviz
from attnviz.capture import CapturedLayer
from attnviz.diffusion.clip import encode, read_clip
from attnviz.diffusion.noising import draw_noise
from attnviz.diffusion.windows import WIDTH, cross_fade, default_overlap, join_windows, window_starts
from attnviz.errors import AudioError, CaptureError, MemoryBudgetError

CAPTION = "a dog barks, then rain falls"
ONE_LOOK = {"timesteps": (50,), "draws": 1}
RATE = 16_000


@pytest.fixture(scope="module")
def pipe(adapter_checkpoint):
    return small_pipeline(adapter_checkpoint)


def noise(seconds, seed=0):
    return np.random.default_rng(seed).standard_normal(round(seconds * RATE)).astype(np.float32) * 0.1


# Where they begin -------------------------------------------------------------------------------------


@given(st.integers(1, 9000), st.floats(0, 9.6), st.sampled_from([8, 64, 128]))
def test_windows_cover_the_clip_on_columns_of_the_coarsest_layer(frames, overlap, column):
    if round(overlap * 100, 6) > WIDTH - column:
        with pytest.raises(AudioError, match="overlap"):
            window_starts(frames, overlap=overlap, column=column)
        return
    starts = window_starts(frames, overlap=overlap, column=column)
    assert starts[0] == 0
    assert all(start % column == 0 for start in starts)
    assert all(a < b and a + WIDTH - b >= overlap * 100 - 1e-6 for a, b in itertools.pairwise(starts))
    silence = starts[-1] + WIDTH - frames
    assert silence >= 0
    assert len(starts) == 1 if frames <= WIDTH else silence < column


def test_neighbours_share_no_more_than_they_must():
    assert window_starts(5000, overlap=0, column=64)[:3] == (0, 1024, 2048)
    assert window_starts(5000, overlap=2.56, column=64)[:3] == (0, 768, 1536)
    assert window_starts(5000, overlap=2.57, column=64)[:3] == (0, 704, 1408)
    assert window_starts(1025, overlap=0, column=64) == (0, 64)


@pytest.mark.parametrize(
    ("column", "width", "expected"), [(64, 1024, 2.56), (1, 5000, 2.56), (1, 112, 0.28), (96, 112, 0.16)]
)
def test_the_default_overlap_fits_every_window(column, width, expected):
    overlap = default_overlap(column, width)
    assert overlap == pytest.approx(expected)
    starts = window_starts(3 * width, overlap=overlap, column=column, width=width)
    assert all(a + width - b >= overlap * 100 - 1e-6 for a, b in itertools.pairwise(starts))


# How their maps are joined ----------------------------------------------------------------------------


@pytest.mark.parametrize("starts", [(0,), (0, 1024), (0, 768, 1024), (0, 256, 512, 640)])
def test_cross_fading_vs_distances_written_out(starts):
    columns = 16
    shares = cross_fade(starts, columns)
    assert shares.shape == (len(starts), (starts[-1] + WIDTH) // 64)
    for column in range(shares.shape[1]):
        centre = (column + 0.5) * 64
        distances = [max(0, min(centre - start, start + WIDTH - centre)) for start in starts]
        np.testing.assert_allclose(shares[:, column], np.array(distances) / sum(distances), atol=1e-12)


@pytest.mark.parametrize("dims", [("token", "row", "column"), ("step", "head", "token", "row", "column")])
def test_joined_maps_are_the_weighted_mean_of_what_each_window_says(dims):
    starts, random = (0, 768, 1024), np.random.default_rng(0)
    sizes = dict(zip(("fine", "coarse"), ((3, 32), (2, 16)), strict=True))

    def layer(rows, columns):
        shape = (*(2, 3)[: len(dims) - 3], 5, rows, columns)
        return CapturedLayer(random.random(shape).astype(np.float32), dims, 4, "path")

    windows = [{name: layer(*size) for name, size in sizes.items()} for _ in starts]
    joined = join_windows(iter(windows), starts)
    assert list(joined) == ["fine", "coarse"]
    for name, (_, columns) in sizes.items():
        width = WIDTH // columns
        whole = joined[name]
        assert (whole.dims, whole.heads, whole.path) == (dims, 4, "path")
        assert whole.attention.dtype == np.float32
        assert whole.attention.shape == (*windows[0][name].attention.shape[:-1], 2048 // width)
        for column in range(2048 // width):
            centre = (column + 0.5) * width
            total, weights = 0.0, 0.0
            for start, window in zip(starts, windows, strict=True):
                if start < centre < start + WIDTH:
                    weight = min(centre - start, start + WIDTH - centre)
                    total = total + weight * window[name].attention[..., column - start // width].astype(float)
                    weights += weight
            np.testing.assert_allclose(whole.attention[..., column], total / weights, atol=1e-6)


def test_windows_between_two_columns_are_refused():
    layer = CapturedLayer(np.ones((1, 2, 16), np.float32), ("token", "row", "column"), 1, "path")
    with pytest.raises(CaptureError, match="mid has 16 columns .*begin at .0, 96. are not aligned"):
        join_windows(iter([{"mid": layer}, {"mid": layer}]), (0, 96))


# With a model -----------------------------------------------------------------------------------------


@torch.no_grad()
def test_every_layer_of_a_long_clip_vs_literal_windows(pipe, tmp_path):
    """Cut, noised, looked at and joined by hand; stereo at another rate on the way in."""
    path = tmp_path / "long.ogg"
    samples = noise(12.0)
    soundfile.write(path, np.stack([samples, samples], axis=1), RATE)
    maps = attnviz.explain(pipe, path, CAPTION, **ONE_LOOK, overlap=5.0)
    clip = read_clip(path, normalize=True, overlap=5.0, column=32)
    assert maps.provenance["windows"] == [0.0, 1.92]
    assert maps.provenance["overlap"] == 5.0
    kept = float(pipe.scheduler.alphas_cumprod[50])
    keys = pipe.conditioner([CAPTION], device="cpu")
    with literal_attention(pipe.unet) as seen:
        for start in (0, 192):
            pixels = torch.from_numpy(clip.image[:, start : start + WIDTH]).expand(1, 3, -1, -1) * 2 - 1
            latents = encode(pipe, pixels)
            noised = kept**0.5 * latents + (1 - kept) ** 0.5 * draw_noise(latents, 50, 1, 0)
            pipe.unet(noised, 50, encoder_hidden_states=keys)
    for name in maps.layers:
        attention = maps[name]
        rows, columns = attention.shape[-2:]
        assert columns * WIDTH % 1216 == 0
        each = columns * WIDTH // 1216
        calls = [call[0].mean(0).numpy() for call in seen[f"{name}.transformer_blocks.0.attn2"]]
        first, second = (call.reshape(rows, each, -1)[::-1].transpose(2, 0, 1)[maps.positions] for call in calls)
        begin = columns - each
        fade = np.array([min(c + 0.5, each - c - 0.5) for c in range(each)])
        expected = np.empty((len(maps.positions), rows, columns))
        expected[..., :begin], expected[..., each:] = first[..., :begin], second[..., each - begin :]
        shared = fade[begin:] + fade[: each - begin]
        expected[..., begin:each] = (
            first[..., begin:] * fade[begin:] + second[..., : each - begin] * fade[: each - begin]
        ) / shared
        np.testing.assert_allclose(attention[0, 0], expected, atol=1e-5, err_msg=name)


def test_a_clip_said_twice_is_read_twice(pipe):
    """With silence at its ends, so that the frames there see the same on both sides of every edge."""
    once = noise(10.24)
    once[:2000] = once[-2000:] = 0
    single = attnviz.explain(pipe, once, CAPTION, **ONE_LOOK)
    twice = attnviz.explain(pipe, np.tile(once, 2), CAPTION, **ONE_LOOK, overlap=0)
    assert (single.grid.width, twice.grid.width) == (1024, 2048)
    for name in single.layers:
        both = np.concatenate([single[name], single[name]], axis=-1)
        np.testing.assert_allclose(twice[name], both, atol=1e-6, err_msg=name)
    assert (single.provenance["windows"], twice.provenance["windows"]) == ([0.0], [0.0, 10.24])


@pytest.fixture(scope="module")
def long(pipe):
    return attnviz.explain(pipe, noise(10.4), CAPTION, **ONE_LOOK)


def test_maps_grid_and_spectrogram_have_the_clips_length(long, tmp_path):
    assert (long.grid.width, long.grid.audio_seconds) == (1056, 10.4)
    assert long.spectrogram.shape == (1, 1, 256, 1056)
    assert [long[layer].shape[-1] for layer in ("down.1.0", "mid.0")] == [66, 33]
    heat = long.heatmap("rain", grid="image")
    assert heat.shape == (256, 1056)
    assert int(heat.padding.sum()) == 16
    assert float(long.heatmap("rain").time[-1]) == pytest.approx(10.56 - 0.08)
    assert float(long.activation("rain").notnull().sum()) == 65
    long.save(tmp_path / "long.zarr")
    again = attnviz.AttentionMaps.load(tmp_path / "long.zarr")
    assert again.grid == long.grid
    np.testing.assert_array_equal(again.heatmap("dog"), long.heatmap("dog"))


def test_the_budget_is_that_of_the_whole_clip(pipe, long):
    size = sum(long[name].nbytes for name in long.layers)
    again = attnviz.explain(pipe, noise(10.4), CAPTION, **ONE_LOOK, max_bytes=size)
    np.testing.assert_array_equal(again.heatmap("dog"), long.heatmap("dog"))
    with pytest.raises(MemoryBudgetError, match="2 windows, .*share the budget.*Keep fewer"):
        attnviz.explain(pipe, noise(10.4), CAPTION, **ONE_LOOK, max_bytes=size - 1)
