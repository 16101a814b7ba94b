"""`attnviz.explain` of real clips on pipelines of every family, beside their own calls."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from families.test_family_pulses import LAYOUTS, PROMPT, read_pulse, read_pulse_of_audioldm2

import attnviz
from attnviz.attribution import cascade
from attnviz.attribution.denoising import rehearse
from attnviz.attribution.looking import look
from attnviz.audio import MelConfig, log_mel, peak_normalize
from attnviz.capture import AttentionRecorder
from attnviz.diffusion.model_audio import ModelAudio
from attnviz.diffusion.noising import draw_noise
from attnviz.errors import AudioError, CaptureError, InaudibleWarning, PromptError
from attnviz.models.families import family_of
from attnviz.testing import write_family_checkpoint

NAMES = ["audioldm2", "stable-audio", "stable-audio-3", "longcat-audio-dit", "ace-step"]
# Sampling rate, seconds of a clip, and the call of the pipeline that makes as much.
CLIPS = {
    "audioldm2": (16_000, 1.28, {"audio_length_in_s": 1.28}),
    "stable-audio": (160, 1.0, {"audio_end_in_s": 1.0}),
    "stable-audio-3": (16, 3.0, {"duration": 3.0}),
    "longcat-audio-dit": (24, 3.0, {"audio_duration_s": 3.0}),
    "ace-step": (200, 2.0, {"audio_duration": 2.0, "lyrics": ""}),
}


def clip_of(name, seconds=None, seed=0):
    """Noise with a loud third in it."""
    rate, usual, _ = CLIPS[name]
    samples = np.random.default_rng(seed).standard_normal(round((seconds or usual) * rate)).astype(np.float32)
    samples *= 0.02
    third = len(samples) // 3
    samples[third : 2 * third] *= 8
    return samples


class Calls:
    """The arguments of every call of a denoiser, by name."""

    def __init__(self, denoiser):
        self.denoiser, self.seen = denoiser, []
        self.names = (
            [*type(denoiser).forward.__wrapped__.__code__.co_varnames[1:]]
            if hasattr(type(denoiser).forward, "__wrapped__")
            else [*type(denoiser).forward.__code__.co_varnames[1:]]
        )

    def __enter__(self):
        self.handle = self.denoiser.register_forward_pre_hook(
            lambda module, args, kwargs: self.seen.append(
                copy.deepcopy({**dict(zip(self.names, args, strict=False)), **kwargs})
            ),
            with_kwargs=True,
        )
        return self.seen

    def __exit__(self, *error):
        self.handle.remove()


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_calls_and_maps_are_those_of_the_pipeline_given_the_same_latents(family_pipe, name):
    """Every argument bit for bit, and so every map."""
    made = family_pipe(name)
    family = family_of(made.pipe)
    with Calls(made.denoiser) as calls, attnviz.trace(made.pipe, keep=("step",)) as trace:
        made(PROMPT, num_inference_steps=3, guidance_scale=1.0, **CLIPS[name][2])
    scheduler = made.pipe.scheduler
    timesteps = dict(enumerate(scheduler.timesteps))
    assert len(calls) == len(timesteps) == 3
    known = rehearse(made.pipe, family, PROMPT, timesteps, scheduler=scheduler, rows=1, seconds=CLIPS[name][1])
    for step, call in enumerate(calls):
        ours = dict(known.denoising.arguments(step))
        latents = call.pop(family.latents)
        assert known.shape == latents.shape[1:]
        assert ours.keys() == call.keys()
        for key in call:
            assert same(ours[key], call[key]), key
        calls[step][family.latents] = latents
    recorder = AttentionRecorder(made.denoiser, keep=("step",), family=family)
    layers = look(known.denoising, [(call[family.latents], step) for step, call in enumerate(calls)], recorder)
    assert list(layers) == trace.maps.layers
    for layer in trace.maps.layers:
        ours = layers[layer].attention
        if "row" in layers[layer].dims:  # the highest frequency first
            ours = ours[..., ::-1, :]
        np.testing.assert_array_equal(ours, trace.maps[layer].to_numpy())


@pytest.mark.parametrize("name", ["tango", "tango-flux"])
@torch.no_grad()
def test_a_clip_with_pipelines_of_the_authors_layouts(name, tmp_path):
    """As above: the calls of the pipeline, and inputs written out."""
    pipe = attnviz.load(write_family_checkpoint(tmp_path, name))
    pipe.set_progress_bar_config(disable=True)
    family = family_of(pipe)
    denoiser = getattr(pipe, family.denoiser)
    rate, seconds, call = {"tango": (16_000, 1.0, {}), "tango-flux": (160, 1.0, {"duration": 1.0})}[name]
    with Calls(denoiser) as calls:
        pipe(PROMPT, num_inference_steps=1, guidance_scale=1.0, output_type="latent", **call)
        samples = np.random.default_rng(0).standard_normal(round(rate * seconds)).astype(np.float32) * 0.1
        maps = attnviz.explain(pipe, samples, PROMPT, timesteps=(600,), draws=1)
    theirs, _, ours = calls
    for key in theirs.keys() - {family.latents, family.timestep}:
        assert same(ours[key], theirs[key]), key
    wave = torch.from_numpy(samples)
    if name == "tango":
        padded = np.pad(peak_normalize(samples, 0.5), (0, 163_840 - 16_000))
        mel = torch.from_numpy(log_mel(padded, MelConfig(16_000, 1024, 1024, 160, 64)))
        latents = pipe.vae.encode(mel.T[None, None]).latent_dist.mean * pipe.vae.config.scaling_factor
        kept, time = float(pipe.scheduler.alphas_cumprod[600]), 600.0
        share = (1 - kept) ** 0.5
    else:
        whole = torch.nn.functional.pad(wave.expand(1, 2, -1), (0, 160))
        latents = pipe.vae.encode(whole).latent_dist.mean.transpose(1, 2)
        kept, share, time = 0.16, 0.6, 0.6
    noised = kept**0.5 * latents + share * draw_noise(latents, 600, 1, 0)
    torch.testing.assert_close(ours[family.latents], noised, rtol=1e-4, atol=1e-4)
    assert float(ours[family.timestep].flatten()[0]) == pytest.approx(time)
    heard = maps.activation("Dog barks").notnull()
    assert float(heard.time[heard].max()) < seconds < float(heard.time.max())


def literal_latents(made, samples):
    """Latents of a clip, written out for each model."""
    pipe, wave = made.pipe, torch.from_numpy(samples)
    if made.name == "audioldm2":
        peak = wave / wave.abs().max() * 0.5
        window = torch.hann_window(1024)
        padded = torch.nn.functional.pad(peak[None, None], (432, 432), mode="reflect")[0, 0]
        spectrum = torch.stft(padded, 1024, 160, window=window, center=False, return_complex=True).abs()
        from librosa.filters import mel

        filters = torch.from_numpy(mel(sr=16_000, n_fft=1024, n_mels=64, fmin=0, fmax=8000))
        log = (filters @ torch.sqrt(spectrum**2 + 1e-9)).clamp(min=1e-5).log()
        return pipe.vae.encode(log.T[None, None]).latent_dist.mean * pipe.vae.config.scaling_factor
    if made.name == "longcat-audio-dit":
        mean = pipe.vae.encoder(wave[None, None]).chunk(2, dim=1)[0]
        return (mean / pipe.vae.config.scale).transpose(1, 2)
    stereo = wave.expand(1, 2, -1)
    if made.name == "stable-audio-3":
        return pipe.vae.encode(stereo).latents
    if made.name == "stable-audio":  # always 2 s
        return pipe.vae.encode(torch.nn.functional.pad(stereo, (0, 160))).latent_dist.mean
    return pipe.vae.encode(stereo).latent_dist.mean.transpose(1, 2)


def literal_input(made, latents, noise, timestep):
    """The denoiser's input and time, written out for each model."""
    share = timestep / 1000
    if made.name == "audioldm2":
        kept = float(made.pipe.scheduler.alphas_cumprod[timestep])
        return kept**0.5 * latents + (1 - kept) ** 0.5 * noise, timestep
    if made.name == "stable-audio":
        sigma = math.tan(math.pi / 2 * share)
        return (latents + sigma * noise) / (1 + sigma**2) ** 0.5, 0.25 * math.log(sigma)
    if made.name == "longcat-audio-dit":  # its time runs from noise to sound
        return (1 - share) * latents + share * noise, 1 - share
    return (1 - share) * latents + share * noise, share


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_inputs_are_the_clip_noised_as_the_model_was_trained(family_pipe, name):
    made = family_pipe(name)
    samples = clip_of(name)
    family = family_of(made.pipe)
    with Calls(made.denoiser) as calls:
        maps = attnviz.explain(made.pipe, samples, PROMPT, timesteps=(700, 100), draws=2, seed=3)
    latents = literal_latents(made, samples)
    assert maps.timesteps == [700, 100]
    # The first two are those of the pipeline's own call, in which the denoiser computes nothing.
    for call, timestep in zip(calls[2:], (700, 100), strict=True):
        noise = draw_noise(latents, timestep, 2, 3)
        expected, time = literal_input(made, latents, noise, timestep)
        torch.testing.assert_close(call[family.latents], expected, rtol=1e-4, atol=1e-4)
        given = torch.as_tensor(call[family.timestep]).float().flatten()
        torch.testing.assert_close(given, torch.full_like(given, time))


@pytest.mark.parametrize("name", NAMES)
def test_maps_of_a_clip(family_pipe, name, tmp_path):
    made = family_pipe(name)
    _, seconds, _ = CLIPS[name]
    state, schedule = torch.get_rng_state(), copy.deepcopy(vars(made.pipe.scheduler))
    maps = attnviz.explain(made.pipe, clip_of(name), PROMPT, timesteps=(200,), draws=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert str(vars(made.pipe.scheduler)) == str(schedule)
    assert not {"forward", "scheduler"} & set(vars(made.denoiser))
    assert maps.grid.audio_seconds == pytest.approx(seconds)
    assert maps.tokens[0].kept_words == ["A", "Dog", "barks", "then", "Rain", "falls"]
    heard = maps.activation("Dog barks").notnull()
    assert float(heard.time[heard].max()) < seconds
    assert bool(heard.all()) == (name != "stable-audio")  # which pads to 2 s
    assert (maps.spectrogram is not None) == (name == "audioldm2")
    assert maps.provenance["latents"] == "noising"
    assert maps.content["family"] == name
    maps.save(tmp_path / "maps.zarr")
    loaded = attnviz.AttentionMaps.load(tmp_path / "maps.zarr")
    np.testing.assert_array_equal(loaded.activation("Rain"), maps.activation("Rain"))


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_pulse_is_read_in_a_clip(family_pipe, name):
    made = family_pipe(name)
    more = {"sampling_rate": CLIPS[name][0]}

    def explained(made, family):
        return attnviz.explain(made.pipe, clip_of(name), PROMPT, timesteps=(300,), draws=1, family=family, **more)

    if name == "audioldm2":
        read_pulse_of_audioldm2(made, maps_of=explained)
    else:
        assert name in LAYOUTS
        read_pulse(made, maps_of=explained, lyrics="")


# Longer clips -------------------------------------------------------------------------------------------


def test_a_clip_beyond_the_longest_call_is_read_in_windows(family_pipe):
    """Where a window is alone, its maps are those of a clip of its own."""
    made = family_pipe("stable-audio")  # of at most 2 s
    long = clip_of("stable-audio", seconds=3.1)
    how = {"timesteps": (100,), "draws": 1}
    maps = attnviz.explain(made.pipe, long, PROMPT, overlap=0.5, **how)
    assert maps.provenance["windows"] == pytest.approx([0.0, 1.1])
    assert maps.grid.seconds == pytest.approx(3.1)
    layer = maps.layers[0]
    for start, inside in ((0, slice(0, 22)), (22, slice(18, 40))):
        alone = attnviz.explain(made.pipe, long[start * 8 : start * 8 + 320], PROMPT, **how)
        np.testing.assert_allclose(
            maps[layer][..., start + inside.start : start + inside.stop], alone[layer][..., inside], atol=1e-6
        )
    with pytest.raises(AudioError, match="overlap=9 is not"):
        attnviz.explain(made.pipe, long, PROMPT, overlap=9, **how)


@pytest.mark.parametrize("longest", [15, 645, 1024])
def test_the_longest_call_is_no_longer_than_the_pipelines_own_limit(longest):
    """By not even the last bit: 15 * (2048 / 44100) is above 15 * 2048 / 44100."""
    clip = ModelAudio(np.zeros((1, 2)), 44_100, 2048, 1, None, longest)
    assert clip.longest_seconds == longest * 2048 / 44_100


@pytest.mark.parametrize("name", ["stable-audio-3", "longcat-audio-dit", "ace-step", "audioldm2"])
@pytest.mark.parametrize("more", [0.31, 1.0])
def test_a_clip_of_any_length_is_read_whole(family_pipe, name, more):
    """Also where the length is no whole number of columns: what is padded is masked, and nothing is cut off."""
    made = family_pipe(name)
    rate, usual, _ = CLIPS[name]
    samples = clip_of(name, seconds=usual + more)
    maps = attnviz.explain(made.pipe, samples, PROMPT, timesteps=(100,), draws=1)
    seconds = len(samples) / rate
    assert maps.grid.audio_seconds == pytest.approx(seconds)
    curve = maps.activation("Rain")
    step = float(curve.time[1] - curve.time[0])
    assert curve.sizes["time"] * step == pytest.approx(seconds, abs=8 * step)
    np.testing.assert_array_equal(curve.isnull(), curve.time > seconds)


# Other latents, and controls -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_other_latents(family_pipe, name):
    made = family_pipe(name)
    samples = clip_of(name)
    predicted = attnviz.explain(made.pipe, samples, PROMPT, latents="predicted", timesteps=(300,), look_timestep=1)
    assert predicted.provenance["look_timestep"] == 1
    if name == "stable-audio":  # the logarithm of its noise level
        with pytest.raises(CaptureError, match="timestep 0 has no noise"):
            attnviz.explain(made.pipe, samples, PROMPT, latents="inversion", timesteps=(100,))
        return
    inverted = attnviz.explain(
        made.pipe, samples, PROMPT, latents="inversion", timesteps=(500, 250), inversion_steps=4, keep=("step",)
    )
    assert inverted[inverted.layers[0]].sizes["step"] == 2


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_is_in_one_block_and_comes_back(family_pipe, name):
    made = family_pipe(name)
    family = family_of(made.pipe)
    blocks = cascade(made.denoiser, family)
    assert blocks[0] in ("conv_out", "output")
    assert blocks[-1] in ("conv_in", "input")
    assert len(blocks) > 3
    before = {key: value.clone() for key, value in made.denoiser.state_dict().items()}
    how = {"timesteps": (100,), "draws": 1}
    plain, shuffled = (
        attnviz.explain(made.pipe, clip_of(name), PROMPT, randomize=randomize, **how)
        for randomize in (0, blocks[-1])
    )
    assert not np.allclose(plain.activation("Rain"), shuffled.activation("Rain"), equal_nan=True)
    assert shuffled.provenance["randomized"]["blocks"] == blocks
    after = made.denoiser.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


# Refused ------------------------------------------------------------------------------------------------


def test_what_cannot_be_explained_says_why(family_pipe, tmp_path):
    made = family_pipe("longcat-audio-dit")
    samples = clip_of(made.name)
    family = family_of(made.pipe)

    def refused(kind, match, audio=samples, caption=PROMPT, pipe=made.pipe, **settings):
        with pytest.raises(kind, match=match):
            attnviz.explain(pipe, audio, caption, **settings)

    refused(PromptError, "is empty", caption="  ")
    refused(PromptError, "not a string", caption=["a dog"])
    refused(CaptureError, r"no audio=AudioEncoding", family=dataclasses.replace(family, audio=None))
    refused(CaptureError, "no seconds=Seconds", family=dataclasses.replace(family, seconds=None))
    refused(CaptureError, "no unet", family=family_of(family_pipe("audioldm2").pipe))
    refused(AudioError, "one latent", audio=samples[:1])
    refused(AudioError, "does not exist", audio=tmp_path / "nosuch.wav")
    refused(CaptureError, "0 .least noise. to 999", timesteps=(1000,))
    refused(CaptureError, "nor the last block's name: output, blocks.1, blocks.0, input", randomize="conv_out")
    refused(CaptureError, "no block is randomised", randomize_seed=1)
    with attnviz.trace(made.pipe):
        refused(CaptureError, "being traced already")
    vae = made.pipe.vae
    made.pipe.vae = None
    try:
        refused(CaptureError, "no vae, so it cannot encode")
    finally:
        made.pipe.vae = vae
    with pytest.warns(InaudibleWarning):
        attnviz.explain(made.pipe, np.zeros_like(samples), PROMPT, timesteps=(100,), draws=1)


def test_nothing_is_left_behind_by_an_error_in_the_pipeline(family_pipe):
    made = family_pipe("stable-audio-3")
    scheduler, kind = made.pipe.scheduler, type(made.pipe)

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    made.pipe.encode_duration = stop
    try:
        with pytest.raises(KeyboardInterrupt):
            attnviz.explain(made.pipe, clip_of(made.name), PROMPT)
    finally:
        del made.pipe.encode_duration
    assert made.pipe.scheduler is scheduler
    assert type(made.pipe) is kind
    assert "forward" not in vars(made.denoiser)
