"""The figure of an edit: what is drawn where, on which scale."""

from __future__ import annotations

import numpy as np
import pytest

from attnviz.errors import MapsError
from attnviz.plots.editing import EditedWord, edit_comparison
from attnviz.testing import example_maps


@pytest.fixture(scope="module")
def maps():
    return example_maps()


def drawn(figure):
    return [ax for ax in figure.axes if ax.get_visible() and ax.images and not hasattr(ax, "_colorbar")]


def test_panels_share_their_scales_and_differ_by_what_was_edited(maps):
    before = maps.spectrogram[0, 0].to_numpy()
    after = before + 1.5
    dog, rain = maps.heatmap("dog"), maps.heatmap("rain")
    figure = edit_comparison(before, after, maps.grid, words=[EditedWord(dog, rain, "dog", "rain")])
    source, edit, difference, old, new, moved = drawn(figure)
    assert [ax.get_title(loc="left") for ax in (source, edit, difference, old, new, moved)] == [
        "source", "edit", "edit minus source", "dog", "rain", "difference",
    ]  # fmt: skip
    assert source.images[0].get_clim() == edit.images[0].get_clim()
    np.testing.assert_allclose(difference.images[0].get_array(), 20 * np.log10(np.exp(1.5)), rtol=1e-5)
    assert difference.images[0].colorbar.ax.get_ylabel() == "log-mel difference (dB)"
    assert old.images[-1].get_clim() == new.images[-1].get_clim()
    np.testing.assert_array_equal(moved.images[0].get_array(), rain.to_numpy() - dog.to_numpy())
    low, high = moved.images[0].get_clim()
    assert low == -high


def test_a_word_that_was_added_and_one_of_negative_weight(maps):
    mel = maps.spectrogram[0, 0].to_numpy()
    dog = maps.heatmap("dog")
    added = edit_comparison(mel, mel, maps.grid, words=[EditedWord(None, dog, "", "loudly")])
    assert [ax.get_title(loc="left") for ax in drawn(added)[3:]] == ["loudly"]
    turned = edit_comparison(mel, mel, maps.grid, words=[EditedWord(dog, -2 * dog, "dog", "dog")])
    before, after = drawn(turned)[3:5]
    assert before.images[0].get_clim() == after.images[0].get_clim()
    assert before.images[0].get_clim()[0] == pytest.approx(-2 * float(dog.max()), rel=1e-3)


def test_what_cannot_be_drawn(maps):
    mel = maps.spectrogram[0, 0].to_numpy()
    with pytest.raises(MapsError, match="shapes"):
        edit_comparison(mel, mel[:, :100], maps.grid)
    with pytest.raises(MapsError, match="'dog' has 0 maps"):
        edit_comparison(mel, mel, maps.grid, words=[EditedWord(None, None, "", "dog")])


def test_the_regenerated_part_is_framed_on_the_three_spectrograms(maps):
    mel = maps.spectrogram[0, 0].to_numpy()
    figure = edit_comparison(mel, mel, maps.grid, span=(2.0, 4.5), band=(0.0, 1000.0))
    for ax in drawn(figure)[:3]:
        (frame,) = {patch.get_bbox().bounds for patch in ax.patches if not patch.get_fill()}
        assert frame[0] == 2.0 and frame[2] == 2.5 and frame[1] == 0.0
        assert frame[3] == pytest.approx(1 / 3, abs=0.03)  # 1 kHz is 1 000 of 2 840 mel below 8 kHz
    whole = edit_comparison(mel, mel, maps.grid)
    assert all(patch.get_fill() for ax in drawn(whole) for patch in ax.patches)
