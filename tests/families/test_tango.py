"""Tango and TangoFlux in their published code: planted pulses, the formula restated, nothing changed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from published_families import Tango, TangoFluxInference

import attnviz
from attnviz.audio import MelConfig, log_mel, peak_normalize
from attnviz.diffusion.noising import draw_noise
from attnviz.errors import AttnVizError, CaptureError
from attnviz.models.families import Segment, family_of

PROMPT = "a Dog barks, then Rain falls"
WORDS = ("Dog", "Rain")


@pytest.fixture(scope="module")
def tango():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Tango()


@pytest.fixture(scope="module")
def flux():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TangoFluxInference()


@pytest.fixture(params=["tango", "flux"])
def made(request):
    return request.getfixturevalue(request.param)


def keys_of(model, word):
    offsets = model.tokenizer(PROMPT, return_offsets_mapping=True)["offset_mapping"]
    start = PROMPT.index(word)
    return [i for i, (a, b) in enumerate(offsets) if a < start + len(word) and b > start and b > a]


@pytest.mark.parametrize("guidance", [1, 3])
def test_output_is_bit_identical_and_everything_is_restored(made, guidance):
    plain = made(PROMPT, guidance)
    slots = {p: id(m.processor) for p, m in made.model.named_modules() if hasattr(m, "processor")}
    with attnviz.trace(made) as trace:
        traced = made(PROMPT, guidance)
    assert torch.equal(plain, traced)
    assert {p: id(m.processor) for p, m in made.model.named_modules() if hasattr(m, "processor")} == slots
    assert not {"inference", "inference_flow", "encode_text", "encode_text_classifier_free"} & set(
        vars(made.model)
    )
    assert trace.maps.complete
    assert len(trace.maps.timesteps) == 2
    assert trace.maps.tokens[0].kept_words == ["a", "Dog", "barks", "then", "Rain", "falls"]


def test_axes_of_tango(tango):
    with attnviz.trace(tango.model) as trace:
        tango(["a dog barks", "rain falls and a clock ticks"])
    heat = trace.maps.heatmap("rain", prompt_index=1)
    assert dict(heat.sizes) == {"freq": 16, "time": 64}
    np.testing.assert_allclose(heat.time, (np.arange(64) + 0.5) * 0.04)


def test_axes_of_tango_flux(flux):
    with attnviz.trace(flux.model, tokens="all") as trace:
        flux(PROMPT)
    curve = trace.maps.activation("Rain")
    np.testing.assert_allclose(curve.time, (np.arange(33) + 0.5) * 2048 / 44100)
    assert np.isnan(curve[curve.time > 1.0]).all()  # the asked duration
    assert trace.maps.layers == [
        "transformer_blocks.0",
        "single_transformer_blocks.0",
        "single_transformer_blocks.1",
    ]
    assert trace.maps.tokens[0].rows["kind"].tolist()[-2:] == ["end", "duration"]


# Planted pulses ------------------------------------------------------------------------------------------


def stands_out(array):
    heard = np.nan_to_num(array.to_numpy(), nan=-1.0)
    values = np.sort(heard.ravel())
    assert values[-1] > 2.5 * max(values[-2], 1e-6)
    return int(heard.argmax())


def generated(published, family):
    """Return the maps of a generation."""
    with attnviz.trace(published.model, family=family) as trace:
        published(PROMPT)
    return trace.maps


def read_tango(tango, family=None, maps_of=generated):
    """The dog late in the lowest band, the rain early in the highest, at the level that has 64 x 16 cells."""
    model, handles, at = tango.model, [], {}
    keys = [keys_of(model, word) for word in WORDS]
    for path, module in model.unet.named_modules():
        if not path.endswith(".attn2"):
            continue
        at[path] = []

        def query(module, args, output, path=path):
            bands = {1024: 16, 256: 8}[output.shape[1]]
            times = output.shape[1] // bands
            at[path] = [(times - 3, 0), (2, bands - 1)]
            planted = torch.zeros_like(output)
            for unit, (time, band) in enumerate(at[path]):
                planted[-1, time * bands + band, unit :: output.shape[-1] // module.heads] = 10.0
            return planted

        def key(module, args, output):
            planted = torch.zeros_like(output)
            for unit, each in enumerate(keys):
                planted[:, each, unit :: output.shape[-1] // module.heads] = 10.0
            return planted

        def heads_of(hook, attention):
            return lambda _, args, output: hook(attention, args, output)

        handles += [
            module.to_q.register_forward_hook(heads_of(query, module)),
            module.to_k.register_forward_hook(heads_of(key, module)),
        ]
    try:
        maps = maps_of(tango, family)
    finally:
        for handle in handles:
            handle.remove()
    for layer in maps.layers:
        found = next(each for path, each in at.items() if path.startswith(f"{layer}."))
        for word, (time, band) in zip(WORDS, found, strict=True):
            heat = maps.heatmap(word, readout=layer)
            assert divmod(stands_out(heat), heat.sizes["time"]) == (band, time)
            assert float(heat.time[time]) == pytest.approx((time + 0.5) * 2.56 / heat.sizes["time"])


def test_a_planted_pulse_of_tango(tango):
    read_tango(tango)


@pytest.mark.parametrize("what", ["transposed", "upside down", "flipped guidance"])
def test_the_pulse_of_tango_fails_where_the_family_is_wrong(tango, what):
    family = family_of(tango.model)
    wrong = {
        "transposed": {"queries": dataclasses.replace(family.queries, order=("freq", "time"))},
        "upside down": {"queries": dataclasses.replace(family.queries, first_row="highest")},
        "flipped guidance": {"guidance": ("conditional", "unconditional")},
    }
    with pytest.raises((AssertionError, AttnVizError)):
        read_tango(tango, dataclasses.replace(family, **wrong[what]))


def read_flux(flux, family=None, maps_of=generated):
    """Two columns of audio: joint blocks have projections of the text of their own, single blocks have not."""
    model, handles, columns = flux.model, [], (4, 17)
    keys = [keys_of(model, word) for word in WORDS]
    before = len(model.tokenizer(PROMPT)["input_ids"]) + 1  # the text and the duration
    units = (14, 15)  # the slowest pair of the rotary embedding; text stands at place 0, audio at its column

    def planted(module, output, places, rows):
        made = torch.zeros_like(output)
        for unit, each in zip(units, places, strict=True):
            for row in range(len(made)) if rows == "all" else rows:
                made[row, each, unit::16] = 10.0
        return made

    def hook(places, rows):
        return lambda module, args, output: planted(module, output, places, rows)

    nothing = ([], [])
    for path, module in model.transformer.named_modules():
        if path.endswith(".attn") and path.startswith("transformer_blocks"):
            handles += [
                module.to_q.register_forward_hook(hook([[c] for c in columns], [-1])),
                module.add_q_proj.register_forward_hook(hook(nothing, "all")),
                module.to_k.register_forward_hook(hook(nothing, "all")),
                module.add_k_proj.register_forward_hook(hook(keys, "all")),
            ]
        elif path.endswith(".attn"):
            handles += [
                module.to_q.register_forward_hook(hook([[before + c] for c in columns], [-1])),
                module.to_k.register_forward_hook(hook(keys, "all")),
            ]
    try:
        maps = maps_of(flux, family)
    finally:
        for handle in handles:
            handle.remove()
    for layer in maps.layers:
        for word, column in zip(WORDS, columns, strict=True):
            curve = maps.activation(word, readout=layer)
            assert stands_out(curve) == column
            assert float(curve.time[column]) == pytest.approx((column + 0.5) * 2048 / 44100)


def test_a_planted_pulse_of_tango_flux(flux):
    read_flux(flux)


@pytest.mark.parametrize("what", ["an uncut prefix", "a duration taken for a word", "flipped guidance"])
def test_the_pulse_of_tango_flux_fails_where_the_family_is_wrong(flux, what):
    family = family_of(flux.model)
    wrong = {
        "an uncut prefix": {"queries": dataclasses.replace(family.queries, prefix=0)},
        "a duration taken for a word": {"keys": (Segment("duration", 1), Segment("text"))},
        "flipped guidance": {"guidance": ("conditional", "unconditional")},
    }
    with pytest.raises((AssertionError, AttnVizError)):
        read_flux(flux, dataclasses.replace(family, **wrong[what]))


# Oracles -------------------------------------------------------------------------------------------------


def test_maps_of_tango_equal_the_formula(tango):
    seen = {}

    def see(path):
        def hook(module, args, kwargs):
            seen.setdefault(path, []).append(
                (module, args[0], kwargs["encoder_hidden_states"], kwargs["attention_mask"])
            )

        return hook

    handles = [
        module.register_forward_pre_hook(see(path), with_kwargs=True)
        for path, module in tango.model.unet.named_modules()
        if path.endswith(".attn2")
    ]
    with attnviz.trace(tango, keep=("step", "head"), tokens="all") as trace:
        tango(["a dog", PROMPT])
    for handle in handles:
        handle.remove()
    for layer in trace.maps.layers:
        path = next(path for path in seen if path.startswith(f"{layer}."))
        for step, (module, x, context, mask) in enumerate(seen[path]):
            with torch.no_grad():
                query = module.to_q(x[2:]).unflatten(-1, (module.heads, -1))
                key = module.to_k(context[2:]).unflatten(-1, (module.heads, -1))
            scores = torch.einsum("rqhd,rkhd->rhqk", query, key) / query.shape[-1] ** 0.5
            expected = (scores + mask[2:, None]).softmax(-1)
            ours = trace.maps[layer].isel(image=0, step=step).transpose("prompt", "head", "time", "freq", "token")
            ours = ours.to_numpy().reshape(expected.shape)
            np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=2e-6)
            padding = trace.maps.tokens[0].rows.query("kind == 'padding'")["position"].tolist()
            assert padding and float(ours[0][..., padding].max()) == 0.0


def turned(x, places):
    """Flux's rotary positions: neighbouring numbers are one complex number, in groups of 4, 6 and 6."""
    angles = [
        places.double()[:, None] * 10000 ** (-torch.arange(0, width, 2).double() / width) for width in (4, 6, 6)
    ]
    angle = torch.cat(angles, dim=1)[:, None]
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)


def test_maps_of_tango_flux_equal_the_formula(flux):
    seen = {}

    def see(path):
        def hook(module, args, kwargs):
            seen.setdefault(path, []).append(
                (module, kwargs["hidden_states"], kwargs.get("encoder_hidden_states"))
            )

        return hook

    transformer = flux.model.transformer
    handles = [
        module.register_forward_pre_hook(see(path), with_kwargs=True)
        for path, module in transformer.named_modules()
        if path.endswith(".attn")
    ]
    with attnviz.trace(flux, keep=("step", "head"), tokens="all") as trace:
        flux(PROMPT)
    for handle in handles:
        handle.remove()
    before = len(flux.model.tokenizer(PROMPT)["input_ids"]) + 1
    places = torch.cat([torch.zeros(before), torch.arange(33)])

    def normed(x, norm):
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight

    for layer in trace.maps.layers:
        for step, (module, x, text) in enumerate(seen[f"{layer}.attn"]):
            with torch.no_grad():
                query, key = (
                    normed(project(x[1]).unflatten(-1, (2, 16)), norm)
                    for project, norm in ((module.to_q, module.norm_q), (module.to_k, module.norm_k))
                )
                if text is not None:
                    ways = (
                        (module.add_q_proj, module.norm_added_q, query),
                        (module.add_k_proj, module.norm_added_k, key),
                    )
                    query, key = (
                        torch.cat([normed(project(text[1]).unflatten(-1, (2, 16)), norm), audio])
                        for project, norm, audio in ways
                    )
            scores = torch.einsum("qhd,khd->hqk", turned(query, places), turned(key, places)) / 4
            expected = scores.softmax(-1)[:, before:, :before]
            ours = trace.maps[layer].isel(prompt=0, image=0, step=step).transpose("head", "time", "token")
            np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=2e-6)


# Of a clip ----------------------------------------------------------------------------------------------


CLIPS = {"Tango": (16_000, 2.56), "TangoFluxInference": (44_100, 1.5)}


def clip_of(published):
    rate, seconds = CLIPS[type(published).__name__]
    return np.random.default_rng(0).standard_normal(round(rate * seconds)).astype(np.float32) * 0.1


def explained(published, family=None, **changes):
    how = {"timesteps": (300,), "draws": 1, "family": family}
    return attnviz.explain(published, clip_of(published), PROMPT, **{**how, **changes})


def test_planted_pulses_are_read_in_a_clip(tango, flux):
    read_tango(tango, maps_of=explained)
    read_flux(flux, maps_of=explained)


@torch.no_grad()
def test_calls_are_those_of_the_published_code(made):
    """With two draws: the clip's latents, noised, and every other argument as the model passes it."""
    flux = isinstance(made, TangoFluxInference)
    denoiser = made.model.transformer if flux else made.model.unet
    calls = []
    handle = denoiser.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    try:
        if flux:
            made.model.inference_flow(PROMPT, 2, 1, duration=1.5)
        else:
            made.model.inference([PROMPT], made.scheduler, 2, 1)
        (_, theirs), *_ = calls
        explained(made, timesteps=(700,), draws=2, seed=1)
    finally:
        handle.remove()
    positional, ours = calls[-1]
    if positional:
        ours = {"sample": positional[0], "timestep": positional[1], **ours}
    for name, value in theirs.items():
        if name not in ("hidden_states", "timestep") and isinstance(value, torch.Tensor):
            wanted = value if name.endswith("_ids") else value.repeat_interleave(2, dim=0)
            torch.testing.assert_close(ours[name], wanted, rtol=1e-5, atol=1e-6)
    wave = torch.from_numpy(clip_of(made))
    if flux:
        whole = torch.nn.functional.pad(wave.expand(1, 2, -1), (0, 33 * 2048 - len(wave)))
        latents = made.vae.encode(whole).latent_dist.mean.transpose(1, 2)
        noised = 0.3 * latents + 0.7 * draw_noise(latents, 700, 2, 1)
        torch.testing.assert_close(ours["timestep"], torch.tensor([0.7]))
        torch.testing.assert_close(ours["hidden_states"], noised, rtol=1e-4, atol=1e-4)
        return
    mel = log_mel(peak_normalize(wave.numpy(), 0.5), MelConfig(16_000, 1024, 1024, 160, 64))
    latents = made.vae.convolution(torch.from_numpy(mel.T)[None, None])[:, :8] * 0.75
    kept = float(made.scheduler.alphas_cumprod[700])
    noised = kept**0.5 * latents + (1 - kept) ** 0.5 * draw_noise(latents, 700, 2, 1)
    torch.testing.assert_close(ours["sample"], noised, rtol=1e-4, atol=1e-4)
    assert int(ours["timestep"]) == 700


def test_axes_of_a_clip(made):
    maps = explained(made, keep=("step",), timesteps=(100, 500))
    rate, seconds = CLIPS[type(made).__name__]
    assert maps.grid.sampling_rate == rate
    assert maps.grid.audio_seconds == pytest.approx(seconds, abs=0.05)
    assert (maps.spectrogram is not None) == (rate == 16_000)
    assert maps.timesteps == [100, 500]


def test_a_longer_clip_is_read_in_windows(tango):
    """Of 2.56 s, since this narrow model has a quarter of the published columns."""
    long = np.tile(clip_of(tango), 2)
    maps = attnviz.explain(tango, long, PROMPT, timesteps=(300,), draws=1, overlap=0.0)
    assert maps.provenance["windows"] == [0.0, 2.56]
    assert maps.grid.seconds == pytest.approx(5.12)


def test_a_model_without_its_auto_encoder_is_refused(made):
    with pytest.raises(CaptureError, match=r"has no vae.*another object \(Tango, TangoFluxInference\)"):
        attnviz.explain(made.model, clip_of(made), PROMPT)


def test_a_wrapper_without_its_model_is_told(flux):
    class Other:
        pass

    with pytest.raises(CaptureError, match="Other cannot be traced"):
        attnviz.trace(Other())
