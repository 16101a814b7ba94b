"""What each figure shows is what the maps and tables hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from maps.maps_synthetic import GRID, SMALL, captured, make, table
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from plots.plots_checks import drawn, text_faults

import attnviz
from attnviz import plots
from attnviz.errors import MapsError, PromptError
from attnviz.events import event_table
from attnviz.maps import attention_share, step_activation, token_activation, word_overlap
from attnviz.plots.style import EVENT_COLOUR
from attnviz.testing import example_events, example_maps

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def maps():
    return example_maps(steps=5, heads=3)


def names(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def bars(ax):
    """Bars of events."""
    return [one for one in ax.patches if to_hex(one.get_facecolor()) == EVENT_COLOUR]


def long_maps(**changes):
    prompt = " ".join(f"$word_{number}$ 狗 <b>" for number in range(16))
    return make(captured(SMALL, tokens=120), tokens=[table(prompt, keys=120)], positions=range(120), **changes)


# ---- heat maps --------------------------------------------------------------------------------------------


def test_a_heat_map_is_the_maps_own(maps):
    heat = maps.heatmap((2, 11))
    ax = plots.heatmap(heat, maps.grid, spectrogram=maps.spectrogram[0, 0], ax=Figure().add_subplot())
    beneath, image = ax.images
    np.testing.assert_array_equal(image.get_array(), heat)
    np.testing.assert_array_equal(beneath.get_array(), maps.spectrogram[0, 0])
    assert ax.get_title(loc="left") == "dog barks"
    assert image.get_clim() == (0.0, pytest.approx(float(heat.to_numpy()[:, ~heat["padding"].to_numpy()].max())))
    assert image.get_extent() == [0.0, 10.24, 0.0, 1.0]


def test_a_scale_can_be_shared_and_says_what_exceeds_it(maps):
    images = [plots.heatmap(maps.heatmap(word), maps.grid, highest=0.2).images[-1] for word in ("a", "rain")]
    assert [image.get_clim() for image in images] == [(0.0, 0.2)] * 2
    assert [image.colorbar.extend for image in images] == ["neither", "max"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"highest": 0.0}, "above 0"),
        ({"highest": np.nan}, "above 0"),
        ({"cmap": "sunset"}, "no colour map"),
        ({"spectrogram": np.zeros(5)}, "bands, frames"),
    ],
)
def test_heat_maps_refuse_nonsense(maps, change, message):
    with pytest.raises(MapsError, match=message):
        plots.heatmap(maps.heatmap("a"), maps.grid, **change)


def test_a_heat_map_with_nan_is_refused(maps):
    with pytest.raises(MapsError, match="1024 values that are not finite"):
        plots.heatmap(maps.heatmap("a") * np.nan, maps.grid)
    with pytest.raises(MapsError, match="dims"):
        plots.heatmap(maps.activation("a"), maps.grid)


def test_side_by_side_the_maps_have_nothing_beneath(maps):
    figure = plots.word_maps(maps, words=["dog", "rain"], beside=True)
    first, *rest = [ax for ax in figure.axes if ax.images]
    assert first.get_title(loc="left") == "spectrogram"
    np.testing.assert_array_equal(first.images[0].get_array(), maps.spectrogram[0, 0])
    assert [len(ax.images) for ax in rest] == [1, 1]
    with pytest.raises(MapsError, match="these maps have none"):
        plots.word_maps(make(), beside=True)


@pytest.mark.parametrize("width", [2.0, 3.35, 6.9, 12.0])
@pytest.mark.parametrize("scale", ["shared", "own"])
def test_a_width_is_kept(maps, width, scale):
    figure = plots.word_maps(maps, width=width, scale=scale)
    assert figure.get_figwidth() == pytest.approx(width)
    assert text_faults(figure) == []


def test_a_width_in_millimetres_is_refused(maps):
    with pytest.raises(MapsError, match="millimetres"):
        plots.word_maps(maps, width=170)


def test_a_spectrogram_says_what_is_no_number(maps):
    sound = maps.spectrogram[0, 0].to_numpy().copy()
    sound[:, 100:200] = np.nan
    ax = plots.spectrogram(sound, maps.grid)
    assert "0.098 of all values are not finite" in ax.get_title(loc="right")
    assert np.ma.getmaskarray(ax.images[0].get_array())[:, 100:200].all()
    assert text_faults(ax.figure) == []


# ---- curves -----------------------------------------------------------------------------------------------


def test_curves_and_bars_stand_at_their_seconds(maps):
    ax = plots.activations(maps, example_events())
    assert names(ax.yaxis) == ["dog barks", "rain falls"]
    spans = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars(ax)]
    assert spans == [pytest.approx(one) for one in ((1.0, 2.2), (3.6, 4.8), (5.5, 9.5))]
    curve = maps.activation("rain falls").to_numpy()
    corners = ax.collections[1].get_paths()[0].vertices
    foot = 1.43
    heights = {round(float(x), 6): foot - y for x, y in corners if y < foot - 1e-9}
    top = np.nanmax(curve)
    column = int(np.nanargmax(curve))
    assert heights[round(column * 0.16, 6)] == pytest.approx(0.86, abs=0.02)
    assert max(heights.values()) == pytest.approx(0.86)
    assert min(heights.values()) == pytest.approx(0.86 * np.nanmin(curve) / top)
    assert "its own maximum" in ax.get_legend().get_texts()[0].get_text()


def test_the_last_column_heard_is_drawn_to_its_end(maps):
    curve = maps.activation("rain")
    heard = int(np.isfinite(curve).sum())
    assert heard < curve.size  # padding follows
    (filled,) = plots.activations(maps, phrases=["rain"]).collections
    assert filled.get_paths()[0].vertices[:, 0].max() == pytest.approx(
        heard * maps.grid.column_seconds(curve.size)
    )


def test_in_a_column_of_a_paper_the_legend_is_no_wider_than_the_axes(maps):
    figure = Figure(figsize=(3.35, 1.8), layout="constrained")
    ax = plots.activations(maps, phrases=["dog", "rain"], ax=figure.add_subplot())
    assert not text_faults(figure)
    assert ax.get_legend().get_window_extent().width < ax.get_window_extent().width


def test_a_shared_scale_is_the_highest_of_any(maps):
    ax = plots.activations(maps, phrases=["a", "rain"], scale="shared")
    heights = [0.43 + row - one.get_paths()[0].vertices[:, 1].min() for row, one in enumerate(ax.collections)]
    tops = [np.nanmax(maps.activation(word)) for word in ("a", "rain")]
    np.testing.assert_allclose(heights, 0.86 * np.array(tops) / max(tops), rtol=1e-5)
    assert f"from 0 to {max(tops):.2g}" in ax.get_legend().get_texts()[0].get_text()


def test_events_that_the_prompt_does_not_name_are_bars_alone(maps):
    rows = [("x", "cat", 1.0, 2.0, None), ("x", "dog", 3.0, 4.0, None), ("x", "wet", 5.0, 6.0, (18, 22))]
    events = event_table(pd.DataFrame(rows, columns=["clip", "label", "onset", "offset", "span"]))
    ax = plots.activations(maps, events)
    assert names(ax.yaxis) == ["dog", "rain", "cat (not in the prompt)"]  # "wet" is at 18:22
    assert len(ax.collections) == 2
    assert text_faults(ax.figure) == []
    chosen = plots.activations(maps, events, phrases=["dog barks", "then"])
    assert [bar.get_x() for bar in bars(chosen)] == [3.0]


def test_no_curve_is_an_error_not_an_empty_plot(maps):
    short = make(grid=type(GRID)(height=40, width=72, audio_seconds=0.001))
    for draw in (
        lambda: plots.activations(short),
        lambda: plots.piano_roll(short),
        lambda: plots.comparison({"a": short.activation("a")}, scale="own"),
    ):
        with pytest.raises(MapsError, match=r"shorter than half a column"):
            draw()
    with pytest.raises(MapsError, match="shorter than half"):
        plots.comparison({"a": short.activation("a")})
    with pytest.raises(MapsError, match="no phrase to draw"):
        plots.activations(maps, phrases=[])
    with pytest.raises(MapsError, match="'shared' or 'own'"):
        plots.activations(maps, scale="log")
    with pytest.raises(MapsError, match="no prompt 2"):
        plots.activations(maps, prompt_index=2)


def test_compared_curves_are_the_given_ones(maps):
    other = make()
    curves = {"this": maps.activation("rain"), "that $x$": other.activation("rain")}
    ax = plots.comparison(curves)
    for line, curve in zip(ax.lines, curves.values(), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), curve)
        np.testing.assert_array_equal(line.get_xdata(), curve["time"])
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines}) == 2
    assert ax.get_xlim() == (0.0, pytest.approx(10.24))
    own = plots.comparison(curves, scale="own")
    assert np.nanmax(own.lines[0].get_ydata()) == pytest.approx(1.0)
    assert own.get_ylabel() == "share of own maximum"
    with pytest.raises(MapsError, match="different quantities"):
        plots.comparison({"a": maps.activation("a"), "b": maps.activation("a", readout="auffusion")})
    with pytest.raises(MapsError, match="all over time or all over frequency"):
        plots.comparison({"a": maps.activation("a"), "b": maps.activation("a", axis="freq")})
    with pytest.raises(MapsError, match="one or more"):
        plots.comparison({})


def test_runs_are_compared_by_the_words_they_share(maps):
    other = make(captured(SMALL))
    figure = plots.comparison_panels({"own": maps, "other": other})
    assert [ax.get_title(loc="right") for ax in figure.axes] == ["a", "dog", "barks", "then", "rain", "falls"]
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_ydata(), maps.activation("dog"))
    np.testing.assert_array_equal(figure.axes[1].lines[1].get_ydata(), other.activation("dog"))
    assert text_faults(figure) == []
    cat = make(captured(SMALL, tokens=8), tokens=[table("cat", 8)], positions=range(8))
    with pytest.raises(MapsError, match="no word in common"):
        plots.comparison_panels({"own": maps, "cat": cat})
    with pytest.raises(PromptError, match="dog"):
        plots.comparison_panels({"own": maps, "cat": cat}, ["dog"])


# ---- rolls and matrices -----------------------------------------------------------------------------------


def test_rolls_hold_the_maps_values(maps):
    for ax, rows in (
        (plots.piano_roll(maps), token_activation(maps)),
        (plots.denoising_steps(maps, "rain"), step_activation(maps, "rain")),
    ):
        (image,) = ax.images
        values = image.get_array()
        np.testing.assert_array_equal(np.ma.getmaskarray(values), np.isnan(rows))
        np.testing.assert_allclose(values.filled(np.nan), rows, rtol=1e-6)
        assert image.get_extent() == [0.0, 10.24, len(rows) - 0.5, -0.5]
        assert image.get_clim() == (0.0, pytest.approx(float(np.nanmax(rows))))
    (own,) = plots.piano_roll(maps, scale="own").images
    np.testing.assert_allclose(own.get_array().max(axis=1), 1.0)
    assert own.colorbar.ax.get_ylabel().replace("\n", " ") == "share of each token's own maximum"
    with pytest.raises(MapsError, match="keep="):
        plots.denoising_steps(example_maps(), "rain")


def test_layers_and_heads_are_the_table(maps):
    table_ = attention_share(maps, "rain")
    holes = table_.drop(index=[1, 5])
    ax = plots.layer_heads(holes)
    values = ax.collections[-1].get_array()
    assert values.mask.sum() == 2
    assert (values.mask[0, 1], values.mask[1, 2]) == (True, True)
    wanted = table_["share"].to_numpy().reshape(5, 3)
    np.testing.assert_allclose(values.compressed(), wanted[~values.mask])
    assert names(ax.xaxis) == ["0", "1", "2"]
    assert names(ax.yaxis) == ["down.0.0", "down.1.0", "mid.0", "up.1.0", "up.2.0"]
    scores = pd.DataFrame({"layer": ["b", "b", "a"], "timestep": [981, 1, 1], "auc": [0.5, 0.7, np.nan]})
    ax = plots.layer_heads(scores, "auc", across="timestep", limits=(0.6, 1.0))
    assert ax.collections[-1].colorbar.extend == "min"
    assert names(ax.xaxis) == ["981", "1"]
    with pytest.raises(MapsError, match=r"lacks the columns \['layer'"):
        plots.layer_heads(pd.DataFrame({"x": [1]}))
    with pytest.raises(MapsError, match="No value"):
        plots.layer_heads(scores.assign(auc=np.nan), "auc", across="timestep")


def test_timesteps_of_a_table_are_whole_numbers():
    scores = pd.DataFrame({"layer": "mid", "timestep": [600.0, 50.0], "value": [0.5, 0.7]})
    ax = plots.layer_heads(scores, "value", across="timestep")
    assert names(ax.xaxis) == ["600", "50"]


def test_overlap_is_the_matrix(maps):
    matrix = word_overlap(maps)
    image = plots.word_overlap(matrix).collections[-1]
    np.testing.assert_allclose(image.get_array(), matrix)
    assert image.get_clim() == (0.0, 1.0)
    with pytest.raises(MapsError, match="at least 2"):
        plots.word_overlap(matrix[:1, :1])


def test_long_prompts_are_drawn_without_overlap():
    maps = long_maps()
    for ax in (
        plots.piano_roll(maps),
        plots.word_overlap(word_overlap(maps)),
        plots.activations(maps),
    ):
        figure = drawn(ax.figure)
        assert text_faults(figure) == []
        assert max(figure.get_size_inches()) < 50


def test_scores_of_each_phrase_and_method():
    maps = example_maps()
    rows = pd.concat(
        [example_events(), event_table([{"clip": "example.wav", "label": "a", "onset": 0, "offset": 10}])]
    )
    scored = attnviz.align(maps, rows).table
    ax = plots.phrase_scores(scored)
    for line, method in zip(*ax.get_legend_handles_labels(), strict=True):
        wanted = scored[scored["method"] == method]["roc_auc"]
        np.testing.assert_allclose(line.get_xdata(), wanted)
    assert names(ax.yaxis) == ["a (over the whole clip)", "dog barks", "rain falls"]
    assert text_faults(ax.figure) == []
    with pytest.raises(MapsError, match="lacks the columns"):
        plots.phrase_scores(scored, "nosuch")
    with pytest.raises(MapsError, match="No phrase has a ROC-AUC: over the whole clip"):
        plots.phrase_scores(scored[scored["label"] == "a"])
