"""Planted pulses: two words hold two known seconds (and bands) in the queries and keys, and are read back there.

Only the outputs of the projections are replaced. Norms, rotary positions, grouped heads, differential halves, the
processor, the kernel and every reshaping are the model's own. Where the pulses are is written out here for each
model, from its published layout, and not asked of attnviz.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import attnviz
from attnviz.errors import AttnVizError
from attnviz.models.families import Segment, family_of

PROMPT = "A Dog barks, then Rain falls"
WORDS = ("Dog", "Rain")
# Of each model: paths of its sites; columns of the two words; the query of column 0; seconds a column; the
# conditional row of a guided call (None: a call of its own, the first of two).
LAYOUTS = {
    "stable-audio": ("attn2", (5, 16), 1, 8 / 160, 1),
    "stable-audio-3": ("cross_attn", (2, 9), 3, 4 / 16, 1),
    "longcat-audio-dit": ("cross_attn", (7, 30), 0, 2 / 24, None),
    "ace-step": ("cross_attn", (4, 20), 0, 2 * 8 / 200, 0),
}


def keys_of(pipe, name, word, lyrics="la la"):
    """Key positions of a word's tokens, from the tokenizer's own offsets."""
    tokenizer, text, first = (pipe.tokenizer_2 if name == "audioldm2" else pipe.tokenizer), PROMPT, 0
    if name == "longcat-audio-dit":
        text, word = text.lower(), word.lower()
    if name == "ace-step":  # packed: lyrics, one timbre, and the prompt in its template
        text, lyrics = pipe._format_prompt(PROMPT, lyrics=lyrics, audio_duration=2.0)
        first = len(tokenizer(lyrics)["input_ids"]) + 1
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    start = text.index(word)
    inside = [i for i, (a, b) in enumerate(offsets) if a < start + len(word) and b > start and b > a]
    return [first + i for i in inside]


class Planted:
    """Replace what a site's projections give: one direction of every head for each word, and zeros elsewhere."""

    def __init__(self, pipe, name, where, conditional, lyrics="la la"):
        """`where` gives the two query positions, from the number of positions of a call."""
        self.pipe, self.name, self.where, self.conditional = pipe, name, where, conditional
        self.keys = [keys_of(pipe, name, word, lyrics) for word in WORDS]
        self.handles = []
        self.calls = 0

    def on(self, module, path):
        heads = module.heads
        halves = 2 if self.name == "stable-audio-3" else 1  # of its differential attention, the first only
        width = module.to_q.out_features // heads // halves
        # The two slowest directions of a rotary embedding of halves, which turn by 1e-4 a position.
        units = [width // 2 - 1, width - 1]

        def query(module, args, output):
            self.calls += 1
            planted = torch.zeros_like(output)
            rows = range(len(output))
            if len(output) > 1 and self.conditional is not None:
                rows = [self.conditional]
            for unit, position in zip(units, self.where(path, output.shape[1]), strict=True):
                for row in rows:
                    planted[row, position, unit : output.shape[-1] // halves : width] = 10.0
            return planted

        def key(module, args, output):
            planted = torch.zeros_like(output)
            part = output.shape[-1] // 3 if self.name == "stable-audio-3" else output.shape[-1]
            for unit, keys in zip(units, self.keys, strict=True):
                planted[:, keys, unit:part:width] = 10.0
            if self.name == "stable-audio-3":
                planted[..., 2 * part :] = output[..., 2 * part :]  # the values
            return planted

        keys = module.to_kv if self.name == "stable-audio-3" else module.to_k
        self.handles += [module.to_q.register_forward_hook(query), keys.register_forward_hook(key)]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()


def sites(denoiser, suffix):
    found = [(path, module) for path, module in denoiser.named_modules() if path.endswith(f".{suffix}")]
    assert found
    return found


def stands_out(curve):
    """Return where a curve has its maximum, which is far above the rest; padding is NaN."""
    heard = np.nan_to_num(curve.to_numpy(), nan=-1.0)
    values = np.sort(heard.ravel())
    assert values[-1] > 2.5 * max(values[-2], 1e-6)
    return int(heard.argmax())


def generated(made, family):
    """Return the maps of a generation."""
    with attnviz.trace(made.pipe, family=family) as trace:
        made(PROMPT)
    return trace.maps


def read_pulse(made, family=None, maps_of=generated, lyrics="la la"):
    """Plant a pulse in a model of time alone, and read it."""
    suffix, columns, first, seconds, conditional = LAYOUTS[made.name]
    with Planted(
        made.pipe, made.name, lambda path, n: [first + c for c in columns], conditional, lyrics
    ) as planted:
        for path, module in sites(made.denoiser, suffix):
            planted.on(module, path)
        maps = maps_of(made, family)
    for word, column in zip(WORDS, columns, strict=True):
        curve = maps.activation(word)
        found = float(curve.time[stands_out(curve)])
        assert found == pytest.approx((column + 0.5) * seconds, abs=1e-6)
        other = maps.activation(WORDS[1 - WORDS.index(word)])
        assert float(other[column]) < float(curve[column]) / 2


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_planted_pulse_is_read_at_its_second(family_pipe, name):
    read_pulse(family_pipe(name))


def changed(name, pipe):
    """Families that say something untrue of a model."""
    family = family_of(pipe)

    def queries(**changes):
        return dataclasses.replace(family, queries=dataclasses.replace(family.queries, **changes))

    wrong = {
        "stable-audio": {
            "an uncut prefix": queries(prefix=0),
            "a duration taken for a word": dataclasses.replace(
                family, keys=(Segment("duration", 2), Segment("text"))
            ),
            "flipped guidance": dataclasses.replace(family, guidance=("conditional", "unconditional")),
        },
        "stable-audio-3": {
            "an uncut prefix": queries(prefix=0),
            "no sign": dataclasses.replace(family, negated=None),
            "flipped guidance": dataclasses.replace(family, guidance=("conditional", "unconditional")),
        },
        "longcat-audio-dit": {"the axis of channels": queries(axis=2), "patches": queries(patch=2)},
        "ace-step": {
            "unpatched": queries(patch=1),
            "lyrics last": dataclasses.replace(family, keys=family.keys[::-1]),
            "flipped guidance": dataclasses.replace(family, guidance=("unconditional", "conditional")),
        },
    }
    return wrong[name]


WRONG = {
    "stable-audio": ["an uncut prefix", "a duration taken for a word", "flipped guidance"],
    "stable-audio-3": ["an uncut prefix", "no sign", "flipped guidance"],
    "longcat-audio-dit": ["the axis of channels", "patches"],
    "ace-step": ["unpatched", "lyrics last", "flipped guidance"],
}


@pytest.mark.parametrize(("name", "what"), [(name, what) for name, each in WRONG.items() for what in each])
def test_the_pulse_fails_where_the_family_is_wrong(family_pipe, name, what):
    made = family_pipe(name)
    with pytest.raises((AssertionError, AttnVizError)):
        read_pulse(made, changed(name, made.pipe)[what])


# Time and frequency --------------------------------------------------------------------------------------


def read_pulse_of_audioldm2(made, family=None, maps_of=generated):
    """The dog is late in the lowest band, the rain early in the highest; rows of the model are time first."""
    grids, at, handles = {}, {}, []
    conditional = 1

    def where(path, positions):
        times, bands = grids[path]
        assert times * bands == positions
        at[path] = ((times - 2, 0), (1, bands - 1))
        return [time * bands + band for time, band in at[path]]

    with Planted(made.pipe, made.name, where, conditional) as planted:
        for path, module in sites(made.denoiser, "attn2"):
            # Groups of three transformers attend to nothing, to GPT-2's vectors and to Flan-T5's tokens.
            group = int(path.split(".attentions.")[1].split(".")[0])
            if group % 3 != 2:
                continue
            block = made.denoiser.get_submodule(path.rsplit(".transformer_blocks", 1)[0])

            def see(module, args, path=path):
                grids[path] = tuple(args[0].shape[-2:])

            handles.append(block.register_forward_pre_hook(see))
            planted.on(module, path)
        try:
            maps = maps_of(made, family)
        finally:
            for handle in handles:
                handle.remove()
    assert len(maps.layers) == len(at)
    for layer in maps.layers:
        found = next(each for path, each in at.items() if path.startswith(f"{layer}."))
        for word, (time, band) in zip(WORDS, found, strict=True):
            heat = maps.heatmap(word, readout=layer)
            step = 1.28 / heat.sizes["time"]
            flat = stands_out(heat)
            row, column = divmod(flat, heat.sizes["time"])
            assert (row, column) == (band, time)
            assert float(heat.time[column]) == pytest.approx((time + 0.5) * step)
            assert bool((heat.freq.diff("freq") > 0).all())


def test_a_planted_pulse_is_read_at_its_second_and_band(family_pipe):
    read_pulse_of_audioldm2(family_pipe("audioldm2"))


@pytest.mark.parametrize("what", ["transposed", "upside down", "flipped guidance", "the keys of GPT-2"])
def test_the_pulse_fails_where_the_family_of_audioldm2_is_wrong(family_pipe, what):
    made = family_pipe("audioldm2")
    family = family_of(made.pipe)
    queries = family.queries
    wrong = {
        "transposed": {"queries": dataclasses.replace(queries, order=("freq", "time"))},
        "upside down": {"queries": dataclasses.replace(queries, first_row="highest")},
        "flipped guidance": {"guidance": ("conditional", "unconditional")},
        "the keys of GPT-2": {"sites": family.sites.replace("2|5|8|11", "1|4|7|10")},
    }
    with pytest.raises((AssertionError, AttnVizError, StopIteration)):
        read_pulse_of_audioldm2(made, dataclasses.replace(family, **wrong[what]))
