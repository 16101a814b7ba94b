"""Every figure looks as it did when it was last looked at, whatever the fonts; no text overlaps another."""

from __future__ import annotations

import inspect
import json
import re

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from plots.plots_checks import FINGERPRINTS, differences, figure_of, fingerprint, pictures, text_faults

import attnviz
from attnviz import plots
from attnviz.diagnosis import Diagnosis, Finding
from attnviz.maps import attention_share, word_overlap
from attnviz.testing import example_events, example_maps

pytestmark = pytest.mark.filterwarnings("error")
NAMES = list(json.loads(FINGERPRINTS.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def drawers():
    return pictures()


@pytest.fixture(scope="module")
def maps():
    return example_maps(steps=5, heads=3)


def test_every_figure_has_its_picture(drawers):
    assert set(drawers) == set(NAMES)
    assert set(NAMES) == {name for name in plots.__all__ if inspect.isfunction(getattr(plots, name))}


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_function_has_an_example(name):
    assert ">>> " in getattr(plots, name).__doc__


@pytest.mark.parametrize("name", NAMES)
def test_a_function_returns_the_axes_it_takes_or_the_figure_it_makes(name, drawers):
    """What is declared; that the axes given are those returned, `pictures` asserts of each."""
    signature = inspect.signature(getattr(plots, name), eval_str=True)
    assert signature.return_annotation is (Axes if "ax" in signature.parameters else Figure)
    assert isinstance(drawers[name](), Figure)


def test_without_axes_it_is_a_figure_of_its_own(maps):
    for name, draw in own_figures(maps).items():
        result = draw()
        assert isinstance(result, Axes | Figure), name
        assert isinstance(result, Figure) or result.figure.axes[0] is result, name


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_as_they_were_looked_at(name, drawers):
    mean, largest = differences(fingerprint(drawers[name]()), name)
    assert mean < 0.4
    assert largest < 3.0


@pytest.mark.parametrize("name", NAMES)
def test_another_font_changes_no_picture(name, drawers):
    with mpl.rc_context({"font.family": "DejaVu Serif", "font.size": 12}):
        mean, _ = differences(fingerprint(drawers[name]()), name)
    assert mean < 0.4


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("word_overlap",)])
def test_a_picture_turned_over_is_told_apart(name, drawers):
    """The check itself: were rows or columns swapped, the picture would be another. (An overlap is symmetric.)"""
    found = fingerprint(drawers[name]())
    for turned in (found[::-1], found[:, ::-1]):
        mean, largest = differences(turned, name)
        assert mean >= 0.4 or largest >= 3.0


def own_figures(maps):
    """Each function in a figure of its own."""
    events = example_events()
    return {
        "heatmap": lambda: plots.heatmap(maps.heatmap("rain"), maps.grid, spectrogram=maps.spectrogram[0, 0]),
        "beside": lambda: plots.word_maps(maps, beside=True),
        "column": lambda: plots.word_maps(maps, width=3.35, scale="own"),
        "page": lambda: plots.word_maps(maps, width=6.9, beside=True),
        "activations": lambda: plots.activations(maps, events),
        "words": lambda: plots.activations(maps, scale="shared"),
        "comparison": lambda: plots.comparison({"one": maps.activation("a"), "two": maps.activation("dog")}),
        "bands": lambda: plots.comparison({"one": maps.activation("a", axis="freq")}, scale="own"),
        "roll": lambda: plots.piano_roll(maps, special_tokens=True, scale="own"),
        "steps": lambda: plots.denoising_steps(maps, "rain", scale="own"),
        "heads": lambda: plots.layer_heads(attention_share(maps, "rain")),
        "overlap": lambda: plots.word_overlap(word_overlap(maps)),
        "correlation": lambda: plots.word_overlap(word_overlap(maps, measure="correlation")),
        "scores": lambda: plots.phrase_scores(attnviz.align(maps, events).table),
    }


@pytest.mark.parametrize("name", list(own_figures(None)))
def test_no_text_overlaps_another_or_is_cut(name, maps):
    before = dict(mpl.rcParams)
    assert text_faults(figure_of(own_figures(maps)[name]())) == []
    assert dict(mpl.rcParams) == before
    assert not pyplot.get_fignums()


@pytest.mark.parametrize("name", list(own_figures(None)))
def test_every_axis_says_what_it_is(name, maps):
    figure = figure_of(own_figures(maps)[name]())
    labels = {ax.get_xlabel() for ax in figure.axes} | {ax.get_ylabel() for ax in figure.axes}
    labels |= {figure.get_supxlabel(), figure.get_supylabel()}
    if name == "scores":  # and of which maps, since others may be beside it
        assert any(
            re.fullmatch(r"ROC-AUC; readout mean, columns of \d+ ms", " ".join(one.split())) for one in labels
        )
        return
    assert labels & {"time (s)", "frequency (Hz)", "head"} or name in ("overlap", "correlation")
    assert all(np.isfinite(ax.get_position().bounds).all() for ax in figure.axes)


@pytest.mark.parametrize(("name", "value", "shown"), [
    ("clipped spectrogram", 3.91e-6, "< 0.001"), ("clipped spectrogram", 0.0, "0"),
    ("silent spectrogram", -16.5, "-16.5 dBFS"), ("clipped audio", 12345.6, "12346 ms"),
    ("uniform attention", 0.98232, "0.982"),
])  # fmt: skip
def test_numbers_of_failures_have_their_unit_and_no_exponent(name, value, shown):
    axes = plots.failures(Diagnosis((Finding(name, value),), "a dog barks"))
    (note,) = [text.get_text() for text in axes.texts]
    assert note.startswith(f"{shown} (fault")
