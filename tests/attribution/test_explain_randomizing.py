"""Shuffled weights: which, how, and that they are back to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attribution_small import small_pipeline
from torch import nn

import attnviz
from attnviz.attribution import cascade
from attnviz.attribution.randomizing import randomized, randomized_blocks
from attnviz.errors import CaptureError
from attnviz.testing.models import make_unet

CAPTION = "a dog barks, then rain falls"
ONE_LOOK = {"timesteps": (50,), "draws": 1}
CLIP = 0.1 * np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
BLOCKS = [
    *("conv_out", "up_blocks.3", "up_blocks.2", "up_blocks.1", "up_blocks.0", "mid_block"),
    *("down_blocks.3", "down_blocks.2", "down_blocks.1", "down_blocks.0", "conv_in"),
]


@pytest.fixture
def unet():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make_unet(24)


@pytest.fixture(scope="module")
def pipe(adapter_checkpoint):
    return small_pipeline(adapter_checkpoint)


@pytest.fixture(scope="module")
def plain(pipe):
    return attnviz.explain(pipe, CLIP, CAPTION, **ONE_LOOK)


def weights_of(unet):
    return {name: parameter.detach().clone() for name, parameter in unet.named_parameters()}


def same(one, two):
    return {name for name in one if torch.equal(one[name], two[name])}


def test_blocks_from_the_output_to_the_input(unet):
    assert cascade(unet) == BLOCKS
    assert randomized_blocks(unet, 0) == []
    assert randomized_blocks(unet, 3) == randomized_blocks(unet, "up_blocks.2") == BLOCKS[:3]
    assert randomized_blocks(unet, "conv_in") == randomized_blocks(unet, 11) == BLOCKS


def test_every_weight_is_in_one_block(unet):
    """Of each depth, what is new; all depths together are the U-Net."""
    before = weights_of(unet)
    untouched = set(before)
    for depth, block in enumerate(BLOCKS, start=1):
        with randomized(unet, BLOCKS[:depth], seed=0):
            new = untouched - same(before, weights_of(unet))
        assert new, block
        begins = {"conv_out": "conv_", "conv_in": ("conv_in", "time_embedding")}.get(block, f"{block}.")
        assert all(name.startswith(begins) for name in new), block
        untouched -= new
    constant = {name for name in before if before[name].unique().numel() == 1}
    assert untouched == constant  # biases of zeros and gains of ones have no order


def test_the_normalisation_before_the_output_goes_with_the_output(unet):
    """Its gains are all 1 until it is trained, and a shuffle of ones cannot be seen."""
    with torch.no_grad():
        unet.conv_norm_out.weight.copy_(torch.arange(16.0))
        unet.conv_norm_out.bias.copy_(torch.arange(16.0))
    before = weights_of(unet)
    with randomized(unet, ["conv_out"], seed=0):
        changed = set(before) - same(before, weights_of(unet))
    assert {"conv_norm_out.weight", "conv_norm_out.bias", "conv_out.weight"} <= changed
    with randomized(unet, BLOCKS[1:], seed=0):
        assert {"conv_norm_out.weight", "conv_norm_out.bias"} <= same(before, weights_of(unet))


def test_values_stay_and_their_order_goes(unet):
    before = weights_of(unet)
    with randomized(unet, BLOCKS, seed=0):
        shuffled = weights_of(unet)
    for name, values in before.items():
        assert torch.equal(values.flatten().sort().values, shuffled[name].flatten().sort().values), name
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q.weight"
    pair = torch.stack([before[name].flatten(), shuffled[name].flatten()])
    assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.15  # of 1024 values: 0.03 is one standard error


def test_a_shuffle_depends_on_seed_and_weight_alone(unet):
    def at(blocks, seed):
        with randomized(unet, blocks, seed):
            return weights_of(unet)

    state = torch.get_rng_state()
    one, again, deeper, other = at(BLOCKS[:2], 0), at(BLOCKS[:2], 0), at(BLOCKS[:5], 0), at(BLOCKS[:2], 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(one, again) == set(one)
    shared = {name for name in one if name.startswith("up_blocks.3")}
    assert shared <= same(one, deeper)
    assert not {name for name in shared & same(one, other) if one[name].unique().numel() > 1}
    before = weights_of(unet)
    alike = [name for name in shared if one[name].shape == one["up_blocks.3.resnets.0.conv2.weight"].shape]
    orders = {
        tuple(int((before[name] == value).flatten().nonzero()) for value in one[name].flatten()[:5])
        for name in alike
    }
    assert len(orders) == len(alike) > 1  # tensors of one size are put into different orders


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("when", ["inside", "while shuffling"])
def test_weights_are_back_whatever_ends_it(unet, error, when, monkeypatch):
    before = weights_of(unet)
    if when == "while shuffling":
        shuffle, left = torch.randperm, iter(range(5))

        def fail(*args, **kwargs):
            if next(left, None) is None:
                raise error
            return shuffle(*args, **kwargs)

        monkeypatch.setattr(torch, "randperm", fail)
    with pytest.raises(error), randomized(unet, BLOCKS, seed=0):
        assert len(same(before, weights_of(unet))) < len(before)
        raise error
    assert same(before, weights_of(unet)) == set(before)


def test_weights_that_cannot_be_shuffled_are_refused(unet):
    unet.conv_out.to("meta")
    with pytest.raises(CaptureError, match="conv_out.weight is offloaded"):
        randomized_blocks(unet, 1)
    assert randomized_blocks(unet, 0) == []
    unet.conv_out.weight = nn.Parameter(torch.ones(4, 16, 3, 3, dtype=torch.int8), requires_grad=False)
    with pytest.raises(CaptureError, match="conv_out.weight has the type torch.int8"):
        randomized_blocks(unet, 1)


# Through explain --------------------------------------------------------------------------------------


def changed_layers(one, two):
    return {name for name in one.layers if not np.array_equal(one[name], two[name])}


def test_only_what_the_random_block_feeds_changes(pipe, plain):
    """The last block with attention: its own maps alone. All blocks: every map."""
    before = weights_of(pipe.unet)
    none = attnviz.explain(pipe, CLIP, CAPTION, **ONE_LOOK, randomize=0)
    assert changed_layers(none, plain) == set()
    assert none.provenance == plain.provenance
    assert plain.provenance["randomized"] is None
    last = attnviz.explain(pipe, CLIP, CAPTION, **ONE_LOOK, randomize="up_blocks.1", randomize_seed=4)
    assert changed_layers(last, plain) == {name for name in plain.layers if name.startswith("up_blocks.1")}
    assert last.provenance["randomized"] == {"blocks": ["conv_out", "up_blocks.2", "up_blocks.1"], "seed": 4}
    everything = attnviz.explain(pipe, CLIP, CAPTION, **ONE_LOOK, randomize=9)
    assert changed_layers(everything, plain) == set(plain.layers)
    assert everything.provenance["randomized"] == {"blocks": cascade(pipe.unet), "seed": 0}
    assert same(before, weights_of(pipe.unet)) == set(before)


def test_maps_of_random_weights_are_never_merged_with_the_models(pipe, plain):
    other = attnviz.explain(pipe, CLIP, CAPTION, **ONE_LOOK, randomize=1)
    with pytest.raises(attnviz.AttnVizError, match="randomized"):
        attnviz.AttentionMaps.merge([plain, other])


def test_weights_are_back_after_an_error_in_the_u_net(pipe):
    def fail(module, args):
        raise ZeroDivisionError

    before = weights_of(pipe.unet)
    handle = pipe.unet.mid_block.register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        attnviz.explain(pipe, CLIP, CAPTION, **ONE_LOOK, randomize="conv_in")
    handle.remove()
    assert same(before, weights_of(pipe.unet)) == set(before)
