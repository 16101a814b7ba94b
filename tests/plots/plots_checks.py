"""Looking at figures without reading them: texts that overlap, and small pictures that hold no text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from alignment_synthetic import study
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

import attnviz
from attnviz import plots
from attnviz.alignment import profile
from attnviz.maps import attention_share, word_overlap
from attnviz.testing import example_events, example_maps

FINGERPRINTS = Path(__file__).with_name("fingerprints.json")
ROWS, COLUMNS, LEVELS = 24, 40, 16


def drawn(figure: Figure) -> Figure:
    FigureCanvasAgg(figure).draw()
    return figure


def figure_of(result: Axes | Figure) -> Figure:
    """The figure of what a figure function returned."""
    return result if isinstance(result, Figure) else result.figure


def seen_texts(figure: Figure) -> list[tuple[str, Any]]:
    """Every text that is seen, with its box in pixels."""
    renderer = figure.canvas.get_renderer()
    hidden = {id(one) for ax in figure.axes if not ax.get_visible() for one in ax.findobj(Text)}
    for ax in figure.axes:  # tick labels beyond the limits are not drawn
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            low, high = sorted(limits)
            slack = 1e-6 * (high - low)
            for tick in axis.get_major_ticks() + axis.get_minor_ticks():
                if not low - slack <= tick.get_loc() <= high + slack:
                    hidden |= {id(tick.label1), id(tick.label2)}
    return [
        (one.get_text(), one.get_window_extent(renderer))
        for one in figure.findobj(Text)
        if one.get_visible() and one.get_text().strip() and id(one) not in hidden
    ]


def text_faults(figure: Figure) -> list[Any]:
    """Texts that overlap, and texts that leave the figure; empty where the figure is as it should be."""
    boxes = seen_texts(drawn(figure))
    edge = figure.bbox
    faults: list[Any] = [
        name
        for name, box in boxes
        if box.x0 < edge.x0 - 1 or box.y0 < edge.y0 - 1 or box.x1 > edge.x1 + 1 or box.y1 > edge.y1 + 1
    ]
    for number, (name, box) in enumerate(boxes):
        faults += [(name, other) for other, second in boxes[:number] if box.padded(-0.5).overlaps(second)]
    return faults


def fingerprint(figure: Figure) -> np.ndarray:
    """The figure's grey levels, (24, 40), without any text: whatever fonts there are, it is the same."""
    for text in figure.findobj(Text):
        text.set_visible(False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    grey = np.asarray(canvas.buffer_rgba())[..., :3].astype(float) @ [0.299, 0.587, 0.114]
    height, width = (size // parts * parts for size, parts in zip(grey.shape, (ROWS, COLUMNS), strict=True))
    grey = grey[:height, :width]  # a figure of its own may have a few pixels more
    blocks = grey.reshape(ROWS, height // ROWS, COLUMNS, width // COLUMNS).mean(axis=(1, 3))
    return np.asarray(blocks * (LEVELS - 1) / 255)


def differences(found: np.ndarray, name: str) -> tuple[float, float]:
    """Mean and largest difference, in grey levels of 16, from the picture that was looked at."""
    saved = json.loads(FINGERPRINTS.read_text(encoding="utf-8"))[name]
    wanted = np.array([[int(digit, 16) for digit in row] for row in saved])
    gap = np.abs(found - wanted)
    return float(gap.mean()), float(gap.max())


def _axes() -> Axes:
    # Laid out by nothing: where the axes stand depends on no font.
    return Figure(figsize=(4.0, 2.4), dpi=100).add_axes((0.1, 0.1, 0.8, 0.8))


def _draw(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Figure:
    ax = _axes()
    assert function(*arguments, ax=ax, **keywords) is ax
    return ax.figure


def pictures() -> dict[str, Callable[[], Figure]]:
    """Figures whose pictures are kept, by name."""
    maps, events = example_maps(steps=5, heads=3), example_events()
    sound = maps.spectrogram[0, 0]
    rain, dog = maps.activation("rain"), maps.activation("dog")
    runs = {"one": maps, "other": example_maps(seed=1)}
    word = plots.EditedWord(maps.heatmap("dog"), maps.heatmap("rain"), "dog", "rain")
    edited = sound.to_numpy(), sound.to_numpy()[::-1]
    table = attnviz.align(maps, events).table
    seeds = [profile(example_maps(seed=seed, steps=5), events).assign(seed=seed) for seed in range(3)]
    seeds = pd.concat(seeds)
    return {
        "spectrogram": lambda: _draw(plots.spectrogram, sound, maps.grid),
        "heatmap": lambda: _draw(plots.heatmap, maps.heatmap("rain"), maps.grid, spectrogram=sound),
        "activations": lambda: _draw(plots.activations, maps, events),
        "comparison": lambda: _draw(plots.comparison, {"rain": rain, "dog": dog}),
        "piano_roll": lambda: _draw(plots.piano_roll, maps, special_tokens=True),
        "denoising_steps": lambda: _draw(plots.denoising_steps, maps, "rain"),
        "layer_heads": lambda: _draw(plots.layer_heads, attention_share(maps, "rain")),
        "word_overlap": lambda: _draw(plots.word_overlap, word_overlap(maps)),
        "phrase_scores": lambda: _draw(plots.phrase_scores, table),
        "profile_curve": lambda: _draw(plots.profile_curve, seeds, seed="seed"),
        "alignment": lambda: _draw(plots.alignment, study("noisy energy", clips=12)),
        "failures": lambda: _draw(plots.failures, attnviz.diagnose(example_maps(both=True))),
        "word_maps": lambda: plots.word_maps(maps, words=["dog", "rain"]),
        "comparison_panels": lambda: plots.comparison_panels(runs, ["dog"]),
        "edit_comparison": lambda: plots.edit_comparison(*edited, maps.grid, words=[word]),
    }


def write_fingerprints() -> None:
    """Write the pictures anew, once they have been looked at: ``python -m plots.plots_checks`` in tests/."""
    found = {}
    for name, picture in pictures().items():
        levels = np.rint(fingerprint(picture())).astype(int)
        found[name] = ["".join(f"{level:x}" for level in row) for row in levels]
    FINGERPRINTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_fingerprints()
