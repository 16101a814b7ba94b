"""SI-SDR against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnviz.errors import AudioError
from attnviz.separation import si_sdr

TIME = np.arange(16_000) / 16_000
TONE, OTHER = np.sin(2 * np.pi * 440 * TIME), np.cos(2 * np.pi * 440 * TIME)  # orthogonal, of equal power


@given(st.floats(0.01, 100), st.floats(-60, 60))
def test_of_orthogonal_signals_it_is_their_ratio(scale, ratio):
    estimate = scale * (TONE + 10 ** (-ratio / 20) * OTHER)
    assert si_sdr(estimate, TONE) == pytest.approx(ratio, abs=1e-6)


def test_ends():
    assert si_sdr(0.5 * TONE, TONE) == 120
    assert si_sdr(OTHER, TONE) < -100
    assert si_sdr(np.zeros(16_000), TONE) == -120
    assert np.isnan(si_sdr(TONE, np.zeros(16_000)))


def test_a_filter_of_known_gains():
    """Two bands, of which one is attenuated by half: the distortion is what is missing of the best scaled copy."""
    reference = TONE + np.sin(2 * np.pi * 880 * TIME)
    estimate = TONE + 0.5 * np.sin(2 * np.pi * 880 * TIME)
    # <e, r> / <r, r> = 0.75; distortion 0.25 in each band
    assert si_sdr(estimate, reference) == pytest.approx(20 * np.log10(0.75 / 0.25), abs=1e-6)


@pytest.mark.parametrize("estimate", [TONE[:-1], np.stack([TONE, TONE]), TONE.astype(int), TONE * np.nan])
def test_it_refuses(estimate):
    with pytest.raises(AudioError):
        si_sdr(estimate, TONE)
