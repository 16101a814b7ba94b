"""Explaining real clips: the numbers against an oracle written out, and nothing left behind."""

from __future__ import annotations

import copy
import inspect

import accelerate
import diffusers
import numpy as np
import pytest
import soundfile
import torch
from attribution_small import noise_bursts, small_pipeline, state_of
from capture.literal import literal_attention
from test_pulse import WORD, lies_at_the_pulse, plant

import attnviz
from attnviz.audio import image_to_mel
from attnviz.capture import is_traced
from attnviz.diffusion.noising import draw_noise
from attnviz.errors import AudioError, CaptureError, MapsError, MemoryBudgetError, PromptError
from attnviz.models.pipelines import AuffusionAudioToAudioPipeline
from attnviz.models.pipelines.sources import read_sources

CAPTION = "a dog barks, then rain falls"
SECONDS = 3.0
RATE = 22_050
ONE_LOOK = {"timesteps": (50,), "draws": 1}
TWO_BY_TWO = {"timesteps": (400, 50), "draws": 2, "seed": 3}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A stereo FLAC at another rate than the model's."""
    path = tmp_path_factory.mktemp("clips") / "bursts.flac"
    left = noise_bursts(rate=RATE)
    soundfile.write(path, np.stack([left, left / 2], axis=1), RATE)
    return path


@pytest.fixture(scope="module")
def shared_pipe(adapter_checkpoint):
    return attnviz.load(adapter_checkpoint)


@pytest.fixture
def pipe(loaded_once):
    return copy.deepcopy(loaded_once)


@pytest.fixture(scope="module")
def kept(shared_pipe, clip):
    return attnviz.explain(shared_pipe, clip, CAPTION, **TWO_BY_TWO, keep=("step", "head"))


@pytest.fixture(scope="module")
def one_look(shared_pipe, clip):
    return attnviz.explain(shared_pipe, clip, CAPTION, **ONE_LOOK, seed=3)


# The numbers ------------------------------------------------------------------------------------------


@torch.no_grad()
def test_every_layer_vs_literal_attention_one_draw_at_a_time(shared_pipe, kept, clip):
    """Encoded, noised by diffusers and looked at by hand: step 0 is timestep 400, the draws are averaged."""
    pipe = shared_pipe
    images, _ = read_sources(clip, 1, 1024, None)
    latents = pipe.vae.encode(2 * images - 1).latent_dist.mean * pipe.vae.config.scaling_factor
    noising = diffusers.DDPMScheduler.from_config(pipe.scheduler.config)
    keys = pipe.conditioner([CAPTION], device="cpu")
    with literal_attention(pipe.unet) as seen:
        for timestep in (400, 50):
            entropy = np.random.SeedSequence((3, timestep)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(entropy[0]))
            for _ in range(2):
                noise = torch.randn(latents.shape[1:], generator=generator)[None]
                noised = noising.add_noise(latents, noise, torch.tensor([timestep]))
                pipe.unet(noised, timestep, encoder_hidden_states=keys)
    assert len(kept.layers) == 16
    assert kept.timesteps == [400.0, 50.0]
    for name in kept.layers:
        attention = kept[name]
        assert attention.dims == ("prompt", "image", "step", "head", "token", "freq", "time")
        rows, columns = attention.shape[-2:]
        literal = np.stack([call[0].numpy() for call in seen[f"{name}.transformer_blocks.0.attn2"]])
        literal = literal.reshape(2, 2, 4, rows, columns, -1).mean(axis=1)  # step, draw, head, row, column, key
        literal = literal[:, :, ::-1].transpose(0, 1, 4, 2, 3)[:, :, kept.positions]
        np.testing.assert_allclose(attention[0, 0], literal, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(attention.timestep, [400, 50])


def test_summed_axes_are_means_and_the_seed_fixes_everything(shared_pipe, kept, clip):
    summed = attnviz.explain(shared_pipe, clip, CAPTION, **TWO_BY_TWO)
    for name in summed.layers:
        assert summed[name].dims == ("prompt", "image", "token", "freq", "time")
        np.testing.assert_allclose(summed[name], kept[name].mean(("step", "head")), atol=1e-6)


def test_draws_average_and_other_timesteps_change_nothing(shared_pipe, kept, one_look, clip):
    """The first draw at timestep 50 is in the mean of two draws: what is left of it is the second."""
    for name in one_look.layers:
        both, first = kept[name].isel(step=1).mean("head"), one_look[name]
        second = 2 * both - first
        assert float(abs(second - first).max()) > 1e-4
        assert float(second.min()) > -1e-5
        assert float(second.sum("token").max()) < 1 + 1e-4


def test_another_seed_differs_and_is_merged_along_images(shared_pipe, one_look, clip):
    other = attnviz.explain(shared_pipe, clip, CAPTION, **ONE_LOOK, seed=4)
    assert not np.allclose(other.heatmap("dog"), one_look.heatmap("dog"))
    assert attnviz.AttentionMaps.merge([one_look, other]).images == 2


def test_another_clip_is_never_merged(shared_pipe, one_look):
    other = attnviz.explain(shared_pipe, noise_bursts(seed=1), CAPTION, **ONE_LOOK, seed=3)
    with pytest.raises(MapsError, match="image"):
        attnviz.AttentionMaps.merge([one_look, other])


def test_planted_pulse_is_read_on_the_true_grid(pipe):
    handles = plant(pipe, (256, 1024), pipe.conditioner.token_table(CAPTION).find(WORD))
    maps = attnviz.explain(pipe, noise_bursts(), CAPTION, **ONE_LOOK)
    for handle in handles:
        handle.remove()
    for layer in maps.layers:
        heat = maps.heatmap(WORD, readout=layer)
        peak = heat.isel(heat.argmax(("freq", "time")))
        assert lies_at_the_pulse(float(peak.time), float(peak.freq), *heat.shape, (256, 1024)), layer


@torch.no_grad()
def test_what_inversion_and_prediction_look_at_vs_formulas_written_out(adapter_checkpoint, clip):
    """Every latent the U-Net gets, of a model that predicts the velocity; the last is the one that is read."""
    pipe = small_pipeline(adapter_checkpoint)
    pipe.scheduler = diffusers.PNDMScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction")
    images, _ = read_sources(clip, 1, 1024, None)
    latents = pipe.vae.encode(2 * images - 1).latent_dist.mean * pipe.vae.config.scaling_factor
    keys = pipe.conditioner([CAPTION], device="cpu")
    kept = pipe.scheduler.alphas_cumprod.double().tolist()
    calls = []

    def split(samples, timestep, share):
        """Clean latents and noise that the prediction at a timestep amounts to, at a share of signal."""
        velocity = pipe.unet(samples.float(), timestep, encoder_hidden_states=keys).sample.double()
        lost = (1 - share) ** 0.5
        return share**0.5 * samples - lost * velocity, share**0.5 * velocity + lost * samples

    # set_alpha_to_one is False here: inverting begins at the noise of timestep 0, and its first step stays.
    clean, noise = split(latents.double(), 100, kept[0])
    inverted = kept[100] ** 0.5 * clean + (1 - kept[100]) ** 0.5 * noise
    noised = kept[100] ** 0.5 * latents + (1 - kept[100]) ** 0.5 * draw_noise(latents, 100, 1, 0)
    predicted, _ = split(noised, 100, kept[100])

    pipe.unet.register_forward_pre_hook(lambda unet, args: calls.append(args))
    given = {"timesteps": (100,), "keep": ("step",)}
    by_inversion = attnviz.explain(pipe, clip, CAPTION, latents="inversion", inversion_steps=10, **given)
    by_prediction = attnviz.explain(pipe, clip, CAPTION, latents="predicted", draws=1, look_timestep=9, **given)
    expected = [(latents, 0), (latents, 100), (inverted, 100), (noised, 100), (predicted, 9)]
    assert [timestep for _, timestep in calls] == [timestep for _, timestep in expected]
    for (looked, timestep), (literal, _) in zip(calls, expected, strict=True):
        torch.testing.assert_close(looked, literal.float(), atol=1e-5, rtol=1e-5, msg=str(timestep))
    for maps, method in ((by_inversion, "inversion"), (by_prediction, "predicted")):
        assert (maps.timesteps, maps["mid.0"].sizes["step"]) == ([100.0], 1)
        assert (maps.provenance["latents"], maps.provenance["steps"]) == (method, 1)
    assert not np.array_equal(by_inversion["mid.0"], by_prediction["mid.0"])


# What travels with them -------------------------------------------------------------------------------


def test_padding_and_spectrogram_are_the_clips(kept, clip):
    assert kept.grid.audio_seconds == pytest.approx(SECONDS)
    for grid in ("finest", "image"):
        heat = kept.heatmap("rain", grid=grid)
        np.testing.assert_array_equal(heat.padding, heat.time > SECONDS)
    assert bool(kept.activation("rain").isnull()[-1])
    images, _ = read_sources(clip, 1, 1024, None)
    np.testing.assert_array_equal(kept.spectrogram[0, 0], image_to_mel(images[0, 0]))


def test_an_array_at_another_rate_is_the_file_of_that_rate(shared_pipe, clip, one_look):
    samples, rate = soundfile.read(clip, dtype="float32")
    again = attnviz.explain(shared_pipe, samples, CAPTION, sampling_rate=rate, **ONE_LOOK, seed=3)
    for layer in one_look.layers:
        np.testing.assert_array_equal(again[layer], one_look[layer])


def test_provenance_and_round_trip(kept, adapter_checkpoint, tmp_path):
    said = kept.provenance
    assert (said["latents"], said["timesteps"], said["draws"], said["seed"]) == ("noising", [400, 50], 2, 3)
    assert (said["model"], said["dtype"], said["normalize"]) == (str(adapter_checkpoint), "float32", True)
    assert (said["keep"], said["tokens"], said["branch"], said["steps"]) == (
        ["head", "step"],
        "text",
        "conditional",
        2,
    )
    assert said["versions"]["torch"] == torch.__version__
    assert said["scheduler_config"]["num_train_timesteps"] == 1000
    assert (kept.prompts, kept.images, kept.complete) == ([CAPTION], 1, True)
    kept.save(tmp_path / "maps.zarr")
    again = attnviz.AttentionMaps.load(tmp_path / "maps.zarr")
    assert again.provenance == said
    assert again.grid == kept.grid
    for name in kept.layers:
        np.testing.assert_array_equal(again[name], kept[name])


def test_every_layout_encoder_and_precision(two_encoder_checkpoint, plain_checkpoint, clip):
    two = attnviz.load(two_encoder_checkpoint, torch_dtype=torch.bfloat16)
    plain = attnviz.load(plain_checkpoint)
    foreign = diffusers.StableDiffusionPipeline.from_pretrained(plain_checkpoint, safety_checker=None)
    maps = [attnviz.explain(each, clip, CAPTION, **ONE_LOOK, tokens="all") for each in (two, plain, foreign)]
    for each, keys in zip(maps, (154, 77, 77), strict=True):
        layer = each["mid_block.attentions.0"]
        assert (layer.dtype, layer.sizes["token"]) == (np.float32, keys)
        np.testing.assert_allclose(layer.sum("token"), 1.0, atol=1e-4)
    assert maps[0].provenance["dtype"] == "bfloat16"
    for name in maps[1].layers:
        np.testing.assert_array_equal(maps[1][name], maps[2][name])


# Nothing is left behind -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ({"draws": 1}, None),
        ({"draws": 1}, ZeroDivisionError),
        ({"draws": 1}, KeyboardInterrupt),
        ({"latents": "predicted", "draws": 1, "randomize": 2}, None),
        ({"latents": "inversion", "randomize": "conv_in"}, None),
        ({"latents": "inversion"}, KeyboardInterrupt),
    ],
)
def test_everything_is_as_it_was(adapter_checkpoint, method, error):
    """Also where the model fails, or the user stops, in the middle of the U-Net."""
    pipe = small_pipeline(adapter_checkpoint)
    pipe.unet.up_blocks.train()
    pipe.scheduler.set_timesteps(7)
    if error:

        def fail(module, args):
            raise error

        pipe.unet.mid_block.register_forward_pre_hook(fail)
    before, schedule = state_of(pipe), copy.deepcopy(vars(pipe.scheduler))
    if error:
        with pytest.raises(error):
            attnviz.explain(pipe, noise_bursts(), CAPTION, timesteps=(50,), **method)
    else:
        attnviz.explain(pipe, noise_bursts(), CAPTION, timesteps=(50,), **method)
    assert state_of(pipe) == before
    assert not is_traced(pipe.unet)
    for name, value in vars(pipe.scheduler).items():
        assert str(value) == str(schedule[name]), name


def test_a_traced_pipeline_is_refused_and_its_trace_unharmed(pipe):
    other = AuffusionAudioToAudioPipeline.from_pipe(pipe)  # shares the U-Net
    with attnviz.trace(pipe) as trace:
        before = state_of(pipe)
        for each in (pipe, other):
            with pytest.raises(CaptureError, match="traced already"):
                attnviz.explain(each, noise_bursts(), CAPTION, **ONE_LOOK)
        assert state_of(pipe) == before
    assert trace.runs == []
    assert trace._runs == []


def test_an_offloaded_unet(pipe, one_look, clip):
    accelerate.cpu_offload(pipe.unet, execution_device=torch.device("cpu"))
    maps = attnviz.explain(pipe, clip, CAPTION, **ONE_LOOK, seed=3)
    np.testing.assert_allclose(maps.heatmap("dog"), one_look.heatmap("dog"), atol=1e-6)


# Refusals: before the U-Net runs ----------------------------------------------------------------------


@pytest.fixture
def unrun(shared_pipe):
    """A pipeline whose U-Net must not be called."""

    def fail(module, args):
        raise AssertionError("the U-Net ran")

    handle = shared_pipe.unet.register_forward_pre_hook(fail)
    yield shared_pipe
    handle.remove()


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"timesteps": (50, 1000)}, CaptureError, "1000.* to 999"),
        ({"timesteps": (-1,)}, CaptureError, "-1"),
        ({"timesteps": (0.5,)}, CaptureError, "0.5"),
        ({"timesteps": (True,)}, CaptureError, "True"),
        ({"timesteps": ()}, CaptureError, "at least one"),
        ({"timesteps": (50, 50)}, CaptureError, "no duplicates.*draws="),
        ({"timesteps": 50}, CaptureError, r"\(50,\)"),
        ({"draws": 0}, CaptureError, "draws is 0"),
        ({"draws": 1.5}, CaptureError, "draws is 1.5"),
        ({"seed": -1}, CaptureError, "seed is -1"),
        ({"seed": 0.5}, CaptureError, "seed is 0.5"),
        ({"keep": ("time",)}, CaptureError, "keep"),
        ({"tokens": "some"}, CaptureError, "tokens"),
        ({"max_bytes": 0}, CaptureError, "max_bytes"),
        ({"caption": " "}, PromptError, "empty"),
        ({"caption": [CAPTION]}, PromptError, "not a string"),
        ({"audio": np.full(16_000, np.nan, np.float32)}, AudioError, "NaN"),
        ({"audio": np.zeros(0, np.float32)}, AudioError, "0 samples"),
        ({"audio": np.zeros(900, np.float32)}, AudioError, "at least 945"),
        ({"overlap": -1}, AudioError, "overlap=-1 is not .* 0 to 9.6"),
        ({"overlap": 9.61}, AudioError, "overlap=9.61"),
        ({"overlap": "half"}, AudioError, "overlap is 'half'"),
        ({"latents": "denoising"}, CaptureError, "noising, inversion, predicted"),
        ({"latents": "inversion", "draws": 4}, CaptureError, "draws=4 does not belong.*noising and predicted"),
        ({"latents": "inversion", "seed": 0}, CaptureError, "seed=0 does not belong"),
        ({"inversion_steps": 20}, CaptureError, "inversion_steps=20 does not belong to latents='noising'"),
        ({"look_timestep": 0}, CaptureError, "look_timestep=0 does not belong"),
        ({"latents": "predicted", "look_timestep": 1000}, CaptureError, "look_timestep=1000.* 999"),
        ({"latents": "predicted", "look_timestep": -1}, CaptureError, "look_timestep is -1"),
        ({"latents": "inversion", "inversion_steps": 0}, CaptureError, "inversion_steps is 0"),
        ({"latents": "inversion", "inversion_steps": 1001}, CaptureError, "more than the 1000 timesteps"),
        (
            {"latents": "inversion", "inversion_steps": 50},
            CaptureError,
            "50, .*every 20th.*inversion_steps=20 includes",
        ),
        (
            {"latents": "inversion", "timesteps": (990,), "inversion_steps": 3},
            CaptureError,
            "990.*inversion_steps=100",
        ),
        ({"randomize": 99}, CaptureError, "randomize=99.*0 to 11.*conv_out, up_blocks.3"),
        ({"randomize": -1}, CaptureError, "randomize=-1"),
        ({"randomize": True}, CaptureError, "randomize=True"),
        ({"randomize": "attn"}, CaptureError, "randomize='attn'"),
        ({"randomize_seed": 1}, CaptureError, "no block is randomised"),
        ({"randomize": 1, "randomize_seed": -1}, CaptureError, "randomize_seed is -1"),
        ({"audio": "nowhere.wav"}, AudioError, "nowhere.wav"),
        ({"audio": [noise_bursts()]}, AudioError, "list"),
    ],
)
def test_refused(unrun, changed, kind, message):
    call = {"audio": noise_bursts(), "caption": CAPTION, **changed}
    before = state_of(unrun)
    with pytest.raises(kind, match=message):
        attnviz.explain(unrun, **call)
    assert state_of(unrun) == before


@pytest.mark.parametrize("thing", [object(), "a folder", torch.nn.Identity()])
def test_not_a_pipeline(thing):
    with pytest.raises(CaptureError, match=f"{type(thing).__name__} cannot be explained"):
        attnviz.explain(thing, noise_bursts(), CAPTION)


def test_models_that_do_not_fit(pipe):
    pipe.unet.register_forward_pre_hook(lambda *_: pytest.fail("the U-Net ran"))
    trained = pipe.scheduler
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(CaptureError, match="FlowMatchEuler.*alphas_cumprod"):
        attnviz.explain(pipe, noise_bursts(), CAPTION)
    pipe.scheduler = trained
    with torch.no_grad():
        pipe.vae.encoder.conv_in.bias[0] = float("nan")
    with pytest.raises(AudioError, match="VAE returned NaN"):
        attnviz.explain(pipe, noise_bursts(), CAPTION)
    with torch.no_grad():
        pipe.vae.encoder.conv_in.bias[0] = 0.0
    pipe.unet._forward_pre_hooks.clear()
    with torch.no_grad():
        pipe.unet.conv_out.bias[0] = float("inf")
    with pytest.raises(CaptureError, match="latents for timestep 0 are NaN or infinite.*predictions"):
        attnviz.explain(pipe, noise_bursts(), CAPTION, **ONE_LOOK, latents="predicted")
    pipe.unet.register_to_config(in_channels=9)
    with pytest.raises(CaptureError, match="9 channels.*inpainting"):
        attnviz.explain(pipe, noise_bursts(), CAPTION)


def test_budget_is_that_of_the_mean_over_draws(shared_pipe, one_look):
    size = sum(one_look[name].nbytes for name in one_look.layers)
    with pytest.raises(MemoryBudgetError, match="Keep fewer"):
        attnviz.explain(shared_pipe, noise_bursts(), CAPTION, **ONE_LOOK, max_bytes=size - 1)
    two = attnviz.explain(shared_pipe, noise_bursts(), CAPTION, timesteps=(50,), draws=2, max_bytes=size)
    assert two.images == 1


def test_the_front_door_shows_the_signature():
    parameters = inspect.signature(attnviz.explain).parameters
    assert list(parameters)[:3] == ["pipe", "audio", "caption"]
    assert parameters["timesteps"].default == (50, 150, 250, 400)
    assert "explain" in dir(attnviz)
