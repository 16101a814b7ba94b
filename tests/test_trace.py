"""Tracing whole pipeline calls: nothing changes, everything is seen, nothing is left behind."""

from __future__ import annotations

import copy
import gc
import weakref

import accelerate
import diffusers
import numpy as np
import pytest
import torch
from diffusers.callbacks import SDCFGCutoffCallback
from peft import LoraConfig

import attnviz
from attnviz.audio import SpectrogramGrid, image_to_mel
from attnviz.errors import CaptureError, MapsError, MemoryBudgetError, PromptError, TruncationWarning
from attnviz.models.pipelines import AuffusionAudioToAudioPipeline, AuffusionInpaintPipeline

PROMPT = "a dog barks, then rain falls"
SMALL = {"height": 72, "width": 232, "num_inference_steps": 3, "output_type": "latent"}


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(loaded_once):
    return quiet(copy.deepcopy(loaded_once))


@pytest.fixture
def two(two_encoder_checkpoint):
    return quiet(attnviz.load(two_encoder_checkpoint))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def fingerprints(pipe):
    """Everything on a pipeline that a trace might leave changed."""
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in pipe.unet.modules())
    own = {name for name in ("encode_prompt", "prepare_latents") if name in vars(pipe)} | (
        {"decode"} & set(vars(pipe.vae))
    )
    return hooks, own, {name: id(processor) for name, processor in pipe.unet.attn_processors.items()}


# Observing changes nothing ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scheduler",
    [
        "PNDMScheduler",
        "DDIMScheduler",
        "EulerAncestralDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "HeunDiscreteScheduler",
        "UniPCMultistepScheduler",
        "LMSDiscreteScheduler",
        "KDPM2DiscreteScheduler",
    ],
)
def test_latents_are_bit_identical_with_any_scheduler(pipe, scheduler):
    config = pipe.scheduler.config
    keep = {"skip_prk_steps"} if scheduler == "PNDMScheduler" else set()
    config = {key: value for key, value in config.items() if key not in {"skip_prk_steps"} - keep}
    pipe.scheduler = getattr(diffusers, scheduler).from_config(config)
    plain = pipe(PROMPT, generator=seeded(), **SMALL).latents
    with attnviz.trace(pipe) as trace:
        traced = pipe(PROMPT, generator=seeded(), **SMALL).latents
    assert torch.equal(plain, traced)
    assert trace.maps.complete
    assert len(trace.maps.timesteps) == len(pipe.scheduler.timesteps)
    np.testing.assert_allclose(trace.maps.timesteps, pipe.scheduler.timesteps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "call",
    [
        {"guidance_scale": 1.0},
        {"negative_prompt": "wind"},
        {"prompt": ["a dog barks", "rain falls softly"], "num_images_per_prompt": 2},
        {"guidance_scale": 3.0, "guidance_rescale": 0.7},
    ],
    ids=["unguided", "negative", "batch", "rescaled"],
)
def test_latents_are_bit_identical_in_any_call(two_encoder_checkpoint, dtype, call):
    pipe = quiet(attnviz.load(two_encoder_checkpoint, torch_dtype=dtype))
    call = {"prompt": PROMPT, **SMALL, **call}
    plain = pipe(**call, generator=seeded()).latents
    with attnviz.trace(pipe, keep=("step", "head")) as trace:
        traced = pipe(**call, generator=seeded()).latents
    assert torch.equal(plain, traced)
    maps = trace.maps
    assert len(maps.layers) == 16
    prompts = [call["prompt"]] if isinstance(call["prompt"], str) else call["prompt"]
    for layer in maps.layers:
        assert maps[layer].dims == ("prompt", "image", "step", "head", "token", "freq", "time")
        assert maps[layer].shape[:4] == (len(prompts), call.get("num_images_per_prompt", 1), 4, 4)


def test_audio_is_bit_identical_too(pipe):
    call = {"width": 200, "num_inference_steps": 1, "guidance_scale": 1.0}
    plain = pipe(PROMPT, generator=seeded(), **call)
    with attnviz.trace(pipe) as trace:
        traced = pipe(PROMPT, generator=seeded(), **call)
    np.testing.assert_array_equal(plain.audios[0], traced.audios[0])
    np.testing.assert_array_equal(trace.maps.spectrogram.values[0, 0], traced.spectrograms[0])


@pytest.mark.parametrize("kind", [AuffusionAudioToAudioPipeline, AuffusionInpaintPipeline])
def test_other_pipelines(pipe, kind):
    other = quiet(kind.from_pipe(pipe))
    audio = torch.rand(24_000, generator=seeded(5)) - 0.5
    call = {"audio": audio, "width": 200, "strength": 0.7, "num_inference_steps": 4, "output_type": "latent"}
    if kind is AuffusionInpaintPipeline:
        call["span"] = (0.5, 1.0)
    plain = other(PROMPT, generator=seeded(), **call).latents
    with attnviz.trace(other) as trace:
        traced = other(PROMPT, generator=seeded(), **call).latents
    assert torch.equal(plain, traced)
    assert trace.maps.complete
    assert trace.maps.grid.audio_seconds == pytest.approx(1.5)
    assert trace.maps.provenance["seeds"] == [0]
    assert bool(trace.maps.heatmap("rain").padding[-1])


def test_plain_stable_diffusion_pipeline(plain_checkpoint):
    from diffusers import StableDiffusionPipeline

    pipe = quiet(StableDiffusionPipeline.from_pretrained(plain_checkpoint, safety_checker=None))
    call = {**SMALL, "output_type": "np"}
    plain = pipe(PROMPT, generator=seeded(), **call).images
    with attnviz.trace(pipe, branch="both", grid=SpectrogramGrid(72, 232)) as trace:
        traced = pipe(PROMPT, generator=seeded(), negative_prompt="wind", **call).images
        assert plain.shape == traced.shape
    maps = trace.maps
    assert maps["down_blocks.0.attentions.0"].dims[0] == "branch"
    assert maps.heatmap("barks").shape == (9, 29)
    assert maps.spectrogram is None  # 72 rows are no mel spectrogram
    assert maps.grid.audio_seconds is None


# What is seen -----------------------------------------------------------------------------------------


def test_batch_and_single_prompts_agree(pipe):
    latents = torch.randn(2, 4, 9, 29, generator=seeded(3))
    prompts = ["a dog barks", "rain falls softly on a tin roof"]
    with attnviz.trace(pipe) as trace:
        pipe(prompts, latents=latents, **SMALL)
        pipe(prompts[1], latents=latents[1:], **SMALL)
    both, one = trace.runs
    for word in ("rain", "roof"):
        together, alone = both.heatmap(word, prompt_index=1), one.heatmap(word)
        np.testing.assert_allclose(together, alone, atol=1e-4)
    with pytest.raises(PromptError, match="dog"):
        both.heatmap("dog", prompt_index=1)
    with pytest.raises(MapsError, match="runs"):
        trace.maps  # noqa: B018


def test_both_encoders_have_their_own_keys(two):
    with attnviz.trace(two, tokens="all") as trace:
        two(PROMPT, generator=seeded(), **SMALL)
    maps = trace.maps
    layer = maps["mid_block.attentions.0"]
    assert layer.sizes["token"] == 154
    np.testing.assert_allclose(layer.sum("token"), 1.0, atol=1e-5)
    clip, t5 = (maps.select(encoder=index).heatmap("barks") for index in (0, 1))
    assert not np.allclose(clip, t5)
    tokens = [
        len(table.rows.query(f"encoder == {index} and word == 'barks'"))
        for table in maps.tokens
        for index in (0, 1)
    ]
    pooled = (clip * tokens[0] + t5 * tokens[1]) / sum(tokens)
    np.testing.assert_allclose(maps.heatmap("barks"), pooled, atol=1e-6)


def test_text_leaves_padding_out_and_nothing_else(two):
    with attnviz.trace(two) as text:
        two(PROMPT, generator=seeded(), **SMALL)
    with attnviz.trace(two, tokens="all") as everything:
        two(PROMPT, generator=seeded(), **SMALL)
    table = text.maps.tokens[0].rows
    layer, whole = (trace.maps["mid_block.attentions.0"] for trace in (text, everything))
    assert layer["token"].to_numpy().tolist() == table.query("kind != 'padding'")["position"].tolist()
    kinds = layer["token_kind"][0].to_numpy().tolist()
    assert (kinds.count("start"), kinds.count("end")) == (1, 2)  # T5 has no start token
    np.testing.assert_array_equal(layer, whole.sel(token=layer["token"]))


def test_spectrograms_are_by_prompt_and_then_by_sample(pipe):
    call = {"width": 200, "num_inference_steps": 1, "guidance_scale": 1.0, "num_images_per_prompt": 2}
    with attnviz.trace(pipe) as trace:
        output = pipe([PROMPT, "rain"], generator=seeded(), **call)
    assert len({array.tobytes() for array in output.spectrograms}) == 4
    for prompt in range(2):
        for sample in range(2):
            expected = output.spectrograms[2 * prompt + sample]
            np.testing.assert_array_equal(trace.maps.spectrogram.values[prompt, sample], expected)


def test_over_long_prompt(pipe):
    prompt = "a dog barks and " * 60 + "thunder rolls"
    with attnviz.trace(pipe) as trace, pytest.warns(TruncationWarning, match="thunder"):
        pipe(prompt, generator=seeded(), **SMALL)
    assert trace.maps.heatmap("dog", occurrence=2).shape == (9, 29)
    with pytest.raises(PromptError, match="cut"):
        trace.maps.heatmap("thunder")


@pytest.mark.parametrize("attnviz_pipeline", [True, False])
def test_over_long_prompt_of_the_plain_layout_is_warned_of_once(plain_checkpoint, attnviz_pipeline):
    if attnviz_pipeline:
        pipe = attnviz.load(plain_checkpoint)
    else:
        pipe = diffusers.StableDiffusionPipeline.from_pretrained(plain_checkpoint, safety_checker=None)
    traced = attnviz.trace(quiet(pipe), grid=SpectrogramGrid(72, 232))
    with traced as trace, pytest.warns(TruncationWarning) as caught:
        pipe("a dog barks and " * 60 + "thunder rolls", generator=seeded(), **SMALL)
    assert len(caught) == 1
    assert "thunder" in str(caught[0].message)
    assert len(trace.maps.tokens[0].find("dog", occurrence=1)) > 0


def test_guidance_cut_off_half_way(pipe):
    """A callback of diffusers drops the unconditional rows during the loop; what is conditional stays known."""
    callback = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1)
    with attnviz.trace(pipe, keep=("step",)) as trace:
        pipe(PROMPT, generator=seeded(), callback_on_step_end=callback, **SMALL)
    assert trace.maps.complete


def test_lora_is_seen_and_loading_it_later_is_refused(pipe):
    with attnviz.trace(pipe) as trace:
        pipe(PROMPT, generator=seeded(), **SMALL)
    without = trace.maps.heatmap("dog")
    config = LoraConfig(r=2, target_modules=["attn2.to_q", "attn2.to_k"], init_lora_weights="gaussian")

    def load(module):
        module.add_adapter(config)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if "lora_B" in name:
                    parameter.fill_(0.5)

    with pytest.raises(CaptureError, match="replaced after trace"), attnviz.trace(pipe):
        load(pipe.unet)
        pipe(PROMPT, generator=seeded(), **SMALL)
    plain = pipe(PROMPT, generator=seeded(), **SMALL).latents
    with attnviz.trace(pipe) as trace:
        traced = pipe(PROMPT, generator=seeded(), **SMALL).latents
    assert torch.equal(plain, traced)
    assert trace.maps.provenance["adapters"] == {"default": [4.0]}
    assert not np.allclose(trace.maps.heatmap("dog"), without)


def test_offloaded_unet(pipe):
    plain = pipe(PROMPT, generator=seeded(), **SMALL).latents
    accelerate.cpu_offload(pipe.unet, execution_device=torch.device("cpu"))
    with attnviz.trace(pipe) as trace:
        traced = pipe(PROMPT, generator=seeded(), **SMALL).latents
    torch.testing.assert_close(plain, traced)
    assert trace.maps.complete
    assert len(trace.maps.layers) == 16


def test_provenance_says_how_it_was_made(pipe, adapter_checkpoint):
    with attnviz.trace(pipe, keep=("head",)) as trace:
        pipe(PROMPT, generator=seeded(42), guidance_scale=3.0, negative_prompt="wind", **SMALL)
    said = trace.maps.provenance
    assert said["model"] == str(adapter_checkpoint)
    assert said["scheduler"] == "PNDMScheduler"
    assert (said["steps"], said["guidance_scale"], said["negative_prompt"]) == (4, 3.0, "wind")
    assert (said["seeds"], said["keep"], said["dtype"]) == ([42], ["head"], "float32")
    assert said["versions"]["torch"] == torch.__version__


def test_the_spectrogram_is_the_calls_own(pipe):
    """Neither a preview that a callback draws nor a decode after the call is taken for it."""

    def preview(pipe, step, timestep, tensors):
        pipe.vae.decode(tensors["latents"])
        return tensors

    call = {"width": 200, "num_inference_steps": 2, "guidance_scale": 1.0}
    with attnviz.trace(pipe) as trace:
        pipe(PROMPT, generator=seeded(), output_type="latent", callback_on_step_end=preview, **call)
        output = pipe([PROMPT, "rain"], generator=seeded(), callback_on_step_end=preview, **call)
        pipe.decode_audio(torch.randn(1, 4, 32, 25, generator=seeded()), 1.0)
        as_tuple = pipe(PROMPT, generator=seeded(), return_dict=False, **call)
    latent, decoded, last = trace.runs
    assert latent.spectrogram is None
    np.testing.assert_array_equal(decoded.spectrogram.values[:, 0], output.spectrograms)
    np.testing.assert_array_equal(last.spectrogram.values[0], as_tuple[1])


def test_a_picture_is_not_given_seconds_and_hertz(plain_checkpoint):
    pipe = quiet(diffusers.StableDiffusionPipeline.from_pretrained(plain_checkpoint, safety_checker=None))
    calls = []
    pipe.unet.conv_in.register_forward_hook(lambda *args: calls.append(1))
    call = {"height": 72, "width": 232, "num_inference_steps": 2, "output_type": "latent"}
    stated = r"72 x 232.*grid=SpectrogramGrid\(height=72, width=232"
    with pytest.raises(CaptureError, match=stated), attnviz.trace(pipe):
        pipe(PROMPT, **call)
    assert not calls  # refused before anything is computed
    with (
        pytest.raises(CaptureError, match="grid has 64 x 232"),
        attnviz.trace(pipe, grid=SpectrogramGrid(64, 232)),
    ):
        pipe(PROMPT, **call)
    riffusion = SpectrogramGrid(72, 232, sampling_rate=44100, hop_length=441, fmax=10000.0)
    with attnviz.trace(pipe, grid=riffusion) as trace:
        pipe(PROMPT, **call)
    heat = trace.maps.heatmap("rain")
    assert float(heat.time[-1]) == pytest.approx(2.32 - 2.32 / heat.sizes["time"] / 2)
    assert float(heat.freq[-1]) > 8000


def test_the_spectrogram_of_a_plain_pipeline(plain_checkpoint):
    pipe = quiet(diffusers.StableDiffusionPipeline.from_pretrained(plain_checkpoint, safety_checker=None))

    def preview(pipe, step, timestep, tensors):
        pipe.vae.decode(tensors["latents"])
        return tensors

    call = {"height": 256, "width": 200, "num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "np"}
    with attnviz.trace(pipe) as trace:
        images = pipe(PROMPT, generator=seeded(), callback_on_step_end=preview, **call).images
        pipe.vae.decode(torch.randn(1, 4, 32, 25, generator=seeded()))
    expected = image_to_mel(images[..., 0])
    np.testing.assert_allclose(trace.maps.spectrogram.values[0], expected, atol=1e-4)


def test_maps_are_made_once_and_the_store_is_let_go(pipe):
    with attnviz.trace(pipe) as trace:
        pipe(PROMPT, generator=seeded(), **SMALL)
        first = trace.maps
    assert trace.maps is first
    assert trace.coverage == (16, 16)
    assert trace._runs[0].recording.store is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"guidance_rescale": 0.7}, "guidance_rescale"),
        ({"guidance_scale": 2.0}, "guidance_scale"),
        ({"eta": 1.0}, "eta"),
        ({"negative_prompt": "wind"}, "negative_prompt"),
        ({"num_inference_steps": 4}, "steps"),
        ({"prompt": "a dog barked"}, "prompt"),
        ({"width": 240}, "grid"),
    ],
)
def test_runs_of_different_settings_are_never_merged(pipe, change, field):
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    call = {"prompt": PROMPT, **SMALL}
    with attnviz.trace(pipe) as trace:
        pipe(**call, generator=seeded(1))
        pipe(**call, generator=seeded(2))
        pipe(**{**call, **change}, generator=seeded(1))
    one, other_seed, changed = trace.runs
    assert attnviz.AttentionMaps.merge([one, other_seed]).images == 2
    with pytest.raises(MapsError, match=field):
        attnviz.AttentionMaps.merge([one, changed])


def test_runs_on_different_clips_or_schedules_are_never_merged(pipe):
    style = quiet(AuffusionAudioToAudioPipeline.from_pipe(pipe))
    clip = torch.rand(24_000, generator=seeded(5)) - 0.5
    call = {"prompt": "rain", "width": 200, "strength": 0.7, "num_inference_steps": 4, "output_type": "latent"}
    with attnviz.trace(style) as trace:
        style(audio=clip, generator=seeded(), **call)
        style(audio=clip.flip(0), generator=seeded(), **call)
        style.scheduler = diffusers.PNDMScheduler.from_config(
            style.scheduler.config, prediction_type="v_prediction"
        )
        style(audio=clip, generator=seeded(), **call)
    first, other_clip, other_schedule = trace.runs
    for other, field in ((other_clip, "image"), (other_schedule, "prediction_type")):
        with pytest.raises(MapsError, match=field):
            attnviz.AttentionMaps.merge([first, other])


def test_only_a_fresh_generator_has_a_seed(pipe):
    generator = seeded(7)
    latents = torch.randn(1, 4, 9, 29, generator=seeded(3))
    with attnviz.trace(pipe) as trace:
        pipe(PROMPT, generator=generator, **SMALL)
        pipe(PROMPT, generator=generator, **SMALL)
        pipe(PROMPT, latents=latents, **SMALL)
    said = [maps.provenance for maps in trace.runs]
    assert [each["seeds"] for each in said] == [[7], [None], []]
    assert said[0]["latents"] is None
    assert len(said[2]["latents"]) == 16


# Leaving nothing behind -------------------------------------------------------------------------------


class _UserError(Exception):
    pass


@pytest.mark.parametrize("error", [None, _UserError, KeyboardInterrupt])
def test_everything_is_restored(pipe, error):
    before = fingerprints(pipe)
    try:
        with attnviz.trace(pipe):
            assert fingerprints(pipe) != before
            if error:
                raise error
    except (_UserError, KeyboardInterrupt):
        pass
    assert fingerprints(pipe) == before


@pytest.mark.parametrize("how", ["exception", "diffusers"])
def test_an_interrupt_keeps_what_was_seen(pipe, how):
    before = fingerprints(pipe)

    def stop(pipe, step, timestep, tensors):
        if step == 1:
            if how == "exception":
                raise KeyboardInterrupt
            pipe._interrupt = True
        return tensors

    call = {**SMALL, "num_inference_steps": 6, "callback_on_step_end": stop}
    trace = attnviz.trace(pipe)
    try:
        with trace:
            pipe(PROMPT, generator=seeded(), **call)
    except KeyboardInterrupt:
        assert how == "exception"
    assert fingerprints(pipe) == before
    assert not trace.maps.complete
    assert len(trace.maps.timesteps) == 2
    assert "INCOMPLETE" in repr(trace.maps)
    with attnviz.trace(pipe, keep=("step",)) as whole:
        pipe(PROMPT, generator=seeded(), **{**call, "callback_on_step_end": None})
    first_two = whole.maps.select(steps=[0, 1])
    np.testing.assert_allclose(trace.maps.heatmap("dog"), first_two.heatmap("dog"), atol=1e-6)


def test_nothing_holds_the_trace(pipe):
    with attnviz.trace(pipe) as trace:
        pipe(PROMPT, generator=seeded(), **SMALL)
    gone = weakref.ref(trace)
    del trace
    gc.collect()
    assert gone() is None


def test_refuses_to_trace_twice(pipe):
    before = fingerprints(pipe)
    other = AuffusionAudioToAudioPipeline.from_pipe(pipe)  # shares the U-Net
    with attnviz.trace(pipe), pytest.raises(CaptureError, match="traced already"), attnviz.trace(other):
        pass
    assert fingerprints(pipe) == before
    assert fingerprints(other)[1] == set()


def test_no_call_no_maps(pipe):
    with attnviz.trace(pipe) as trace:
        pass
    with pytest.raises(MapsError, match="No denoiser call"):
        trace.maps  # noqa: B018


# Refusals ---------------------------------------------------------------------------------------------


def test_embeddings_without_words_are_refused(plain_checkpoint):
    from diffusers import StableDiffusionPipeline

    pipe = quiet(StableDiffusionPipeline.from_pretrained(plain_checkpoint, safety_checker=None))
    embeds, negative = pipe.encode_prompt("a dog", "cpu", 1, True)
    with pytest.raises(PromptError, match="prompt_embeds alone"), attnviz.trace(pipe):
        pipe(prompt_embeds=embeds, negative_prompt_embeds=negative, **{**SMALL, "output_type": "np"})


def test_budget(pipe):
    with (
        pytest.raises(MemoryBudgetError, match="Keep fewer"),
        attnviz.trace(pipe, keep=("step", "head"), max_bytes=9000),
    ):
        pipe(PROMPT, generator=seeded(), **SMALL)


def test_nan_weights_are_named(pipe):
    with torch.no_grad():
        pipe.unet.conv_in.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(CaptureError, match=r"NaN.*down_blocks\.0\.attentions\.0"), attnviz.trace(pipe):
        pipe(PROMPT, generator=seeded(), **SMALL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"keep": ("time",)}, "keep"), ({"tokens": "some"}, "tokens"), ({"branch": 1}, "branch")],
)
def test_unknown_settings(pipe, settings, message):
    with pytest.raises(CaptureError, match=message):
        attnviz.trace(pipe, **settings)


def test_nan_embeddings_are_named(pipe):
    with torch.no_grad():
        pipe.conditioner.adapters[0].proj.bias[0] = float("nan")
    with pytest.raises(CaptureError, match="embeddings of the prompt hold NaN"), attnviz.trace(pipe):
        pipe(PROMPT, generator=seeded(), **SMALL)


def test_another_pipeline_on_the_same_unet_is_refused(pipe):
    other = quiet(type(pipe).from_pipe(pipe))
    with attnviz.trace(pipe) as trace:
        pipe(PROMPT, generator=seeded(), **SMALL)
        with pytest.raises(CaptureError, match="outside a call"):
            other(PROMPT, generator=seeded(), **SMALL)
    assert trace.maps.complete
    assert len(trace.maps.timesteps) == 4


def test_a_skipped_block_is_refused(pipe):
    """As feature caches such as DeepCache do it: a block runs in some denoiser calls only."""
    run, calls = pipe.unet.mid_block.forward, []

    def sometimes(hidden_states, *args, **kwargs):
        calls.append(1)
        return run(hidden_states, *args, **kwargs) if len(calls) == 1 else hidden_states

    pipe.unet.mid_block.forward = sometimes
    trace = attnviz.trace(pipe)
    with pytest.raises(CaptureError, match=r"1 of 16 .*did not run in denoiser call 1, first mid_block"), trace:
        pipe(PROMPT, generator=seeded(), **SMALL)
    assert not trace.maps.complete
    assert len(trace.maps.timesteps) == 1


def test_several_text_encoders_of_sdxl_are_refused():
    pipe = object.__new__(diffusers.StableDiffusionXLPipeline)
    vars(pipe).update(unet=torch.nn.Identity(), text_encoder_2=None)
    with pytest.raises(CaptureError, match="StableDiffusionXLPipeline cannot be traced"):
        attnviz.trace(pipe)


def test_not_a_pipeline():
    with pytest.raises(CaptureError, match="cannot be traced"):
        attnviz.trace(object())


@pytest.mark.parametrize("method", ["value", "rollout"])
def test_another_method_is_recorded_along_and_named(pipe, method):
    plain = pipe(PROMPT, generator=seeded(), **SMALL).latents
    with attnviz.trace(pipe, method=method) as traced:
        observed = pipe(PROMPT, generator=seeded(), **SMALL).latents
    assert torch.equal(plain, observed)
    content = traced.maps.content
    assert (content["method"], content["signed"]) == (method, 0)
    assert traced.maps.heatmap("dog").attrs["long_name"] == content["quantity"] != "attention probability"


def test_a_method_that_cannot_run_along_is_refused(pipe):
    with pytest.raises(CaptureError, match=r"shapley.*attention, value, rollout"):
        attnviz.trace(pipe, method="shapley")
