"""The pulse test: attention planted at a known word, second and band is read back there.

A tool that guesses the grid from the number of positions fails it; a deliberately wrong reshaping shows that.
"""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention

import attnviz

WORD, SECOND, HERTZ = "barks", 0.8, 2900.0
PROMPT = "a dog barks, then rain falls"
SIZES = [(256, 1024), (200, 456)]  # latents 32 x 128 and 25 x 57


def planted_cell(rows: int, columns: int, width: int) -> tuple[int, int]:
    """Row from the top and column of the cell that holds the second and the frequency."""
    column = int(SECOND / (width * 0.01) * columns)
    mel = librosa.hz_to_mel(HERTZ) / librosa.hz_to_mel(8000)
    return rows - 1 - int(mel * rows), column


def plant(pipe, width: int, positions) -> list:
    """Make every cross-attention layer look at `positions` in the planted cell, and evenly everywhere else."""
    handles = []
    for path, attention in pipe.unet.named_modules():
        if not (isinstance(attention, Attention) and attention.is_cross_attention):
            continue
        grid = []
        transformer = pipe.unet.get_submodule(path.rsplit(".transformer_blocks", 1)[0])

        def see_grid(module, args, grid=grid):
            grid[:] = args[0].shape[-2:]

        def query(module, args, output, grid=grid):
            row, column = planted_cell(*grid, width)
            planted = torch.zeros_like(output)
            planted[:, row * grid[1] + column] = 10.0
            return planted

        def key(module, args, output):
            planted = torch.zeros_like(output)
            planted[:, positions] = 10.0
            return planted

        handles += [
            transformer.register_forward_pre_hook(see_grid),
            attention.to_q.register_forward_hook(query),
            attention.to_k.register_forward_hook(key),
        ]
    return handles


@pytest.fixture(scope="module", params=SIZES, ids=["32x128", "25x57"])
def planted(request, adapter_checkpoint):
    height, width = request.param
    pipe = attnviz.load(adapter_checkpoint)
    pipe.set_progress_bar_config(disable=True)
    positions = pipe.conditioner.token_table(PROMPT).find(WORD)
    handles = plant(pipe, width, positions)
    with attnviz.trace(pipe) as trace:
        pipe(PROMPT, height=height, width=width, num_inference_steps=1, output_type="latent")
    for handle in handles:
        handle.remove()
    return trace.maps, width


def lies_at_the_pulse(peak_time: float, peak_freq: float, rows: int, columns: int, width: int) -> bool:
    """Whether a peak is in the cell of a rows x columns grid that holds the planted second and band."""
    half_column = width * 0.01 / columns / 2
    half_row = librosa.hz_to_mel(8000) / rows / 2
    return (
        abs(peak_time - SECOND) <= half_column + 1e-9
        and abs(librosa.hz_to_mel(peak_freq) - librosa.hz_to_mel(HERTZ)) <= half_row + 1e-9
    )


def test_read_back_at_every_level(planted):
    maps, width = planted
    assert len(maps.layers) == 16
    assert len({maps[layer].shape[-2:] for layer in maps.layers}) == 4
    for layer in maps.layers:
        heat = maps.heatmap(WORD, readout=layer)
        peak = heat.isel(heat.argmax(("freq", "time")))
        assert float(peak) > 0.3, layer
        assert lies_at_the_pulse(float(peak.time), float(peak.freq), *heat.shape, width), layer


def test_read_back_from_readouts(planted):
    maps, width = planted
    coarsest = maps["mid_block.attentions.0"].shape[-2:]
    for readout in ("mean", "auffusion"):
        for grid in ("finest", "image"):
            heat = maps.heatmap(WORD, readout=readout, grid=grid)
            peak = heat.isel(heat.argmax(("freq", "time")))
            assert lies_at_the_pulse(float(peak.time), float(peak.freq), *coarsest, width), (readout, grid)
    activation = maps.activation(WORD)
    assert abs(float(activation.idxmax()) - SECOND) <= width * 0.01 / coarsest[1]


def test_other_words_do_not_peak_there(planted):
    maps, _ = planted
    heat = maps.heatmap("rain", readout=maps.layers[0])
    assert float(heat.sel(time=SECOND, freq=HERTZ, method="nearest")) == pytest.approx(float(heat.min()), abs=1e-6)


def test_square_reshaping_fails_the_same_check(planted):
    """What tools that take sqrt(positions) do to 32 x 128, and the nearest they can do to an odd size."""
    maps, width = planted
    heat = maps.heatmap(WORD, readout=maps.layers[0])
    from_the_top = heat.values[::-1].ravel()
    side = int(np.sqrt(from_the_top.size))
    square = from_the_top[: side * side].reshape(side, side)[::-1]
    row, column = np.unravel_index(square.argmax(), square.shape)
    time, freq = maps.grid.time(side)[column], maps.grid.freq(side)[row]
    assert not lies_at_the_pulse(time, freq, side, side, width)
