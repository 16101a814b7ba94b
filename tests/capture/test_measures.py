"""What is recorded beside probabilities: values against a literal oracle, rollout against explicit matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

from attnviz.capture import AttentionRecorder, Conditioning, measure_of
from attnviz.errors import CaptureError

KEYS = 11
SIZE = (9, 29)
KEPT = [1, 2, 5]


def recorded(unet, embeds, method, *, positions=KEPT, **settings):
    conditioning = Conditioning(embeds, None, len(embeds), positions)
    sample = torch.randn(len(embeds), 4, *SIZE, generator=torch.Generator().manual_seed(2))
    with AttentionRecorder(unet, measure=measure_of(method), **settings) as recorder, torch.no_grad():
        recording = recorder.begin(conditioning, lambda: 1)
        output = unet(sample, 401, encoder_hidden_states=embeds).sample
    return dict(recorder.captured(recording)), output


class Written(AttnProcessor):
    """Attention with explicit matrices, which keeps the probabilities and what each key adds."""

    def __init__(self, kept):
        self.kept = kept

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(text), attn.to_v(text)
        q, k, v = (each.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for each in (q, k, v))
        p = (q @ k.transpose(-1, -2) * attn.scale).softmax(-1)
        weight = attn.to_out[0].weight.T.unflatten(0, (attn.heads, -1))  # head, width, model
        self.kept += [p, torch.einsum("rhnk,rhkd,hdm->rhnkm", p, v, weight) if k is not hidden_states else None]
        return attn.to_out[0]((p @ v).transpose(1, 2).flatten(-2))


def write_out(unet):
    """Write out the attention of a U-Net; return what each module sees, by path."""
    seen = {}
    for path, module in unet.named_modules():
        if isinstance(module, Attention):
            module.processor = Written(seen.setdefault(path, []))
    return seen


def run(unet, embeds):
    sample = torch.randn(len(embeds), 4, *SIZE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        unet(sample, 401, encoder_hidden_states=embeds)


def of_layer(values, layer):
    """Literal values (rows, ..., n, keys) on the layer's grid: (prompt, image, ..., token, row, column)."""
    rows, columns = layer.attention.shape[-2:]
    return np.moveaxis(values.numpy(), -1, -2).reshape(len(values), 1, *values.shape[1:-2], -1, rows, columns)


def test_value_vs_literal_norms(small_unet, embeds):
    by_head, output = recorded(small_unet, embeds, "value", keep=("head",))
    together, _ = recorded(small_unet, embeds, "value")
    plain, unchanged = recorded(small_unet, embeds, "attention")
    assert torch.equal(output, unchanged)
    seen = write_out(small_unet)
    run(small_unet, embeds)
    for name, layer in together.items():
        _, added = seen[layer.path]
        literal = of_layer(added.sum(1).norm(dim=-1)[..., KEPT], layer)
        np.testing.assert_allclose(layer.attention, literal, rtol=1e-3, atol=1e-6, err_msg=name)
        literal = of_layer(added.norm(dim=-1)[..., KEPT], layer)
        np.testing.assert_allclose(by_head[name].attention, literal, rtol=1e-3, atol=1e-6)
        assert not np.allclose(layer.attention, plain[name].attention, rtol=0.1)


def test_value_is_attention_where_each_key_adds_a_vector_of_length_one(small_unet, embeds, monkeypatch):
    def unit(layer, value):
        added = torch.randn(len(value), value.shape[2], value.shape[1], 7)
        return added / added.norm(dim=-1, keepdim=True)

    monkeypatch.setattr("attnviz.capture.measures.head_outputs", unit)
    value, _ = recorded(small_unet, embeds, "value", keep=("head",))
    attention, _ = recorded(small_unet, embeds, "attention", keep=("head",))
    for name in value:
        np.testing.assert_allclose(value[name].attention, attention[name].attention, rtol=1e-5)


def test_a_word_with_no_value_adds_nothing(small_unet, embeds):
    for module in small_unet.modules():
        if isinstance(module, Attention) and module.is_cross_attention:
            module.to_v.weight.data.zero_()
    value, _ = recorded(small_unet, embeds, "value")
    assert all((layer.attention == 0).all() for layer in value.values())


def test_rollout_vs_explicit_matrices(small_unet, embeds):
    unet, seen = small_unet, write_out(small_unet)
    run(unet, embeds)
    unet.set_attn_processor(AttnProcessor2_0())
    rolled, _ = recorded(unet, embeds, "rollout")
    for layer in rolled.values():
        own, _ = seen[layer.path.replace("attn2", "attn1")]
        text, _ = seen[layer.path]
        own = (own.mean(1) + torch.eye(own.shape[-1])) / 2
        literal = of_layer((own @ text.mean(1))[..., KEPT], layer)
        np.testing.assert_allclose(layer.attention, literal, atol=1e-5)


def test_rollout_is_attention_where_self_attention_is_the_identity(small_unet, embeds, monkeypatch):
    monkeypatch.setattr("attnviz.capture.measures.mixed", lambda own, rows, values: values)
    rolled, _ = recorded(small_unet, embeds, "rollout")
    attention, _ = recorded(small_unet, embeds, "attention")
    for name in rolled:
        np.testing.assert_allclose(rolled[name].attention, attention[name].attention, rtol=1e-6)


def test_rollout_keeps_the_sum_over_all_keys(small_unet, embeds, monkeypatch):
    monkeypatch.setattr("attnviz.capture.measures._CHUNK", 64)  # several chunks of queries
    rolled, _ = recorded(small_unet, embeds, "rollout", positions=range(KEYS))
    for layer in rolled.values():
        np.testing.assert_allclose(layer.attention.sum(axis=2), 1.0, atol=1e-5)


def test_what_is_not_defined_is_refused(small_unet, embeds):
    with pytest.raises(CaptureError, match="shapley.*what can: attention, value, rollout"):
        measure_of("shapley")
    with pytest.raises(CaptureError, match="averages over heads"):
        recorded(small_unet, embeds, "rollout", keep=("head",))
    small_unet.set_attn_processor(AttnProcessor())
    with pytest.raises(CaptureError, match="the values are not seen"):
        recorded(small_unet, embeds, "value")


def test_nothing_is_left_behind(small_unet, embeds):
    before = {path: id(processor) for path, processor in small_unet.attn_processors.items()}
    recorded(small_unet, embeds, "rollout")
    assert {path: id(processor) for path, processor in small_unet.attn_processors.items()} == before


def test_a_projection_that_is_more_than_a_linear_layer_is_called(small_unet, embeds):
    plain, _ = recorded(small_unet, embeds, "value")
    for module in small_unet.modules():
        if isinstance(module, Attention) and module.is_cross_attention:
            module.to_out[0].bias.data += 1.0  # which no word adds
            module.to_out[0].register_forward_hook(lambda module, args, output: 2 * output)
    doubled, _ = recorded(small_unet, embeds, "value")
    first = next(iter(plain))
    np.testing.assert_allclose(doubled[first].attention, 2 * plain[first].attention, rtol=1e-4, atol=1e-6)
