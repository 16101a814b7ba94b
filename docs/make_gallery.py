"""Draw every figure of docs/gallery.md, and write the page: ``python docs/make_gallery.py``.

The code that stands beside a picture is the code that drew it: both come from `FIGURES`. Everything is made with
the bundled model and fixed seeds, so that the same weights give the same pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

import attnviz
from attnviz import maps as attnviz_maps
from attnviz import plots
from attnviz.alignment import Alignment
from attnviz.editing import swap
from attnviz.sounds import ComposerConfig, read_esc10, scenes

DOCS = Path(__file__).parent
AUDIO = DOCS.parent / "notebooks" / "audio"
PROMPT = "a dog barks, then rain falls"
WIDEST = 1000
"""Pixels; the pages that show the gallery are not wider."""

INTRODUCTION = f"""# Gallery

What `attnviz.plots` draws, each with the code that drew it. All of it is of the bundled model. This page and its
pictures are written by `python docs/make_gallery.py`; do not edit them.

The names in the code:

```python
pipe = attnviz.load()
with attnviz.trace(pipe, keep=("step", "head")) as trace:
    out = pipe("{PROMPT}", num_inference_steps=25, generator=torch.Generator().manual_seed(0))
maps = trace.maps
sound = maps.spectrogram[0, 0]                      # natural-log mel, lowest band first
other = ...                                         # the maps of another seed

scene = ...                                         # real recordings at known places: attnviz.sounds.scenes
real = attnviz.explain(pipe, scene.mixture, scene.caption)
result = Alignment.concat(...)                      # attnviz.align(real, scene.events), of six such scenes
edit = swap(pipe, "{PROMPT}", "a rooster crows, then rain falls", ...)    # attnviz.editing
```
"""

FIGURES = {
    "word_maps": (
        "A map for every word",
        "Over the grey spectrogram, on one colour scale; padding is hatched.",
        "plots.word_maps(maps)",
    ),
    "heatmap": (
        "One map",
        "Of a phrase; here of one layer, at the resolution that it really has.",
        'plots.heatmap(maps.heatmap("rain falls", readout="up.1.0"), maps.grid, spectrogram=sound).figure',
    ),
    "spectrogram": (
        "The spectrogram",
        "Time in seconds, frequency in Hz on the mel scale.",
        "plots.spectrogram(sound, maps.grid).figure",
    ),
    "activations": (
        "When: activation curves over events",
        "A real scene, whose events are known exactly: bars are where each sound is audible.",
        "plots.activations(real, scene.events).figure",
    ),
    "piano_roll": (
        "Every token over time",
        "Start and end tokens too: a sink shows as a dark row.",
        "plots.piano_roll(maps, special_tokens=True).figure",
    ),
    "denoising_steps": (
        "Step by step",
        "From noise, on top, to the clip.",
        'plots.denoising_steps(maps, "rain falls", scale="own").figure',
    ),
    "layer_heads": (
        "Layers and heads",
        "Which share of each head's attention goes to a phrase.",
        'plots.layer_heads(attention_share(maps, "rain falls"), label="share of attention").figure',
    ),
    "word_overlap": (
        "Words against words",
        "How alike their maps are.",
        'plots.word_overlap(word_overlap(maps, measure="correlation")).figure',
    ),
    "comparison": (
        "Curves on the same axes",
        "Seeds here; prompts, encoders, readouts or models just as well.",
        "plots.comparison({\n"
        '    "seed 0": maps.activation("rain falls"), "seed 1": other.activation("rain falls"),\n'
        "}).figure",
    ),
    "comparison_panels": (
        "Runs side by side, a panel a phrase",
        "Each panel on a scale of its own.",
        'plots.comparison_panels({"seed 0": maps, "seed 1": other}, ["dog barks", "rain falls"])',
    ),
    "alignment": (
        "A score beside its controls",
        "Points are phrases, diamonds means with intervals over source recordings.",
        "plots.alignment(result).figure",
    ),
    "phrase_scores": (
        "Scores of every phrase",
        "From a saved table, as `attnviz align` writes it.",
        "plots.phrase_scores(attnviz.align(real, scene.events).table).figure",
    ),
    "failures": (
        "Signs of failure",
        "What `attnviz.diagnose` looked at; faults to the right of the line.",
        "plots.failures(attnviz.diagnose(maps)).figure",
    ),
    "edit_comparison": (
        "An edit beside its source",
        "Spectrograms, the maps of the words that were swapped, and the differences.",
        "plots.edit_comparison(*edit.output.spectrograms, edit.maps.grid, words=[plots.EditedWord(\n"
        '    edit.maps.heatmap("dog barks", prompt_index=0), edit.maps.heatmap("rooster crows", prompt_index=1),\n'
        '    "dog barks", "rooster crows",\n'
        ")])",
    ),
}
"""Functions of `attnviz.plots`: title, what is seen, and the expression that draws it."""


def material() -> dict[str, Any]:
    """Make what the figures are of."""
    pipe = attnviz.load()
    pipe.set_progress_bar_config(disable=True)
    maps, other = (_traced(pipe, seed) for seed in (0, 1))
    recordings = read_esc10(AUDIO, classes=["Dog bark", "Rain", "Clock tick", "Rooster"])
    clips = list(scenes(recordings, 6, 1, ComposerConfig(events=(2, 2))))
    looks = [attnviz.explain(pipe, one.mixture, one.caption, draws=2, normalize=False) for one in clips]
    generator = torch.Generator().manual_seed(2)
    target = "a rooster crows, then rain falls"
    return {
        "attnviz": attnviz,
        "plots": plots,
        "attention_share": attnviz_maps.attention_share,
        "word_overlap": attnviz_maps.word_overlap,
        "maps": maps,
        "other": other,
        "sound": maps.spectrogram[0, 0],
        "scene": clips[3],
        "real": looks[3],
        "result": Alignment.concat(
            attnviz.align(look, one.events) for look, one in zip(looks, clips, strict=True)
        ),
        "edit": swap(pipe, PROMPT, target, num_inference_steps=20, generator=generator),
    }


def main() -> None:
    """Draw the figures, and write the page."""
    names = material()
    folder = DOCS / "gallery"
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("*.png"):
        stale.unlink()
    page = [INTRODUCTION]
    for name, (title, seen, code) in FIGURES.items():
        figure: Figure = eval(code, names)
        dpi = min(100.0, WIDEST / figure.get_figwidth())
        with mpl.rc_context({"savefig.bbox": "tight"}):  # notes beyond the axes are part of the picture
            figure.savefig(folder / f"{name}.png", dpi=dpi, metadata={"Software": None})
        page.append(f"## {title}\n\n{seen}\n\n```python\n{code}\n```\n\n![{title}](gallery/{name}.png)\n")
    (DOCS / "gallery.md").write_text("\n".join(page), encoding="utf-8")


def _traced(pipe: attnviz.AuffusionPipeline, seed: int) -> attnviz.AttentionMaps:
    with attnviz.trace(pipe, keep=("step", "head")) as trace:
        pipe(PROMPT, num_inference_steps=25, generator=torch.Generator().manual_seed(seed))
    return trace.maps


if __name__ == "__main__":
    main()
