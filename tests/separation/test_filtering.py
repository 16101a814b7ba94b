"""Masks over time and frequency applied to a clip."""

from __future__ import annotations

import numpy as np
import pytest

from attnviz.audio.grid import CellGrid, SpectrogramGrid
from attnviz.separation.filtering import filtered


@pytest.mark.parametrize("rate", [16, 70, 16_000])
def test_shares_that_sum_to_one_give_clips_that_sum_to_the_clip(rate):
    """At toy rates, too, at which a quarter of a window of 64 ms is less than a sample."""
    rng = np.random.default_rng(0)
    audio = rng.normal(size=3 * rate).astype(np.float32)
    grid = SpectrogramGrid(height=None, width=24, hop_length=max(1, rate // 8), sampling_rate=rate)
    share = rng.uniform(size=(1, 24))
    first, second = filtered(audio, rate, np.stack([share, 1 - share]), CellGrid(grid, (1, 24), (1, 1)))
    np.testing.assert_allclose(first + second, audio, atol=1e-5)
