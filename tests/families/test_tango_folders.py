"""Tango and TangoFlux from the folders of their authors: the published model restated, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from published_families import AudioDiffusion, TangoFlux
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

import attnviz
from attnviz.errors import AttnVizError, CheckpointError
from attnviz.models.pipelines.tango import TangoFluxPipeline, TangoPipeline
from attnviz.testing import write_family_checkpoint

PROMPT = "a Dog barks, then Rain falls"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    return {name: write_family_checkpoint(root / name, name) for name in ("tango", "tango-flux")}


@pytest.fixture(scope="module")
def tango(folders):
    pipe = attnviz.load(folders["tango"])
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def flux(folders):
    pipe = attnviz.load(folders["tango-flux"])
    pipe.set_progress_bar_config(disable=True)
    return pipe


def bare(kind, **parts):
    """A published class with given parts, without the widths of its own."""
    model = kind.__new__(kind)
    nn.Module.__init__(model)
    for name, part in parts.items():
        setattr(model, name, part)
    return model.eval()


class Duration(nn.Module):
    """The embedding of the duration, from the names of the file."""

    def __init__(self, path):
        super().__init__()
        start = "duration_emebdder.time_positional_embedding."
        self.state = {name.removeprefix(start): w for name, w in load_file(path).items() if start in name}

    def forward(self, seconds):
        share = seconds.reshape(-1, 1) / 30
        angle = 2 * np.pi * share * self.state["0.weights"]
        given = torch.cat([share, torch.sin(angle), torch.cos(angle)], dim=1)
        return functional.linear(given, self.state["1.weight"], self.state["1.bias"])[:, None]


# The published model restated ----------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_latents_of_tango_are_those_of_the_published_loop(tango, guidance):
    model = bare(
        AudioDiffusion, tokenizer=tango.tokenizer, text_encoder=tango.text_encoder, unet=tango.unet, frames=256
    )
    scheduler = DDIMScheduler(clip_sample=False)
    torch.manual_seed(0)
    expected = model.inference([PROMPT], scheduler, 1, guidance)
    torch.manual_seed(0)
    noise = torch.randn(1, 8, 256, 16)
    plain = tango.scheduler
    try:
        tango.scheduler = DDIMScheduler(clip_sample=False)
        call = {"num_inference_steps": 1, "guidance_scale": guidance, "output_type": "latent"}
        found = tango(PROMPT, latents=noise, **call).audios
    finally:
        tango.scheduler = plain
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 4.5])
def test_latents_of_tango_flux_are_those_of_the_published_loop(flux, folders, guidance):
    path = folders["tango-flux"] / "tangoflux.safetensors"
    fc = nn.Sequential(nn.Linear(20, 20), nn.ReLU())
    state = load_file(path)
    fc[0].load_state_dict({"weight": state["fc.0.weight"], "bias": state["fc.0.bias"]})
    model = bare(
        TangoFlux, tokenizer=flux.tokenizer, text_encoder=flux.text_encoder, transformer=flux.transformer, fc=fc,
        duration_emebdder=Duration(path), audio_seq_len=40, noise_scheduler=flux.scheduler,
    )  # fmt: skip
    torch.manual_seed(0)
    expected = model.inference_flow(PROMPT, 3, guidance, duration=1.5)
    torch.manual_seed(0)
    noise = torch.randn(1, 40, 8)
    call = {"num_inference_steps": 3, "guidance_scale": guidance, "duration": 1.5, "output_type": "latent"}
    torch.testing.assert_close(flux(PROMPT, latents=noise, **call).audios, expected, rtol=1e-5, atol=1e-5)


PUBLISHED_SCHEDULER = {  # scheduler_config.json of Stable Diffusion 2.1, as it is public
    "_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "num_train_timesteps": 1000,
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "trained_betas": None,
    "clip_sample": False, "prediction_type": "v_prediction", "set_alpha_to_one": False, "skip_prk_steps": True,
    "steps_offset": 1,
}  # fmt: skip


@pytest.mark.parametrize("given", [False, True])
def test_the_noise_schedule_of_tango_is_that_of_its_authors(given, tmp_path):
    """By formula; the DDPMScheduler of their diffusers (0.15) knew no steps_offset, and ignored the file's."""
    folder = write_family_checkpoint(tmp_path / "model", "tango")
    if given:
        inside = folder / json.loads((folder / "main_config.json").read_text())["scheduler_name"] / "scheduler"
        inside.mkdir(parents=True)
        (inside / "scheduler_config.json").write_text(json.dumps(PUBLISHED_SCHEDULER))
    scheduler = attnviz.load(folder).scheduler
    kept = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    np.testing.assert_allclose(scheduler.alphas_cumprod, kept, rtol=1e-4)
    scheduler.set_timesteps(100)
    assert scheduler.timesteps.tolist() == list(range(990, -1, -10))
    assert scheduler.config.prediction_type == "v_prediction"
    assert (scheduler.config.clip_sample, scheduler.config.variance_type) == (False, "fixed_small")
    # The last step makes the clean latents: after it, no noise is left.
    noisy, velocity = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5)
    clean = kept[0] ** 0.5 * noisy - (1 - kept[0]) ** 0.5 * velocity
    made = scheduler.step(velocity, scheduler.timesteps[-1], noisy).prev_sample
    torch.testing.assert_close(made, clean.float(), rtol=1e-4, atol=1e-4)


def decoded(state, latents):
    """The decoder of latent diffusion (Rombach et al. 2022) by the names of the file, narrow as in the fixture."""

    def conv(x, name, padding=1):
        return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    def norm(x, name):
        return functional.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def block(x, name):
        h = conv(functional.silu(norm(x, f"{name}.norm1")), f"{name}.conv1")
        return x + conv(functional.silu(norm(h, f"{name}.norm2")), f"{name}.conv2")

    x = conv(conv(latents, "post_quant_conv", 0), "decoder.conv_in")
    x = block(x, "decoder.mid.block_1")
    q, k, v = (conv(norm(x, "decoder.mid.attn_1.norm"), f"decoder.mid.attn_1.{n}", 0).flatten(2) for n in "qkv")
    weights = torch.softmax(q.transpose(1, 2) @ k / q.shape[1] ** 0.5, dim=-1)
    x = x + conv((v @ weights.transpose(1, 2)).unflatten(2, x.shape[2:]), "decoder.mid.attn_1.proj_out", 0)
    x = block(x, "decoder.mid.block_2")
    for level in (2, 1, 0):
        for number in (0, 1):
            x = block(x, f"decoder.up.{level}.block.{number}")
        if level:
            x = conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), f"decoder.up.{level}.upsample.conv")
    return conv(functional.silu(norm(x, "decoder.norm_out")), "decoder.conv_out")


def test_the_mel_vae_decodes_as_latent_diffusion_does(tango, folders):
    state = torch.load(folders["tango"] / "pytorch_model_vae.bin", weights_only=True)
    latents = torch.randn(1, 8, 12, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = tango.vae.decode(latents).sample
        torch.testing.assert_close(found, decoded(state, latents), rtol=1e-4, atol=1e-4)
    assert tango.vae.config.scaling_factor == 0.9227914214134216


def sounded(state, mel):
    """HiFi-GAN (Kong et al. 2020) by the names of the file; mel of shape (bands, frames)."""

    def conv(x, name, kernel, dilation=1):
        weight, bias = state[f"vocoder.{name}.weight"], state[f"vocoder.{name}.bias"]
        return functional.conv1d(x, weight, bias, dilation=dilation, padding=dilation * (kernel - 1) // 2)

    x = conv(mel[None], "conv_pre", 7)
    for stage, (rate, kernel) in enumerate(zip((5, 4, 2, 2, 2), (16, 16, 8, 4, 4), strict=True)):
        weight, bias = state[f"vocoder.ups.{stage}.weight"], state[f"vocoder.ups.{stage}.bias"]
        x = functional.leaky_relu(x, 0.1)
        x = functional.conv_transpose1d(x, weight, bias, stride=rate, padding=(kernel - rate) // 2)
        made = []
        for number, size in enumerate((3, 7, 11)):
            y, name = x, f"resblocks.{3 * stage + number}"
            for at, dilation in enumerate((1, 3, 5)):
                z = conv(functional.leaky_relu(y, 0.1), f"{name}.convs1.{at}", size, dilation)
                y = y + conv(functional.leaky_relu(z, 0.1), f"{name}.convs2.{at}", size)
            made.append(y)
        x = sum(made) / 3
    return torch.tanh(conv(functional.leaky_relu(x, 0.01), "conv_post", 7))[0, 0]


def test_the_vocoder_is_the_published_one(tango, folders):
    state = torch.load(folders["tango"] / "pytorch_model_vae.bin", weights_only=True)
    mel = torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(tango.vocoder(mel), sounded(state, mel.T), rtol=1e-4, atol=1e-5)


# Traced --------------------------------------------------------------------------------------------------


def test_a_traced_tango_makes_the_same_audio_and_its_maps_have_seconds_and_hertz(tango):
    call = {"num_inference_steps": 1, "guidance_scale": 2.0, "output_type": "latent"}
    plain = tango(PROMPT, generator=torch.Generator().manual_seed(0), **call).audios
    with attnviz.trace(tango) as trace:
        traced = tango(PROMPT, generator=torch.Generator().manual_seed(0), **call).audios
    assert torch.equal(plain, traced)
    heat = trace.maps.heatmap("Dog barks")
    assert dict(heat.sizes) == {"freq": 16, "time": 256}
    np.testing.assert_allclose(heat.time, (np.arange(256) + 0.5) * 0.04)
    assert len(trace.maps.layers) == 10
    assert trace.maps.provenance["family"] == "tango"


def test_a_traced_tango_flux_makes_the_same_audio_and_its_maps_have_seconds(flux):
    call = {"num_inference_steps": 2, "guidance_scale": 2.0, "duration": 1.2, "num_waveforms_per_prompt": 2}
    prompts = [PROMPT, "a clock ticks"]
    plain = flux(prompts, generator=torch.Generator().manual_seed(0), **call).audios
    with attnviz.trace(flux, tokens="all") as trace:
        traced = flux(prompts, generator=torch.Generator().manual_seed(0), **call).audios
    np.testing.assert_array_equal(plain, traced)
    assert plain.shape == (4, 2, round(1.2 * 160))
    curve = trace.maps.activation("clock", prompt_index=1)
    np.testing.assert_allclose(curve.time, (np.arange(40) + 0.5) * 8 / 160)
    assert np.isnan(curve[curve.time > 1.2]).all()
    assert trace.maps.images == 2
    assert trace.maps.tokens[0].kept_words == ["a", "Dog", "barks", "then", "Rain", "falls"]
    assert trace.maps.tokens[0].rows["kind"].tolist()[-1] == "duration"


@pytest.mark.parametrize("name", ["tango", "tango-flux"])
def test_a_loaded_pipeline_is_saved_and_loaded_again(name, request, tmp_path):
    pipe = request.getfixturevalue(name.removeprefix("tango-"))
    pipe.save_pretrained(tmp_path / "saved")
    again = attnviz.load(tmp_path / "saved")
    assert type(again) is type(pipe)
    for part, module in pipe.components.items():
        if isinstance(module, nn.Module):
            other = again.components[part].state_dict()
            assert all(torch.equal(value, other[key]) for key, value in module.state_dict().items())
    if name == "tango-flux":
        assert again.config["audio_seq_len"] == 40


def test_precision_is_of_every_part(folders):
    pipe = attnviz.load(folders["tango-flux"], torch_dtype=torch.bfloat16)
    assert type(pipe) is TangoFluxPipeline
    assert {part.dtype for part in pipe.components.values() if isinstance(part, nn.Module)} == {torch.bfloat16}
    assert torch.isfinite(pipe("a dog", num_inference_steps=1, output_type="pt").audios).all()


# Refused -------------------------------------------------------------------------------------------------


def test_durations_beyond_the_clip_are_refused(flux):
    for duration in (0, 30.1, float("nan")):
        with pytest.raises(ValueError, match=r"is not in \(0, 30\]"):
            flux(PROMPT, duration=duration)


def without(path, ending):
    load, save = (load_file, save_file) if path.suffix == ".safetensors" else (torch.load, torch.save)
    state = load(path)
    del state[next(key for key in state if key.endswith(ending))]
    save(state, path)


def configured(folder, **entries):
    path = next(folder / name for name in ("main_config.json", "config.json") if (folder / name).is_file())
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


MAIN, SOUND = "pytorch_model_main.bin", "pytorch_model_vae.bin"
DAMAGE = {
    "no weights": ("tango", lambda f: (f / MAIN).unlink(), f"{MAIN} is missing"),
    "no vae": ("tango", lambda f: (f / SOUND).unlink(), f"{SOUND} is missing"),
    "no configuration of the vae": ("tango", lambda f: (f / "vae_config.json").unlink(), "vae_config.json"),
    "a part of the vae's": ("tango", lambda f: (f / "vae_config.json").write_text("{}"), "vae_config.json lacks"),
    "a layer": ("tango", lambda f: without(f / MAIN, "attn2.to_k.weight"), "attn2.to_k.weight"),
    "a convolution": ("tango", lambda f: without(f / SOUND, "mid.attn_1.q.bias"), "lacks 1 weights"),
    "the vocoder": ("tango", lambda f: without(f / SOUND, "conv_pre.weight"), "conv_pre.weight"),
    "Mustango": ("tango", lambda f: configured(f, unet_model_config_path="c/music_model.json"), "Mustango"),
    "an unknown scheduler": ("tango", lambda f: configured(f, scheduler_name="my/own"), "scheduler of 'my/own'"),
    "a picture model's U-Net": ("tango", lambda f: configured(f, unet_model_config_path=None), "unet_model_name"),
    "another width": ("tango-flux", lambda f: configured(f, in_channels=9), "size mismatch"),
    "fewer layers": ("tango-flux", lambda f: configured(f, num_single_layers=1), "does not, first"),
    "no number": ("tango-flux", lambda f: configured(f, audio_seq_len=True), "audio_seq_len=True"),
    "no duration": ("tango-flux", lambda f: without(f / "tangoflux.safetensors", "0.weights"), "lacks 1 weights"),
    "no auto-encoder": ("tango-flux", lambda f: (f / "vae.safetensors").unlink(), "vae.safetensors is missing"),
    "no text": ("tango-flux", lambda f: configured(f, text_encoder_name=3), "text_encoder_name"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_folder_that_is_not_whole_is_refused(what, tmp_path):
    name, damage, message = DAMAGE[what]
    folder = write_family_checkpoint(tmp_path / "model", name)
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        attnviz.load(folder)


class Harm:
    def __reduce__(self):
        return (print, ("run",))


def test_code_in_the_weights_is_not_run(tmp_path, capsys):
    folder = write_family_checkpoint(tmp_path / "model", "tango")
    torch.save({"unet.x": Harm()}, folder / "pytorch_model_main.bin")
    with pytest.raises(CheckpointError, match="nothing in them was run"):
        attnviz.load(folder)
    assert capsys.readouterr().out == ""


def test_types_of_the_pipelines(tango, flux):
    assert type(tango) is TangoPipeline
    assert type(flux) is TangoFluxPipeline


def test_a_number_of_steps_that_is_none_is_refused(tango, flux):
    for pipe in (tango, flux):
        with pytest.raises(AttnVizError, match="num_inference_steps is 0"):
            pipe("a dog barks", num_inference_steps=0)
