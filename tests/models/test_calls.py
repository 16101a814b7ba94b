"""What a call may be made with: every refusal before a model runs, every acceptance with the right numbers."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from diffusers import HeunDiscreteScheduler

import attnviz
from attnviz.errors import AttnVizError, AudioError, CheckpointError, PromptError, TruncationWarning
from attnviz.models.pipelines import AuffusionAudioToAudioPipeline, AuffusionInpaintPipeline, calls
from attnviz.models.pipelines.sources import mask_image

SMALL = {"height": 72, "width": 232, "num_inference_steps": 2, "output_type": "latent"}
CLIP = torch.rand(32_000, generator=torch.Generator().manual_seed(0)) - 0.5
SHORT = {"width": 200, "num_inference_steps": 2, "output_type": "latent"}


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe(adapter_checkpoint):
    return quiet(attnviz.load(adapter_checkpoint))


@pytest.fixture(scope="module")
def plain(plain_checkpoint):
    return quiet(attnviz.load(plain_checkpoint))


@pytest.fixture
def no_model_runs(pipe, monkeypatch):
    for part in (pipe.unet, pipe.vae, pipe.conditioner, pipe.vocoder):
        monkeypatch.setattr(part, "forward", lambda *a, **k: pytest.fail("a model ran"))
    monkeypatch.setattr(pipe.vae, "encode", lambda *a, **k: pytest.fail("a model ran"))


def seeded():
    return torch.Generator().manual_seed(3)


# The mask ----------------------------------------------------------------------


def drawn(span=None, mask=None, width=200):
    """The mask as diffusers samples it."""
    image = mask_image(span, mask, width=width, seconds=width / 100, factor=8)
    return torch.nn.functional.interpolate(image, size=(32, width // 8))[0, 0]


def test_span_draws_the_latent_columns_whose_earliest_frame_it_holds():
    for first in range(24):
        for last in range(first, 24):  # aligned: exactly those columns
            columns = drawn((8 * first / 100, 8 * (last + 1) / 100))
            assert columns[0].nonzero().flatten().tolist() == list(range(first, last + 1))
    assert drawn((0.15, 0.18))[0].nonzero().flatten().tolist() == [2]  # narrow, over the frame at 160 ms
    with pytest.raises(AudioError, match="narrower than a latent column of 80 ms"):
        drawn((0.18, 0.23))


def test_adjacent_spans_share_no_column_and_leave_none_out():
    for cut in range(20, 180):
        assert torch.equal(drawn((0.1, cut / 100)) + drawn((cut / 100, 1.9)), drawn((0.1, 1.9)))


def test_cells_are_those_diffusers_takes():
    rng = np.random.default_rng(0)
    mask = rng.random((256, 200)) < 0.5
    image = mask_image(None, mask, width=200, seconds=2.0, factor=8)
    np.testing.assert_array_equal(image[0, 0], mask[::-1])  # not a pixel is changed on the way
    sampled = torch.nn.functional.interpolate(image, size=(32, 25))  # as prepare_mask_latents does it
    assert torch.equal(sampled[0, 0], image[0, 0, ::8, ::8])


def test_mask_is_judged_where_diffusers_samples_it():
    mask = np.zeros((256, 200), dtype=bool)
    mask[:, 17:24] = True  # most of latent column 2, but not its earliest frame
    with pytest.raises(AudioError, match="covers nothing"):
        drawn(mask=mask)
    mask[:, 16] = True
    assert drawn(mask=mask)[0].nonzero().flatten().tolist() == [2]
    mask[:] = True
    mask[0, 0] = False  # the lowest band of its cell: not looked at
    with pytest.raises(AudioError, match="everything"):
        drawn(mask=mask)


def test_lowest_band_of_the_mask_is_the_bottom_row():
    mask = np.zeros((256, 200))
    mask[:8, :8] = 1
    assert drawn(mask=mask).nonzero().tolist() == [[31, 0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.bool, torch.int64, torch.float64])
def test_mask_of_any_dtype(dtype):
    mask = torch.zeros(256, 200)
    mask[:, 80:] = 1
    assert torch.equal(drawn(mask=mask.to(dtype)), drawn((0.8, 2.0)))


@pytest.mark.parametrize("span", [(1,), "ab", 1.0, (0, None), (0, 1, 2), ("a", "b"), (0, float("nan"))])
def test_span_of_wrong_form(span):
    with pytest.raises(AudioError, match="span"):
        drawn(span)


@pytest.mark.parametrize("mask", [[[1], [1, 0]], np.full((256, 200), "a"), 3])
def test_mask_of_wrong_form(mask):
    with pytest.raises(AudioError, match="mask"):
        drawn(mask=mask)


# Clips ----------------------------------------------------------------------


def test_clips_of_different_length_need_a_duration(pipe, no_model_runs):
    style = AuffusionAudioToAudioPipeline.from_pipe(pipe)
    with pytest.raises(AudioError, match=r"2, 1 s long.*duration="):
        style(["a", "b"], [CLIP, CLIP[:16_000]], **SHORT)


def test_clips_alike_once_cut_need_none(pipe):
    style = quiet(AuffusionAudioToAudioPipeline.from_pipe(pipe))
    output = style(["a", "b"], [CLIP, torch.cat([CLIP, CLIP])], **SHORT)
    assert len(output.latents) == 2
    assert style.duration == 2.0


# Further arguments ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"genrator": None}, "genrator.*Did you mean generator="),
        ({"generator": 3}, r"generator=3 is not.*manual_seed\(3\)"),
        ({"num_inference_step": 3}, "num_inference_steps="),
        ({"negativ_prompt": "rain"}, "negative_prompt="),
        ({"strength": 0.5}, "no argument strength="),
        ({"image": 1}, "audio="),
        ({"prompt_embeds": torch.zeros(1)}, "prompt itself"),
        ({"latents": torch.zeros(1, 4, 9, 30)}, r"\(1, 4, 9, 30\).*\(1, 4, 9, 29\)"),
        ({"latents": 3}, "latents is int"),
        ({"latents": torch.zeros(1, 4, 9, 29), "num_images_per_prompt": 2}, r"\(2, 4, 9, 29\)"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_inference_steps": 2.5}, "whole number"),
        ({"num_inference_steps": True}, "whole number"),
        ({"num_inference_steps": 1001}, "1000"),
        ({"timesteps": [10, 5]}, "PNDMScheduler does not support custom timesteps"),
        ({"timesteps": [10, 5], "sigmas": [1.0]}, "Both timesteps and sigmas"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ({"num_images_per_prompt": None}, "num_images_per_prompt is None"),
        ({"guidance_scale": "7"}, "guidance_scale='7'"),
        ({"guidance_interval": (0, 880)}, "guidance_interval=.*in timesteps"),
        ({"guidance_scale": float("nan")}, "guidance_scale=nan"),
        ({"duration": "3"}, "duration='3'"),
        ({"width": float("nan")}, "width=nan"),
        ({"width": "232"}, "width='232'"),
        ({"width": None}, "width=None"),
        ({"negative_prompt": ("a", "b")}, "2 negative prompts for 1"),
        ({"negative_prompt": 3}, "negative_prompt=3"),
    ],
)
def test_arguments_that_cannot_be(pipe, no_model_runs, arguments, message):
    with pytest.raises(AttnVizError, match=message):
        pipe("a dog", **{**SMALL, **arguments})


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (AuffusionAudioToAudioPipeline, {"latents": torch.zeros(1)}, "no argument latents="),
        (AuffusionAudioToAudioPipeline, {"guidance_rescale": 0.5}, "guidance_scale="),
        (AuffusionAudioToAudioPipeline, {"strength": "0.5"}, "strength='0.5'"),
        (AuffusionAudioToAudioPipeline, {"guidance_interval": (1, 0)}, "lower first"),
        (AuffusionAudioToAudioPipeline, {"strength": 0}, "no step"),
        (AuffusionInpaintPipeline, {"span": (0, 1), "height": 256}, "mel bands"),
        (AuffusionInpaintPipeline, {"span": (0, 1), "mask_image": 1}, "span= or mask="),
        (AuffusionInpaintPipeline, {"span": (0, 1), "padding_mask_crop": 1}, "crop"),
        (AuffusionInpaintPipeline, {"span": (0, 1), "latents": torch.zeros(1, 4, 9, 29)}, r"\(1, 4, 32, 25\)"),
    ],
)
def test_arguments_that_cannot_be_with_a_clip(pipe, no_model_runs, kind, arguments, message):
    with pytest.raises(AttnVizError, match=message):
        kind.from_pipe(pipe)("a dog", CLIP, **{**SHORT, **arguments})


def test_strength_counts_the_steps_of_ones_own_timesteps(adapter_checkpoint):
    pipe = attnviz.load(adapter_checkpoint)
    scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    before = scheduler.timesteps.clone()
    style = quiet(AuffusionAudioToAudioPipeline.from_pipe(pipe, scheduler=scheduler))
    # 3 timesteps are 5 calls of Heun's: at strength 0.5 diffusers would skip 6 of 5 and return empty latents.
    with pytest.raises(AttnVizError, match="no step"):
        style("a dog", CLIP, timesteps=[900, 500, 100], strength=0.5, **SHORT)
    assert torch.equal(scheduler.timesteps, before)
    assert calls.check_steps(scheduler, 2, {"timesteps": [900, 500, 100]}, 1.0) == 2
    with pytest.raises(AttnVizError, match="leaves no step|cannot be set"):
        calls.check_steps(scheduler, 2, {"timesteps": []})


def test_numpy_numbers_and_tuples_are_taken(pipe):
    expected = pipe(["a dog", "rain"], negative_prompt=["wind", "a bell"], generator=seeded(), **SMALL).latents
    arguments = {
        "height": np.int64(72),
        "width": np.int32(232),
        "num_inference_steps": np.int64(2),
        "num_images_per_prompt": np.int64(1),
        "guidance_scale": np.float32(7.5),
        "output_type": "latent",
    }
    got = pipe(("a dog", "rain"), negative_prompt=("wind", "a bell"), generator=seeded(), **arguments).latents
    assert torch.equal(got, expected)


# Negative prompts ----------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["pipe", "plain"])
def test_encode_prompt_checks_what_it_is_given(layout, request):
    pipe = request.getfixturevalue(layout)
    with pytest.raises(PromptError, match="2 negative prompts for 1"):
        pipe.encode_prompt("a dog", negative_prompt=["a", "b"])
    with pytest.raises(PromptError, match="1 negative prompts for 2"):
        pipe.encode_prompt(["a dog", "rain"], negative_prompt=("a",))
    with pytest.raises(PromptError, match="empty"):
        pipe.encode_prompt("", negative_prompt="")


@pytest.mark.parametrize("layout", ["pipe", "plain"])
def test_one_negative_prompt_for_all_is_one_for_each(layout, request):
    pipe = request.getfixturevalue(layout)
    with torch.no_grad():
        _, one = pipe.encode_prompt(["a dog", "rain"], negative_prompt="wind")
        _, each = pipe.encode_prompt(("a dog", "rain"), negative_prompt=("wind", "wind"))
    assert torch.equal(one, each)


@pytest.mark.parametrize("checkpoint", ["adapter_checkpoint", "two_encoder_checkpoint"])
def test_empty_negative_prompt_is_start_and_end_tokens(checkpoint, request):
    pipe = quiet(attnviz.load(request.getfixturevalue(checkpoint)))
    conditioner, expected = pipe.conditioner, []
    with torch.no_grad():
        _, negative = pipe.encode_prompt("a dog", negative_prompt="")
        for encoder, tokenizer, adapter in zip(
            conditioner.encoders, conditioner.tokenizers, conditioner.adapters, strict=True
        ):
            hidden = encoder(torch.tensor([tokenizer("").input_ids])).last_hidden_state
            expected.append(adapter(torch.nn.functional.pad(hidden, (0, 0, 0, 77 - hidden.shape[1]))))
    torch.testing.assert_close(negative, torch.cat(expected, dim=1))
    with pytest.raises(PromptError, match="empty"):
        conditioner([""])
    assert pipe("a dog", negative_prompt="", **SMALL).latents.isfinite().all()


def test_cut_negative_prompt_of_the_plain_layout_is_warned_of(plain):
    long = "a dog barks and " * 60 + "rain"
    with pytest.warns(TruncationWarning, match="rain"), torch.no_grad():
        plain.encode_prompt("a dog", negative_prompt=long)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error", TruncationWarning)
        plain.encode_prompt("a dog", negative_prompt=long, do_classifier_free_guidance=False)
        plain.encode_prompt("a dog", negative_prompt="")


# Loading and sharing ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 3}, "model is a int"),
        ({"model": "~nobodyx/m"}, "unknown user"),
        ({"torch_dtype": "bfloat16"}, "torch.bfloat16"),
        ({"torch_dtype": torch.int8}, "floating-point"),
        ({"model": "nobody/nothing", "local_files_only": True, "cache_dir": 3}, "cache_dir is a int"),
    ],
)
def test_load_with_what_cannot_be(adapter_checkpoint, arguments, message):
    with pytest.raises(CheckpointError, match=message):
        attnviz.load(**{"model": adapter_checkpoint, **arguments})


def test_from_pipe_names_the_parts(pipe):
    with pytest.raises(CheckpointError, match=r"vocodr.*Did you mean vocoder=.*scheduler"):
        AuffusionInpaintPipeline.from_pipe(pipe, vocodr=None)
    with pytest.raises(CheckpointError, match="int"):
        AuffusionInpaintPipeline.from_pipe(3)
