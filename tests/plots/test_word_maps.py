"""The figure of one heat map per word: what it shows, and that nothing overlaps."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import librosa
import matplotlib as mpl
import numpy as np
import pytest
from maps.maps_synthetic import GRID, PROMPT, SMALL, captured, make, table
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import attnviz.plots
from attnviz.audio.grid import SpectrogramGrid
from attnviz.errors import MapsError, PromptError
from attnviz.maps import LayerAttention
from attnviz.plots import word_maps
from attnviz.plots.style import mel_position, readable
from attnviz.testing import example_maps

pytestmark = pytest.mark.filterwarnings("error")
FULL = SpectrogramGrid(audio_seconds=10.0)
SOUND = np.random.default_rng(5).normal(size=(1, 1, 40, 72))
FINEST = "down_blocks.0.attentions.0"


def panels(figure: Figure) -> list:
    """The visible panels; the colour bar is no panel."""
    return [ax for ax in figure.axes if ax.get_visible() and ax.images]


def titles(figure: Figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in panels(figure)]


def heat_of(ax):
    """The attention in a panel: its last image; a spectrogram, if any, lies beneath."""
    return ax.images[-1]


def bar_of(figure: Figure):
    (bar,) = [ax for ax in figure.axes if any(isinstance(one, QuadMesh) for one in ax.collections)]
    return bar


def drawn(figure: Figure) -> Figure:
    FigureCanvasAgg(figure).draw()
    return figure


def maps_of(words: int, **changes):
    names = ["dog", "rain", "thunderstorm", "bells"]
    prompt = " ".join(f"{names[i % 4]}{i}" for i in range(words))
    keys = 4 * words + 8
    return make(captured(SMALL, tokens=keys), tokens=[table(prompt, keys=keys)], positions=range(keys), **changes)


# ---- what is shown ---------------------------------------------------------------------------------------


def test_each_word_has_its_own_map():
    maps = make(tokens=[table("a dog and a dog")], spectrogram=SOUND)
    figure = word_maps(maps)
    assert titles(figure) == ["a (1st)", "dog (1st)", "and", "a (2nd)", "dog (2nd)"]
    spans = [(0, 1), (2, 5), (6, 9), (10, 11), (12, 15)]
    for ax, span in zip(panels(figure), spans, strict=True):
        np.testing.assert_array_equal(heat_of(ax).get_array(), maps.heatmap(span))
        np.testing.assert_allclose(ax.images[0].get_array(), SOUND[0, 0], rtol=1e-6)
        assert len(ax.images) == 2


def test_which_map_is_drawn_can_be_chosen():
    maps = make(captured(SMALL, images=2))
    how = {"sample": 1, "readout": "auffusion", "pool": "max", "grid": "image"}
    (ax,) = panels(word_maps(maps, words=["dog barks"], **how))
    np.testing.assert_array_equal(heat_of(ax).get_array(), maps.heatmap("dog barks", **how))
    assert bar_of(word_maps(maps, readout="auffusion")).get_ylabel() == "share of the token's own maximum"
    with pytest.raises(PromptError):
        word_maps(maps, words=["cat"])


def test_a_planted_pulse_stands_at_its_second_and_frequency():
    """Read off the picture: the cell's place on the axes, and the axes' ticks."""
    grid = SpectrogramGrid(height=200, width=456)
    rows, columns, row, column = 25, 57, 4, 40  # row 4 from the top
    attention = np.full((1, 1, 16, rows, columns), 1e-3)
    attention[0, 0, 2, row, column] = 0.5
    layers = {FINEST: LayerAttention(attention, ("prompt", "image", "token", "row", "column"), 8)}
    (ax,) = panels(word_maps(make(layers, grid=grid), words=["dog"]))
    image = heat_of(ax)
    assert image.origin == "lower"
    left, right, bottom, top = image.get_extent()
    up, across = np.unravel_index(np.argmax(image.get_array()), (rows, columns))
    assert left + (across + 0.5) / columns * (right - left) == pytest.approx(4.56 * 40.5 / 57)
    height = bottom + (up + 0.5) / rows * (top - bottom)
    ticks = {label.get_text(): at for at, label in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)}
    assert ticks["4k"] < height < ticks["8k"]
    mel = height * librosa.hz_to_mel(8000.0)
    assert librosa.mel_to_hz(mel) == pytest.approx(librosa.mel_to_hz(librosa.hz_to_mel(8000.0) * 20.5 / 25))


def test_ticks_in_hertz_stand_where_the_mel_scale_has_them():
    hz = np.array([125, 250, 500, 1000, 2000, 4000, 8000.0])
    expected = librosa.hz_to_mel(hz) / librosa.hz_to_mel(8000.0)
    np.testing.assert_allclose(mel_position(SpectrogramGrid(), hz), expected, atol=2e-6)
    (ax,) = panels(word_maps(make(), words=["dog"]))
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert {"8k", "4k", "2k", "1k", "500"} <= set(names)
    numbers = [float(name.replace("k", "e3")) for name in names]
    np.testing.assert_allclose(ax.get_yticks(), mel_position(GRID, np.array(numbers)))
    assert ax.get_xlim() == (0.0, GRID.seconds)
    assert ax.get_ylim() == (0.0, 1.0)


# ---- the colour scale ------------------------------------------------------------------------------------


def test_all_words_share_one_scale_from_zero_with_one_bar():
    maps = make()
    figure = word_maps(maps)
    norms = {(heat_of(ax).norm.vmin, heat_of(ax).norm.vmax) for ax in panels(figure)}
    padding = GRID.padding(9)
    highest = max(float(maps.heatmap(word).to_numpy()[:, ~padding].max()) for word in maps.words)
    assert norms == {(0.0, highest)}
    bar = bar_of(figure)
    assert bar.get_ylabel().split(" (")[0] == "attention probability"
    assert bar.get_ylim() == (0.0, highest)


def test_padding_takes_no_part_in_the_scale():
    layers = captured(SMALL)
    attention = layers[FINEST].attention.copy()
    attention[..., -1] = 100
    figure = word_maps(
        make({FINEST: dataclasses.replace(layers[FINEST], attention=attention)}), special_tokens=True
    )
    assert heat_of(panels(figure)[0]).norm.vmax < 1


def test_with_scales_of_their_own_titles_state_the_maxima():
    maps = make()
    figure = word_maps(maps, scale="own")
    for ax, word in zip(panels(figure), maps.words, strict=True):
        highest = float(maps.heatmap(word).to_numpy()[:, ~GRID.padding(9)].max())
        assert heat_of(ax).norm.vmax == highest
        assert ax.get_title(loc="left") == f"{word}   max {highest:.2g}"
    assert bar_of(figure).get_ylabel() == "share of the word's own maximum"
    assert bar_of(figure).get_ylim() == (0.0, 1.0)


def test_special_tokens_frame_the_words_and_do_not_set_the_scale():
    layers = {
        name: dataclasses.replace(
            layer, attention=np.where(np.arange(16)[:, None, None] == 0, 0.9, layer.attention)
        )
        for name, layer in captured(SMALL).items()
    }
    maps = make(layers)
    figure = word_maps(maps, special_tokens=True)
    assert titles(figure) == ["start token", *maps.words, "end token"]
    assert heat_of(panels(figure)[0]).norm.vmax == heat_of(panels(word_maps(maps))[0]).norm.vmax < 0.9
    np.testing.assert_array_equal(heat_of(panels(figure)[-1]).get_array(), maps.token_heatmap("end"))
    arrows = [len(bar_of(word_maps(maps, special_tokens=special)).patches) for special in (False, True)]
    assert arrows[1] > arrows[0]


def test_special_tokens_of_several_encoders_are_told_apart():
    maps = make(captured(SMALL, tokens=32), tokens=[table(PROMPT, encoders=2)], positions=range(32))
    names = titles(word_maps(maps, special_tokens=True))
    assert names[:2] == ["start token, encoder 0", "start token, encoder 1"]
    assert names[-1] == "end token, encoder 1"


@pytest.mark.parametrize("value", [0.25, 0.0])
def test_maps_that_are_all_equal_look_all_equal(value):
    layers = {
        name: dataclasses.replace(layer, attention=np.full_like(layer.attention, value))
        for name, layer in captured(SMALL).items()
    }
    figure = drawn(word_maps(make(layers)))
    for ax in panels(figure):
        colours = heat_of(ax).to_rgba(heat_of(ax).get_array())
        assert np.ptp(colours.reshape(-1, 4), axis=0).max() == 0
        assert colours[0, 0, 3] == pytest.approx(0.86 if value else 0.0)


# ---- padding, background ---------------------------------------------------------------------------------


def hatched(ax) -> list[tuple[float, float]]:
    return [
        (patch.get_x(), patch.get_x() + patch.get_width())
        for patch in ax.patches
        if isinstance(patch, Rectangle) and patch.get_hatch()
    ]


def test_padding_is_hatched():
    for ax in panels(word_maps(make())):
        (span,) = hatched(ax)
        assert span == pytest.approx((0.56 + 0.08, 0.72))
    whole = dataclasses.replace(GRID, audio_seconds=None)
    assert not any(hatched(ax) for ax in panels(word_maps(make(grid=whole))))


def test_the_spectrogram_beneath_can_be_left_out_or_given():
    maps = make(spectrogram=SOUND)
    assert {len(ax.images) for ax in panels(word_maps(maps, spectrogram=False))} == {1}
    assert {len(ax.images) for ax in panels(word_maps(make()))} == {1}
    other = np.arange(40 * 72.0).reshape(40, 72)
    (ax,) = panels(word_maps(maps, words=["dog"], spectrogram=other))
    np.testing.assert_array_equal(ax.images[0].get_array(), other)
    with pytest.raises(MapsError, match="bands, frames"):
        word_maps(maps, spectrogram=SOUND)


# ---- layout ----------------------------------------------------------------------------------------------


def texts(figure: Figure) -> list:
    """Every text that is seen, with its box."""
    found = [figure._suptitle, figure._supxlabel, figure._supylabel]
    for ax in figure.axes:
        if ax.get_visible():
            found += [ax._left_title, ax.yaxis.label]
            for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
                found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    renderer = figure.canvas.get_renderer()
    return [
        (one.get_text(), one.get_window_extent(renderer)) for one in found if one.get_visible() and one.get_text()
    ]


@pytest.mark.parametrize(("words", "grid"), [(1, GRID), (2, FULL), (8, GRID), (9, FULL), (20, FULL)])
def test_no_text_overlaps_another_or_leaves_the_figure(words, grid):
    figure = drawn(word_maps(maps_of(words, grid=grid), special_tokens=words == 8))
    boxes = texts(figure)
    assert len(boxes) > 8
    for i, (name, box) in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, name
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1, name
        for other, other_box in boxes[i + 1 :]:
            assert not box.overlaps(other_box), (name, other)
    for a, b in pairwise(panels(figure)):
        assert not a.get_position().overlaps(b.get_position())
        assert a.get_position().width == pytest.approx(b.get_position().width, rel=0.02)


def test_seventy_seven_words_have_a_panel_each():
    figure = word_maps(maps_of(77))
    assert len(panels(figure)) == 77
    assert len(figure.axes) == 78
    width, height = figure.get_size_inches()
    assert width < 24
    assert height < 24


def test_columns_can_be_chosen():
    figure = word_maps(make(), columns=6)
    assert len({round(ax.get_subplotspec().colspan.start) for ax in panels(figure)}) == 6


# ---- text ------------------------------------------------------------------------------------------------

ODD = 'a 🐕 "barks" $x_1$ & <b>naïve</b> 狗叫 a_b 100% \\alpha {x} $\\frac{ 👩🏽‍🚒\t\n' + "very " * 60


def test_any_prompt_can_be_drawn():
    """Quotes, emoji, mathematics, and signs no installed font has: no warning, and no formula."""
    maps = make(captured(SMALL, tokens=120), tokens=[table(ODD, keys=120)], positions=range(120))
    figure = drawn(word_maps(maps, words=[(2, 3), (12, 17), (4, 11), (21, 33)]))
    assert [ax._left_title.get_parse_math() for ax in panels(figure)] == [False] * 4
    assert titles(figure)[1] == "$x_1$"
    assert figure._suptitle.get_parse_math() is False
    lines = figure.get_suptitle().splitlines()
    assert len(lines) <= 3
    assert lines[-1].endswith("…”") or lines[-1].endswith("…")
    boxes = dict(texts(figure))
    assert boxes[figure.get_suptitle()].x1 <= figure.bbox.x1


def test_what_has_no_glyph_is_named():
    assert readable("a 🐕 barks") in ("a 🐕 barks", "a [dog] barks")
    assert readable("one\n two\tthree\x00") == "one two three"
    assert readable("\U0010fffd") == "[U+10FFFD]"
    assert readable("abcdef", longest=4) == "abc…"
    assert readable("naïve $x_1$") == "naïve $x_1$"


# ---- manners ---------------------------------------------------------------------------------------------


def test_no_global_state_is_touched():
    before = dict(mpl.rcParams)
    drawn(word_maps(make(spectrogram=SOUND), special_tokens=True))
    assert dict(mpl.rcParams) == before
    for source in Path(attnviz.plots.__file__).parent.glob("*.py"):
        assert "pyplot" not in source.read_text(encoding="utf-8")


def test_the_maps_are_left_as_they_are():
    maps = make(spectrogram=SOUND)
    before = maps.tree.copy(deep=True)
    drawn(word_maps(maps, special_tokens=True, scale="own"))
    assert maps.tree.identical(before)


def test_a_users_style_does_not_break_the_figure():
    with mpl.rc_context({"axes.grid": True, "image.origin": "upper", "image.interpolation": "bilinear"}):
        (ax,) = panels(drawn(word_maps(make(), words=["dog"])))
    assert heat_of(ax).origin == "lower"
    assert heat_of(ax).get_interpolation() == "nearest"
    assert not any(line.get_visible() for line in ax.get_xgridlines())


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_it_can_be_saved(ending, tmp_path):
    word_maps(make(spectrogram=SOUND), words=["dog"]).savefig(tmp_path / f"words.{ending}")
    assert (tmp_path / f"words.{ending}").stat().st_size > 5000


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        ({"scale": "log"}, "'shared' or 'own'"),
        ({"columns": -1}, "from 1 to 100"),
        ({"cmap": "sunset"}, "no colour map 'sunset'"),
        ({"words": []}, "no word to draw"),
        ({"readout": "best"}, "Unknown readout"),
        ({"prompt_index": 3}, "no prompt 3"),
    ],
)
def test_bad_questions_are_refused(ask, words):
    with pytest.raises(MapsError, match=words):
        word_maps(make(), **ask)


@pytest.mark.parametrize("signed", [False, True])
def test_colours_over_silence_and_over_loud_sound_are_on_the_colour_bar(signed):
    """Every cell of a map over a spectrogram that is silent on the left and loud on the right."""
    maps = example_maps()
    heat = maps.heatmap("rain").copy()
    heat[:] = np.linspace(-1.0 if signed else 0.0, 1.0, heat.sizes["freq"])[:, None]
    heat = heat.assign_coords(padding=("time", np.zeros(heat.sizes["time"], dtype=bool)))
    sound = np.full((maps.grid.height, maps.grid.width), -100.0)
    sound[:, maps.grid.width // 2 :] = 100.0
    ax = attnviz.plots.heatmap(heat, maps.grid, spectrogram=sound)
    bar = ax.images[-1].colorbar.ax
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[::-1, :, :3].astype(int)

    def column(axes, at):
        box = axes.get_window_extent()
        rows = np.arange(int(box.y0) + 2, int(box.y1) - 1)
        return pixels[rows, int(box.x0 + at * box.width)]

    for at in (0.25, 0.75):  # silence, loud sound
        drawn, shown = column(ax, at), column(bar, at)
        apart = np.abs(drawn[:, None] - shown[None]).sum(axis=2).min(axis=1)
        assert apart.max() <= 24, at  # of 765: rounding, and steps of the colour map
    assert np.abs(column(bar, 0.25) - column(bar, 0.75)).sum(axis=1).max() > 60  # the grounds differ
    assert "silence" in bar.get_ylabel()
    assert "silence" not in attnviz.plots.heatmap(heat, maps.grid).images[-1].colorbar.ax.get_ylabel()


def test_the_lowest_frequency_tick_is_the_same_in_figures_of_every_height():
    lowest = set()
    for height in (0.9, 1.2, 1.35, 2.0, 3.4):
        ax = attnviz.plots.style.own_axes(6.0, height)
        attnviz.plots.style.label_axes(ax, example_maps().grid, height=height, fontsize=8.0)
        labels = [label.get_text() for label in ax.get_yticklabels()]
        places = np.sort(ax.get_yticks()) * height * 72
        assert (np.diff(places) >= 8.0).all()  # no labels on each other
        lowest.add(labels[int(np.argmin(ax.get_yticks()))])
    assert lowest == {"125"}
