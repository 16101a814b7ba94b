"""Our processors in diffusers' slots: transparent, all or none, and what they see is what acts."""

from __future__ import annotations

import importlib
import inspect
import re
import threading

import numpy as np
import pytest
import torch
from capture.conftest import KEYS, WIDTH
from capture.literal import literal_attention
from diffusers.hooks import PyramidAttentionBroadcastConfig, apply_pyramid_attention_broadcast
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor,
    AttnProcessor2_0,
    IPAdapterAttnProcessor,
    IPAdapterAttnProcessor2_0,
    SlicedAttnProcessor,
)
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection
from diffusers.utils import logging
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from attnviz.capture import AttentionRecorder, Conditioning, TracingProcessor, is_traced
from attnviz.capture.kernel import tap_depth
from attnviz.errors import CaptureError

SAMPLE = torch.randn(2, 4, 9, 29, generator=torch.Generator().manual_seed(2))


def call(unet, embeds, **kwargs):
    embeds = embeds[:1]
    with torch.no_grad():
        states = torch.cat([torch.zeros_like(embeds), embeds])
        return unet(SAMPLE.to(embeds.dtype), 500, encoder_hidden_states=states, **kwargs).sample


def conditioning(embeds):
    return Conditioning(embeds[:1], torch.zeros_like(embeds[:1]), 1, range(KEYS))


def traced(unet, embeds, *, keep=("step", "head"), branch="both", **kwargs):
    with AttentionRecorder(unet, keep=keep, branch=branch) as recorder:
        recording = recorder.begin(conditioning(embeds), lambda: 1)
        output = call(unet, embeds, **kwargs)
    return output, recorder.captured(recording)


def cross_processors(unet):
    return {
        name: module.processor
        for name, module in unet.named_modules()
        if isinstance(module, Attention) and module.is_cross_attention
    }


def assert_follows_oracle(unet, embeds, layers, atol=1e-5):
    """By explicit loops, on the same call."""
    with literal_attention(unet) as seen:
        call(unet, embeds)
    for layer in layers.values():
        literal = seen[layer.path][0]  # row, head, n, key
        rows, columns = layer.attention.shape[-2:]
        expected = literal.transpose(2, 3).unflatten(-1, (rows, columns))
        np.testing.assert_allclose(layer.attention[:, 0, 0, 0], expected, atol=atol, err_msg=layer.path)


# The slot ----------------------------------------------------------------------------------------------


def test_every_slot_shows_ours_and_gets_the_same_object_back(unet):
    before = dict(unet.attn_processors)
    with AttentionRecorder(unet):
        assert is_traced(unet)
        for name, processor in unet.attn_processors.items():
            ours = type(processor) is TracingProcessor
            assert ours == ("attn2" in name)
            assert not ours or processor.inner is before[name]
    assert all(unet.attn_processors[name] is processor for name, processor in before.items())
    assert not is_traced(unet)
    assert not any("get_attention_scores" in vars(module) for module in unet.modules())


def test_ours_passes_for_the_one_it_holds(unet):
    class Own(AttnProcessor2_0):
        strength = 1.0

        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, *, extra=None):
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)

    unet.set_attn_processor(Own())
    own = inspect.signature(Own().__call__)
    with AttentionRecorder(unet):
        for processor in cross_processors(unet).values():
            assert isinstance(processor, Own)
            assert processor.__class__ is Own
            assert inspect.signature(processor.__call__) == own
            processor.strength = 2.0
    assert all(processor.strength == 2.0 for processor in cross_processors(unet).values())


def test_diffusers_finds_the_arguments_of_the_held_processor(unet, embeds, caplog):
    got = []

    class Own(AttnProcessor2_0):
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, extra=None):
            got.append(extra)
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)

    unet.set_attn_processor(Own())
    before = logging.get_verbosity()
    logging.set_verbosity_warning()  # a command run in this process leaves it at errors
    logging.enable_propagation()
    try:
        traced(unet, embeds, cross_attention_kwargs={"extra": 7})
        assert set(got) == {7}
        assert not caplog.records
        traced(unet, embeds, cross_attention_kwargs={"unknown": 7})
        assert "['unknown'] are not expected by Own" in caplog.text
    finally:
        logging.disable_propagation()
        logging.set_verbosity(before)


def test_setting_processors_during_a_trace_is_refused_and_left_alone(unet, embeds):
    new = AttnProcessor()
    with pytest.raises(CaptureError, match="processor of .* was replaced"), AttentionRecorder(unet) as recorder:
        recorder.begin(conditioning(embeds), lambda: 1)
        unet.set_attn_processor(new)
        call(unet, embeds)
    assert all(processor is new for processor in unet.attn_processors.values())


# What acts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["default", "classic", "sliced", "fused"])
def test_output_is_bit_identical(unet, embeds, kind, dtype):
    unet, embeds = unet.to(dtype), embeds.to(dtype)
    if kind == "fused":
        unet.fuse_qkv_projections()
    elif kind != "default":
        unet.set_attn_processor(AttnProcessor() if kind == "classic" else SlicedAttnProcessor(3))
    before = call(unet, embeds)
    during, layers = traced(unet, embeds)
    assert torch.equal(before, during)
    assert len(layers) == 16
    for layer in layers.values():
        assert layer.attention.dtype == np.float32
        np.testing.assert_allclose(layer.attention.sum(axis=5), 1.0, atol=1e-5)
    if dtype == torch.float32:
        assert_follows_oracle(unet, embeds, layers)


def with_ip_adapter(unet, classic=False):
    """Adapters for two images' features, of random weights, as `load_ip_adapter` puts them in."""
    kind = IPAdapterAttnProcessor if classic else IPAdapterAttnProcessor2_0
    plain = AttnProcessor() if classic else AttnProcessor2_0()
    processors = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for name, module in unet.named_modules():
            if isinstance(module, Attention):
                processors[f"{name}.processor"] = (
                    kind(module.inner_dim, WIDTH, num_tokens=(4,)) if module.is_cross_attention else plain
                )
        unet.encoder_hid_proj = MultiIPAdapterImageProjection([ImageProjection(6, WIDTH, 4)])
    unet.config.encoder_hid_dim_type = "ip_image_proj"
    unet.set_attn_processor(processors)
    image = torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(4))
    return {"added_cond_kwargs": {"image_embeds": [image]}}


@pytest.mark.parametrize("classic", [False, True])
def test_ip_adapters_are_seen_at_the_text(unet, embeds, classic):
    kwargs = with_ip_adapter(unet, classic)
    masks = [torch.ones(1, 1, 9, 29)]
    kwargs["cross_attention_kwargs"] = {"ip_adapter_masks": masks}
    before, names = call(unet, embeds, **kwargs), list(unet.state_dict())
    with AttentionRecorder(unet, keep=("head",)) as recorder:
        recording = recorder.begin(conditioning(embeds), lambda: 1)
        assert list(unet.state_dict()) == names
        during = call(unet, embeds, **kwargs)
        unet.double()
        assert all(parameter.dtype == torch.float64 for parameter in unet.parameters())
        unet.float()
    assert torch.equal(before, during)
    layers = recorder.captured(recording)
    first = layers["down_blocks.0.attentions.0"]
    assert first.attention.shape[-3] == KEYS
    np.testing.assert_allclose(first.attention.sum(axis=3), 1.0, atol=1e-5)
    assert isinstance(
        unet.mid_block.attentions[0].transformer_blocks[0].attn2._modules["processor"], torch.nn.Module
    )


def test_masked_keys_get_nothing(unet, embeds):
    mask = torch.ones(2, KEYS, dtype=torch.bool)
    mask[:, -3:] = False
    before = call(unet, embeds, encoder_attention_mask=mask)
    during, layers = traced(unet, embeds, encoder_attention_mask=mask)
    assert torch.equal(before, during)
    for layer in layers.values():
        assert layer.attention[:, :, :, :, :, -3:].max() < 1e-6


@pytest.mark.parametrize("padded", [(), (0,), (1,)])
def test_a_mask_counts_where_it_masks(unet, embeds, padded):
    """Whether all rows, some or none have padding, the conditional row is that of a call of its own."""
    mask = torch.ones(2, KEYS, dtype=torch.bool)
    mask[list(padded), -2:] = False
    _, both = traced(unet, embeds, encoder_attention_mask=mask)
    _, conditional = traced(unet, embeds, branch="conditional", encoder_attention_mask=mask)
    _, unmasked = traced(unet, embeds, branch="conditional")
    for name, layer in conditional.items():
        np.testing.assert_allclose(layer.attention, both[name].attention[1], atol=1e-6)
        assert np.array_equal(layer.attention, unmasked[name].attention) == (1 not in padded)


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["default", "classic", "sliced"])
def test_arithmetic_is_float32_under_the_callers_autocast(unet, embeds, autocast, kind):
    """Of the same queries and keys, rounded as autocast rounds them, to 1e-6."""
    if kind != "default":
        unet.set_attn_processor(AttnProcessor() if kind == "classic" else SlicedAttnProcessor(3))
    seen = {}

    def note(name, what):
        def hook(module, args, output):
            seen.setdefault(name, {})[what] = output.clone()

        return hook

    handles = [
        getattr(module, what).register_forward_hook(note(name, what))
        for name, module in unet.named_modules()
        if isinstance(module, Attention) and module.is_cross_attention
        for what in ("to_q", "to_k")
    ]
    with torch.autocast("cpu", autocast):
        before = call(unet, embeds)
        during, layers = traced(unet, embeds)
    for handle in handles:
        handle.remove()
    assert torch.equal(before, during)
    for layer in layers.values():
        query, key = (
            seen[layer.path][what].double().unflatten(2, (4, -1)).transpose(1, 2) for what in ("to_q", "to_k")
        )
        expected = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1).transpose(2, 3)
        assert seen[layer.path]["to_q"].dtype == autocast
        np.testing.assert_allclose(layer.attention[:, 0, 0, 0].reshape(expected.shape), expected, atol=1e-6)


def test_kernel_calls_of_other_threads_are_not_ours(unet, embeds):
    class Busy(AttnProcessor2_0):
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
            other = torch.zeros(1, 1, 3, 5)
            thread = threading.Thread(target=functional.scaled_dot_product_attention, args=(other, other, other))
            thread.start()
            thread.join()
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)

    _, expected = traced(unet, embeds)
    unet.set_attn_processor(Busy())
    _, layers = traced(unet, embeds)
    for name, layer in layers.items():
        np.testing.assert_array_equal(layer.attention, expected[name].attention)
    assert tap_depth() == 0


# Measured, not believed -----------------------------------------------------------------------------------


def refused(unet, embeds, match):
    before = dict(unet.attn_processors)
    with pytest.raises(CaptureError, match=match):
        traced(unet, embeds)
    assert unet.attn_processors == before
    assert tap_depth() == 0


def test_a_kernel_that_computes_something_else_is_refused(unet, embeds):
    class Sharper(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is functional.scaled_dot_product_attention:
                return func(args[0] * 1.05, *args[1:], **(kwargs or {}))
            return func(*args, **(kwargs or {}))

    with (
        Sharper(),
        pytest.raises(CaptureError, match=r"down_blocks\.0\.attentions\.0.*does not attend by softmax"),
    ):
        traced(unet, embeds)


class Twice(AttnProcessor2_0):
    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        args = (attn, hidden_states, encoder_hidden_states, attention_mask)
        return super().__call__(*args) - 0.5 * super().__call__(*args)


class Changing(AttnProcessor):
    """As tools that replace attention do: probabilities are computed, and then others are used."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        batch = len(hidden_states)
        states = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attn.head_to_batch_dim(each)
            for each in (attn.to_q(hidden_states), attn.to_k(states), attn.to_v(states))
        )
        mask = attn.prepare_attention_mask(attention_mask, states.shape[1], batch)
        probabilities = attn.get_attention_scores(query, key, mask).roll(1, dims=-1)
        return attn.to_out[0](attn.batch_to_head_dim(torch.bmm(probabilities, value)))


class Own(AttnProcessor):
    """Its own softmax, which neither the kernel nor the module computes."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        states = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attn.head_to_batch_dim(each)
            for each in (attn.to_q(hidden_states), attn.to_k(states), attn.to_v(states))
        )
        probabilities = (query @ key.transpose(-1, -2) * attn.scale).softmax(dim=-1)
        return attn.to_out[0](attn.batch_to_head_dim(probabilities @ value))


@pytest.mark.parametrize(
    ("processor", "match"),
    [
        (Twice, r"down_blocks\.0\.attentions\.0.*more than once.*Twice"),
        (Changing, r"down_blocks\.0\.attentions\.0.*does not multiply its values.*Changing"),
        (Own, r"down_blocks\.0\.attentions\.0.*without torch's attention kernel.*Own.*set_attn_processor"),
    ],
)
def test_a_processor_that_does_something_else_is_named(unet, embeds, processor, match):
    unet.set_attn_processor(processor())
    refused(unet, embeds, match)


@pytest.mark.parametrize("processor", [Twice, Changing, Own])
def test_what_the_message_says_makes_the_attention_observable(unet, embeds, processor):
    unet.set_attn_processor(processor())
    with pytest.raises(CaptureError) as caught:
        traced(unet, embeds)
    called = re.search(r"Call unet\.(\w+)\(([\w.]+)\(\)\)", str(caught.value))
    module, _, kind = called[2].rpartition(".")
    getattr(unet, called[1])(getattr(importlib.import_module(module), kind)())
    traced(unet, embeds)


def test_dropout_of_attention_is_refused(unet, embeds):
    class Own(AttnProcessor2_0):
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
            query = attn.to_q(hidden_states)[:, None]
            states = hidden_states if encoder_hidden_states is None else encoder_hidden_states
            key, value = attn.to_k(states)[:, None], attn.to_v(states)[:, None]
            attended = functional.scaled_dot_product_attention(query, key, value, dropout_p=0.1)
            return attn.to_out[0](attended[:, 0])

    unet.set_attn_processor(Own())
    refused(unet, embeds, "applies attention dropout")


def test_caches_of_features_are_refused_before_anything_runs(unet):
    config = PyramidAttentionBroadcastConfig(
        cross_attention_block_skip_range=2,
        cross_attention_block_identifiers=("transformer_blocks",),
        current_timestep_callback=lambda: 500,
    )
    apply_pyramid_attention_broadcast(unet, config)
    with (
        pytest.raises(CaptureError, match=r"attn2 is under a cache.*pyramid_attention_broadcast"),
        AttentionRecorder(unet),
    ):
        pass


def test_compiling_during_a_trace_is_refused_before_anything_runs(unet, embeds):
    with AttentionRecorder(unet) as recorder:
        unet.mid_block.compile(backend="eager")
        with pytest.raises(CaptureError, match="mid_block is compiled with torch.compile"):
            recorder.begin(conditioning(embeds), lambda: 1)
    assert not is_traced(unet)
