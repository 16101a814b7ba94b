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

WORD, HERTZ = "barks", 2900.0
LATE = 0.9
"""Share of the clip at which the pulse is planted: late, where a time axis that is off is off the most."""
PROMPT = "a dog barks, then rain falls"
SIZES = [(256, 1024), (200, 456)]  # latents 32 x 128 and 25 x 57


def seconds_of(width: int) -> float:
    return LATE * width * 0.01


def planted_cell(rows: int, columns: int, size: tuple[int, int]) -> tuple[int, int]:
    """Row from the top and column of the cell that the second and the frequency come to.

    Found by convolving a picture of the pulse as the U-Net would, with a stride of 2, padding of 1 and weights
    that sum what a cell stands for; nothing here asks the grid that is tested.
    """
    height, width = size
    picture = torch.zeros(1, 1, height // 8, width // 8)
    mel = librosa.hz_to_mel(HERTZ) / librosa.hz_to_mel(8000)
    picture[..., int((1 - mel) * height / 8), int(LATE * width / 8)] = 1.0
    weight = torch.ones(1, 1, 3, 3)
    weight[..., 0, :] = weight[..., :, 0] = 0.0
    while picture.shape[-2:] != (rows, columns):
        picture = torch.nn.functional.conv2d(picture, weight, stride=2, padding=1)
    row, column = np.unravel_index(int(picture.argmax()), (rows, columns))
    return int(row), int(column)


def plant(pipe, size: tuple[int, int], positions) -> list:
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
            row, column = planted_cell(*grid, size)
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
    handles = plant(pipe, (height, width), positions)
    with attnviz.trace(pipe) as trace:
        pipe(PROMPT, height=height, width=width, num_inference_steps=1, output_type="latent")
    for handle in handles:
        handle.remove()
    return trace.maps, (height, width)


def lies_at_the_pulse(peak_time: float, peak_freq: float, rows: int, columns: int, size: tuple[int, int]) -> bool:
    """Whether a peak is in the cell of a rows x columns grid that holds the planted second and band."""
    height, width = size
    cell = 8
    while (-(-height // cell), -(-width // cell)) != (rows, columns) and cell <= width:
        cell *= 2
    half_column = cell * 0.01 / 2
    half_row = librosa.hz_to_mel(8000) * cell / height / 2
    return (
        abs(peak_time - seconds_of(width)) <= half_column + 1e-9
        and abs(librosa.hz_to_mel(peak_freq) - librosa.hz_to_mel(HERTZ)) <= half_row + 1e-9
    )


def test_read_back_at_every_level(planted):
    maps, size = planted
    assert len(maps.layers) == 16
    assert len({maps[layer].shape[-2:] for layer in maps.layers}) == 4
    for layer in maps.layers:
        heat = maps.heatmap(WORD, readout=layer)
        peak = heat.isel(heat.argmax(("freq", "time")))
        assert float(peak) > 0.3, layer
        assert lies_at_the_pulse(float(peak.time), float(peak.freq), *heat.shape, size), layer


def test_read_back_from_readouts(planted):
    maps, size = planted
    coarsest = maps["mid_block.attentions.0"].shape[-2:]
    for readout in ("mean", "auffusion"):
        for grid in ("finest", "image"):
            heat = maps.heatmap(WORD, readout=readout, grid=grid)
            peak = heat.isel(heat.argmax(("freq", "time")))
            assert lies_at_the_pulse(float(peak.time), float(peak.freq), *coarsest, size), (readout, grid)
    activation = maps.activation(WORD)
    assert abs(float(activation.idxmax()) - seconds_of(size[1])) <= 0.01 * size[1] / coarsest[1]


def test_other_words_do_not_peak_there(planted):
    maps, size = planted
    heat = maps.heatmap("rain", readout=maps.layers[0])
    assert float(heat.sel(time=seconds_of(size[1]), freq=HERTZ, method="nearest")) == pytest.approx(
        float(heat.min()), abs=1e-6
    )


def test_square_reshaping_fails_the_same_check(planted):
    """What tools that take sqrt(positions) do to 32 x 128, and the nearest they can do to an odd size."""
    maps, size = planted
    heat = maps.heatmap(WORD, readout=maps.layers[0])
    from_the_top = heat.values[::-1].ravel()
    side = int(np.sqrt(from_the_top.size))
    square = from_the_top[: side * side].reshape(side, side)[::-1]
    row, column = np.unravel_index(square.argmax(), square.shape)
    time, freq = maps.grid.time(side)[column], maps.grid.freq(side)[row]
    half_cell = size[1] * 0.01 / side / 2
    assert abs(time - seconds_of(size[1])) > half_cell or abs(freq - HERTZ) > 500


# ---- through the real convolutions -------------------------------------------------------------------------


COLUMN = 58
"""Of 61 columns of latents: late in the clip, and at no edge of a coarser cell."""


@pytest.fixture(scope="module")
def answered():
    """Maps of the bundled model, made to look in every layer where a change of one latent column arrives.

    Which it is, the convolutions say: two runs that differ in that column alone, and where the layers' inputs
    differ most. 976 columns are 61 of latents, then 31 and 16.
    """
    pipe = attnviz.load()
    pipe.set_progress_bar_config(disable=True)
    positions = pipe.conditioner.token_table(PROMPT).find(WORD)
    generator = torch.Generator().manual_seed(0)
    rows = 256 // pipe.vae_scale_factor
    latents = torch.randn(1, pipe.unet.config.in_channels, rows, 976 // pipe.vae_scale_factor, generator=generator)
    changed = latents.clone()
    changed[..., COLUMN] += 3 * torch.randn(latents.shape[:-1], generator=generator)
    settings = {"width": 976, "num_inference_steps": 1, "guidance_scale": 1.0, "output_type": "latent"}
    inputs: dict[str, torch.Tensor] = {}
    columns: dict[str, int] = {}
    handles = []
    for path, attention in pipe.unet.named_modules():
        if not (isinstance(attention, Attention) and attention.is_cross_attention):
            continue
        name = path.rsplit(".transformer_blocks", 1)[0]

        def keep(module, args, name=name):
            inputs.setdefault(name, args[0].detach().clone())
            difference = (args[0] - inputs[name]).abs().sum(dim=(0, 1, 2))
            columns[name] = int(difference.argmax())

        def query(module, args, output, name=name):
            width = inputs[name].shape[-1]
            planted = torch.zeros_like(output).unflatten(1, (-1, width))
            planted[:, :, columns[name]] = 10.0
            return planted.flatten(1, 2)

        def key(module, args, output):
            planted = torch.zeros_like(output)
            planted[:, positions] = 10.0
            return planted

        transformer = pipe.unet.get_submodule(name)
        handles.append(transformer.register_forward_pre_hook(keep))
        handles += [attention.to_q.register_forward_hook(query), attention.to_k.register_forward_hook(key)]
    pipe(PROMPT, latents=latents, **settings)
    with attnviz.trace(pipe) as trace:
        pipe(PROMPT, latents=changed, **settings)
    for handle in handles:
        handle.remove()
    return trace.maps


def test_times_at_a_width_that_does_not_halve_evenly_vs_the_convolutions(answered):
    assert sorted({answered[layer].shape[-1] for layer in answered.layers}) == [16, 31, 61]
    at = (COLUMN + 0.5) * 0.16
    for layer in answered.layers:
        columns = answered[layer].shape[-1]
        half = {61: 0.08, 31: 0.16, 16: 0.32}[columns]
        found = float(answered.activation(WORD, readout=layer).idxmax())
        assert abs(found - at) <= half + 1e-9, (layer, found)
        # Equal shares of the width, which the coarse layers' cells are not, miss it.
        shares = (np.arange(columns) + 0.5) * 9.76 / columns
        if columns == 16:
            assert abs(shares[int(np.nanargmax(answered.activation(WORD, readout=layer).to_numpy()))] - at) > 0.45
    for readout in ("mean", "auffusion"):
        assert abs(float(answered.activation(WORD, readout=readout).idxmax()) - at) <= 0.161
