"""Log-mel spectrogram to image and back."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from attnviz.audio import LOG_CEILING, LOG_FLOOR, fit_width, image_to_mel, mel_to_image
from attnviz.errors import AudioError

shapes = array_shapes(min_dims=2, max_dims=4, max_side=6)
log_mels = arrays(np.float32, shapes, elements=st.floats(-14, 8, width=32))
images = arrays(np.float32, shapes, elements=st.floats(-0.5, 1.5, width=32))


@given(log_mels)
def test_mel_to_image_vs_the_formula_written_out(mel: np.ndarray) -> None:
    image = mel_to_image(mel)
    assert image.shape == mel.shape
    assert image.dtype == np.float32
    expected = (mel.astype(np.float64) - math.log(1e-5)) / (math.log(200) - math.log(1e-5))
    expected = np.minimum(np.maximum(expected, 0), 1)[..., ::-1, :]
    np.testing.assert_allclose(image, expected, atol=3e-7)


@given(log_mels)
def test_a_mel_in_range_comes_back(mel: np.ndarray) -> None:
    expected = np.clip(mel, np.float32(LOG_FLOOR), np.float32(LOG_CEILING))
    np.testing.assert_allclose(image_to_mel(mel_to_image(mel)), expected, atol=4e-6)


@given(images)
def test_an_image_comes_back_clamped(image: np.ndarray) -> None:
    np.testing.assert_allclose(mel_to_image(image_to_mel(image)), np.clip(image, 0, 1), atol=4e-7)


@given(images)
def test_torch_and_numpy_give_the_same_bits(image: np.ndarray) -> None:
    for function in (image_to_mel, mel_to_image, lambda x: fit_width(x, 3)):
        tensor = function(torch.from_numpy(image))
        assert isinstance(tensor, torch.Tensor)
        assert tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor.numpy(), function(image))


def test_low_frequencies_are_in_the_bottom_row() -> None:
    mel = np.full((3, 4), LOG_FLOOR, np.float32)
    mel[0, 1] = LOG_CEILING
    image = mel_to_image(mel)
    expected = np.zeros((3, 4))
    expected[2, 1] = 1
    np.testing.assert_allclose(image, expected, atol=1e-6)
    np.testing.assert_allclose(image_to_mel(image), mel, atol=2e-6)


def test_the_ends_of_the_scale() -> None:
    ends = np.array([[math.log(1e-5), math.log(200), -100.0, 100.0]])
    np.testing.assert_allclose(mel_to_image(ends), [[0, 1, 0, 1]], atol=1e-7)
    np.testing.assert_allclose(
        image_to_mel(np.array([[0.0, 1.0, -3.0, 7.0]])), np.log([[1e-5, 200, 1e-5, 200]]), atol=1e-6
    )


@pytest.mark.golden
def test_mel_to_image_vs_the_authors(golden_dir: Path) -> None:
    golden = np.load(golden_dir / "gold.npz")
    expected = golden["mel|image"]
    np.testing.assert_array_equal(np.repeat(mel_to_image(golden["mel|mel"]), 3, axis=0), expected)
    np.testing.assert_allclose(image_to_mel(expected)[:1], golden["mel|mel"], atol=2e-6)


def test_half_precision_is_computed_in_float32() -> None:
    image = torch.rand(1, 5, 7, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    mel = image_to_mel(image)
    assert mel.dtype == torch.float32
    torch.testing.assert_close(mel, image_to_mel(image.float()), rtol=0, atol=0)


def test_gradients_pass() -> None:
    mel = torch.zeros(3, 4, requires_grad=True)
    mel_to_image(mel).sum().backward()
    torch.testing.assert_close(mel.grad, torch.full((3, 4), 1 / (LOG_CEILING - LOG_FLOOR)))


@given(images, st.integers(1, 9))
def test_fit_width_keeps_the_beginning_and_fills_up_with_silence(image: np.ndarray, width: int) -> None:
    fitted = fit_width(image, width)
    kept = min(width, image.shape[-1])
    assert fitted.shape == (*image.shape[:-1], width)
    np.testing.assert_array_equal(fitted[..., :kept], image[..., :kept])
    assert not fitted[..., kept:].any()
    silence = image_to_mel(fitted)[..., kept:]
    np.testing.assert_array_equal(silence, np.full_like(silence, LOG_FLOOR))


def test_fit_width_is_1024_columns_by_default() -> None:
    assert fit_width(np.ones((256, 1_000), np.float32)).sum() == 256 * 1_000
    assert fit_width(np.ones((256, 1_100), np.float32)).shape == (256, 1_024)


@pytest.mark.parametrize("width", [3, 4, 6])
def test_nothing_shares_memory_with_the_input(width: int) -> None:
    for image in (np.full((2, 4), 0.5, np.float32), torch.full((2, 4), 0.5)):
        for function in (lambda x: fit_width(x, width), mel_to_image, image_to_mel):
            function(image)[...] = 9.0
            assert (image == 0.5).all()


@pytest.mark.parametrize("function", [mel_to_image, image_to_mel, fit_width])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (np.zeros(4, np.float32), "shape"),
        (np.zeros((0, 4), np.float32), "shape"),
        (np.zeros((3, 4), np.uint8), "255"),
        (torch.zeros(3, 4, dtype=torch.uint8), "255"),
        (np.array([[0.0, np.nan]]), "NaN"),
        (torch.tensor([[0.0, math.nan]]), "NaN"),
    ],
)
def test_what_is_no_spectrogram_is_refused(function: object, bad: object, reason: str) -> None:
    with pytest.raises(AudioError, match=reason):
        function(bad)  # type: ignore[operator]


@pytest.mark.parametrize("width", [0, -1, 2.0, True])
def test_fit_width_refuses_a_width_that_is_none(width: object) -> None:
    with pytest.raises(AudioError, match="width"):
        fit_width(np.zeros((2, 3), np.float32), width)  # type: ignore[arg-type]
