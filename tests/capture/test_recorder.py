"""Recording a U-Net: numbers against a literal oracle, coverage, rows, steps, refusals."""

from __future__ import annotations

import gc
import weakref
from types import MethodType

import numpy as np
import pytest
import torch
from capture.literal import literal_attention
from diffusers.models.attention_processor import XFormersAttnProcessor

from attnviz.capture import AttentionRecorder, Conditioning, is_traced
from attnviz.errors import CaptureError, MemoryBudgetError

KEYS = 11
SIZES = [(8, 32), (9, 29)]  # even and odd; never square


def latents(rows: int, columns: int, batch: int = 1, seed: int = 2) -> torch.Tensor:
    return torch.randn(batch, 4, rows, columns, generator=torch.Generator().manual_seed(seed))


def guided(embeds: torch.Tensor, prompts: int = 1) -> tuple[torch.Tensor, Conditioning]:
    """Encoder states of a guided call, and what describes them."""
    negative = torch.zeros_like(embeds)
    return torch.cat([negative, embeds]), Conditioning(embeds, negative, prompts, range(KEYS))


def record(unet, sample, states, conditioning, *, timesteps=(801, 401), **settings):
    with AttentionRecorder(unet, **settings) as recorder, torch.no_grad():
        recording = recorder.begin(conditioning, lambda: len(timesteps))
        for timestep in timesteps:
            unet(sample, timestep, encoder_hidden_states=states)
    return recorder, recording


def oracle(unet, sample, states, timesteps):
    with literal_attention(unet) as seen, torch.no_grad():
        for timestep in timesteps:
            unet(sample, timestep, encoder_hidden_states=states)
    return {path: torch.stack(calls).numpy() for path, calls in seen.items()}  # (step, row, head, n, key)


@pytest.mark.parametrize("size", SIZES)
def test_all_axes_vs_literal_attention(unet, embeds, size):
    states, conditioning = guided(embeds[:2], prompts=2)
    sample = latents(*size, batch=4)
    recorder, recording = record(unet, sample, states, conditioning, keep=("step", "head"), branch="both")
    expected = oracle(unet, sample, states, (801, 401))
    captured = recorder.captured(recording)
    assert len(captured) == 16
    for name, layer in captured.items():
        assert layer.dims == ("branch", "prompt", "image", "step", "head", "token", "row", "column")
        rows, columns = layer.attention.shape[-2:]
        literal = expected[layer.path].reshape(2, 2, 2, 4, rows, columns, KEYS)  # step, branch, prompt, head, ...
        literal = literal.transpose(1, 2, 0, 3, 6, 4, 5)[:, :, None]
        # The oracle's own rounding runs through the layers before, so the last ones differ by a little more.
        np.testing.assert_allclose(layer.attention, literal, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("size", SIZES)
def test_summed_axes_are_means_of_kept_ones(unet, embeds, size):
    states, conditioning = guided(embeds[:1])
    sample = latents(*size, batch=2)
    full, everything = record(unet, sample, states, conditioning, keep=("step", "head"))
    mean, summed = record(unet, sample, states, conditioning)
    full_layers, mean_layers = full.captured(everything), mean.captured(summed)
    for name, layer in mean_layers.items():
        assert layer.dims == ("prompt", "image", "token", "row", "column")
        np.testing.assert_allclose(layer.attention, full_layers[name].attention.mean(axis=(2, 3)), atol=1e-6)
        np.testing.assert_allclose(layer.attention.sum(axis=2), 1.0, atol=1e-5)  # over all keys


def test_grids_are_those_of_the_blocks(unet, embeds):
    states, conditioning = guided(embeds[:1])
    _, recording = record(unet, latents(9, 29, batch=2), states, conditioning)
    assert recording.latent_size == (9, 29)
    assert recording.grids["down_blocks.0.attentions.0"] == (9, 29)
    assert recording.grids["down_blocks.1.attentions.1"] == (5, 15)
    assert recording.grids["mid_block.attentions.0"] == (2, 4)
    assert recording.grids["up_blocks.3.attentions.2"] == (9, 29)


def test_layers_of_the_real_architecture_are_sixteen(unet):
    with AttentionRecorder(unet) as recorder:
        names = [layer.name for layer in recorder.layers]
    assert len(names) == len(set(names)) == 16
    assert names[6] == "mid_block.attentions.0"  # in the order the signal passes them
    assert sum(name.startswith("down_blocks") for name in names) == 6
    assert sum(name.startswith("up_blocks") for name in names) == 9


def test_kept_positions_are_columns_of_all(unet, embeds):
    states, conditioning = guided(embeds[:1])
    sample = latents(8, 32, batch=2)
    everything, all_keys = record(unet, sample, states, conditioning)
    for positions in ([2, 3, 4], [0, 5, 9]):
        some = Conditioning(embeds[:1], torch.zeros_like(embeds[:1]), 1, positions)
        recorder, recording = record(unet, sample, states, some)
        for name, layer in recorder.captured(recording).items():
            expected = everything.captured(all_keys)[name].attention[:, :, positions]
            np.testing.assert_array_equal(layer.attention, expected)


def test_without_guidance_no_row_is_dropped(unet, embeds):
    conditioning = Conditioning(embeds, None, 3, range(KEYS))
    sample = latents(8, 32, batch=3)
    recorder, recording = record(unet, sample, embeds, conditioning, timesteps=(500,))
    expected = oracle(unet, sample, embeds, (500,))
    for layer in recorder.captured(recording).values():
        literal = expected[layer.path][0].mean(axis=1)  # row, n, key
        literal = literal.transpose(0, 2, 1).reshape(3, 1, KEYS, *layer.attention.shape[-2:])
        np.testing.assert_allclose(layer.attention, literal, atol=1e-6)


def test_images_of_one_prompt_stand_together(unet, embeds):
    repeated = embeds[:2].repeat_interleave(2, dim=0)
    conditioning = Conditioning(repeated, None, 2, range(KEYS))
    sample = torch.cat([latents(8, 32, seed=i) for i in range(4)])
    recorder, recording = record(unet, sample, repeated, conditioning, timesteps=(500,))
    single, one = record(
        unet, sample[2:3], embeds[1:2], Conditioning(embeds[1:2], None, 1, range(KEYS)), timesteps=(500,)
    )
    for name, layer in recorder.captured(recording).items():
        assert layer.attention.shape[:2] == (2, 2)
        alone = single.captured(one)[name].attention[0, 0]
        np.testing.assert_allclose(layer.attention[1, 0], alone, atol=2e-5)


def test_attention_mask_counts(unet, embeds):
    conditioning = Conditioning(embeds[:1], None, 1, range(KEYS))
    mask = torch.ones(1, KEYS, dtype=torch.bool)
    mask[:, -3:] = False
    with AttentionRecorder(unet) as recorder, torch.no_grad():
        recording = recorder.begin(conditioning, lambda: 1)
        unet(latents(8, 32), 500, encoder_hidden_states=embeds[:1], encoder_attention_mask=mask)
    for layer in recorder.captured(recording).values():
        assert layer.attention[:, :, -3:].max() < 1e-6
        np.testing.assert_allclose(layer.attention.sum(axis=2), 1.0, atol=1e-5)


# Leaving no trace ----------------------------------------------------------------------


def _hooks(unet) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in unet.modules())


class _BoomError(Exception):
    pass


@pytest.mark.parametrize("error", [None, _BoomError, KeyboardInterrupt])
def test_hooks_come_out_on_every_exit(unet, embeds, error):
    _, conditioning = guided(embeds[:1])
    processors = dict(unet.attn_processors)
    try:
        with AttentionRecorder(unet) as recorder:
            assert is_traced(unet)
            recorder.begin(conditioning, lambda: 1)
            if error is not None:
                raise error
    except (_BoomError, KeyboardInterrupt):
        pass
    assert _hooks(unet) == 0
    assert not is_traced(unet)
    assert unet.attn_processors == processors


def test_model_error_restores_and_keeps_whole_steps_only(unet, embeds):
    states, conditioning = guided(embeds[:1])
    sample = latents(8, 32, batch=2)
    whole, reference = record(unet, sample, states, conditioning, timesteps=(801,))
    recorder = AttentionRecorder(unet)
    calls = []

    def fail_half_way(module, args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    handle = unet.mid_block.register_forward_pre_hook(fail_half_way)
    with pytest.raises(KeyboardInterrupt), recorder, torch.no_grad():
        recording = recorder.begin(conditioning, lambda: 2)
        unet(sample, 801, encoder_hidden_states=states)
        unet(sample, 401, encoder_hidden_states=states)
    handle.remove()
    assert _hooks(unet) == 0
    assert recording.timesteps == [801.0]
    assert not recording.complete
    for name, layer in recorder.captured(recording).items():
        np.testing.assert_array_equal(layer.attention, whole.captured(reference)[name].attention)


def test_nothing_is_retained(unet, embeds):
    states, conditioning = guided(embeds[:1])
    recorder, recording = record(unet, latents(8, 32, batch=2), states, conditioning)
    gone = weakref.ref(recorder)
    del recorder, recording
    gc.collect()
    assert gone() is None


def test_a_processor_of_ours_in_every_slot_or_in_none(unet):
    last = unet.up_blocks[3].attentions[2].transformer_blocks[0].attn2
    last.processor = XFormersAttnProcessor()
    before = dict(unet.attn_processors)
    with pytest.raises(CaptureError, match=r"up_blocks\.3\.attentions\.2.*XFormers"), AttentionRecorder(unet):
        pass
    assert unet.attn_processors == before


def test_failing_half_way_through_entering_takes_all_out_again(unet, monkeypatch):
    before = dict(unet.attn_processors)
    last = unet.up_blocks[3].attentions[2]

    def fail(self, hook, **settings):
        raise ZeroDivisionError

    monkeypatch.setattr(last, "register_forward_pre_hook", MethodType(fail, last))
    with pytest.raises(ZeroDivisionError), AttentionRecorder(unet):
        pass
    assert _hooks(unet) == 0
    assert unet.attn_processors == before
    assert not any("get_attention_scores" in vars(module) for module in unet.modules())


# Refusals ----------------------------------------------------------------------


def test_refuses_a_second_recorder(unet):
    with AttentionRecorder(unet), pytest.raises(CaptureError, match="traced already"), AttentionRecorder(unet):
        pass
    assert _hooks(unet) == 0


def test_refuses_compiled(unet):
    with pytest.raises(CaptureError, match=r"torch\.compile"), AttentionRecorder(torch.compile(unet)):
        pass
    down = unet.down_blocks[1]
    down.forward = torch.compile(down.forward, backend="eager")
    with pytest.raises(CaptureError, match=r"down_blocks\.1 is compiled"), AttentionRecorder(unet):
        pass
    del down.forward
    unet.mid_block.compile()
    with pytest.raises(CaptureError, match=r"mid_block is compiled"), AttentionRecorder(unet):
        pass


def test_refuses_token_merging(unet):
    block = unet.down_blocks[0].attentions[0].transformer_blocks[0]
    block.__class__ = type("ToMeBlock", (type(block),), {})
    with pytest.raises(CaptureError, match="token merging"), AttentionRecorder(unet):
        pass


def test_refuses_a_unet_without_cross_attention():
    with pytest.raises(CaptureError, match="no cross-attention"), AttentionRecorder(torch.nn.Linear(2, 3)):
        pass


def test_refuses_a_processor_swapped_during_the_trace(unet, embeds):
    states, conditioning = guided(embeds[:1])
    with (
        pytest.raises(CaptureError, match="processor of .* was replaced after trace"),
        AttentionRecorder(unet) as recorder,
    ):
        recorder.begin(conditioning, lambda: 1)
        with literal_attention(unet):
            unet(latents(8, 32, batch=2), 500, encoder_hidden_states=states)


def test_refuses_a_projection_replaced_during_the_trace(unet, embeds):
    states, conditioning = guided(embeds[:1])
    attention = unet.mid_block.attentions[0].transformer_blocks[0].attn2
    with pytest.raises(CaptureError, match="replaced after trace"), AttentionRecorder(unet) as recorder:
        recorder.begin(conditioning, lambda: 1)
        attention.to_q = torch.nn.Sequential(attention.to_q)
        unet(latents(8, 32, batch=2), 500, encoder_hidden_states=states)


def test_embeddings_changed_in_place_are_seen(unet, embeds):
    """Without guidance the pipeline's own tensor is the denoiser's: a callback that changes it changes both."""
    conditioning = Conditioning(embeds[:1], None, 1, range(KEYS))
    with AttentionRecorder(unet) as recorder, torch.no_grad():
        recording = recorder.begin(conditioning, lambda: 2)
        unet(latents(8, 32), 801, encoder_hidden_states=embeds[:1])
        embeds.zero_()
        with pytest.raises(CaptureError, match="changed by a callback"):
            unet(latents(8, 32), 401, encoder_hidden_states=embeds[:1])
    assert recording.timesteps == [801.0]


def test_guidance_in_an_interval(unet, embeds):
    """Outside the interval a call has the conditional rows alone; both kinds count alike."""
    states, conditioning = guided(embeds[:1])
    sample = latents(8, 32)
    with AttentionRecorder(unet, keep=("step",)) as recorder, torch.no_grad():
        recording = recorder.begin(conditioning, lambda: 3)
        unet(sample, 801, encoder_hidden_states=embeds[:1])
        unet(torch.cat([sample, sample]), 401, encoder_hidden_states=states)
        unet(sample, 401, encoder_hidden_states=embeds[:1])
    for layer in recorder.captured(recording).values():
        np.testing.assert_allclose(layer.attention[:, :, 1], layer.attention[:, :, 2], atol=1e-5)


def test_refuses_rows_it_does_not_know(unet, embeds):
    _, conditioning = guided(embeds[:1])
    with pytest.raises(CaptureError, match="which rows are conditional is not known"):
        record(unet, latents(8, 32, batch=2), embeds[1:], conditioning)
    swapped = torch.cat([embeds[:1], torch.zeros_like(embeds[:1])])
    with pytest.raises(CaptureError, match="which rows are conditional is not known"):
        record(unet, latents(8, 32, batch=2), swapped, conditioning)


def test_refuses_both_branches_without_guidance(unet, embeds):
    conditioning = Conditioning(embeds[:1], None, 1, range(KEYS))
    with pytest.raises(CaptureError, match="needs an unconditional branch"):
        record(unet, latents(8, 32), embeds[:1], conditioning, branch="both")


def test_refuses_a_call_outside_the_pipeline(unet, embeds):
    with pytest.raises(CaptureError, match="outside a call"), AttentionRecorder(unet):
        unet(latents(8, 32), 500, encoder_hidden_states=embeds[:1])


def test_nan_names_layer_and_step(unet, embeds):
    states, conditioning = guided(embeds[:1])
    with torch.no_grad():
        unet.up_blocks[1].attentions[1].transformer_blocks[0].attn2.to_q.weight[0, 0] = float("nan")
    with pytest.raises(CaptureError, match=r"denoiser call 0 .*first in up_blocks\.1\.attentions\.1"):
        record(unet, latents(8, 32, batch=2), states, conditioning)


def test_budget_is_settled_in_the_first_call(unet, embeds):
    states, conditioning = guided(embeds[:1])
    sample = latents(8, 32, batch=2)
    recorder, recording = record(unet, sample, states, conditioning)
    size = recording.store.promised_bytes
    assert size == sum(layer.attention.nbytes for layer in recorder.captured(recording).values())
    record(unet, sample, states, conditioning, max_bytes=size)
    with pytest.raises(MemoryBudgetError, match="budget"):
        record(unet, sample, states, conditioning, max_bytes=size - 1)
    with pytest.raises(MemoryBudgetError, match="2 denoiser calls"):
        record(unet, sample, states, conditioning, max_bytes=size, keep=("step",))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": ("time",)}, "keep"),
        ({"branch": "uncond"}, "branch"),
        ({"max_bytes": 0}, "max_bytes"),
    ],
)
def test_unknown_settings(unet, settings, message):
    with pytest.raises(CaptureError, match=message):
        AttentionRecorder(unet, **settings)
