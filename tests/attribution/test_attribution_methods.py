"""Every method through `explain` on a tiny pipeline: axioms, maps that readers read, refusals."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from attribution_linear import linear_texts
from attribution_small import noise_bursts, state_of, tiny_pipeline

import attnviz
from attnviz.attribution import METHODS, Attribution, IntegratedGradients, LeaveOneOut, Shapley
from attnviz.attribution.heard import named_sounds
from attnviz.attribution.players import players_of
from attnviz.attribution.texts import Texts, energy
from attnviz.audio import SpectrogramGrid
from attnviz.capture.measures import MEASURES
from attnviz.diffusion.clip import encode, read_clip
from attnviz.diffusion.noising import draw_noise
from attnviz.diffusion.schedule import TrainingSchedule
from attnviz.errors import CaptureError, CompletenessWarning, MapsError, PromptError
from attnviz.io import choices
from attnviz.scenes import CLASSES

CAPTION = "a dog barks"
CLIP = noise_bursts()
LOOK = {"timesteps": (200,), "draws": 1}
NEEDING_GRADIENTS = ("gradient", "integrated_gradients", "gradient_shap")
FEW = {
    "heard": {"num_inference_steps": 1},
    "gradient_shap": {"n_samples": 1},
    "integrated_gradients": {"n_steps": 2},
}
BAR = 0.2
BY_CELL = ("integrated_gradients", "gradient_shap", "leave_one_out", "shapley")


@pytest.fixture(scope="module")
def pipe(adapter_checkpoint):
    return tiny_pipeline(adapter_checkpoint)


def explained(pipe, name, caption=CAPTION, **settings):
    return attnviz.explain(pipe, CLIP, caption, method=name, **LOOK, **{**FEW.get(name, {}), **settings})


@pytest.fixture(scope="module")
def maps(pipe):
    # One per cent takes sharp attention dozens of steps, as `test_attribution_oracles` shows with a cheaper model.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnviz.attribution.gradients.COMPLETE", BAR)
        return {name: explained(pipe, name) for name in METHODS}


@pytest.fixture(scope="module")
def view(pipe):
    """The noised latents that `explain` looks at, and the texts."""
    clip = read_clip(CLIP, normalize=True, overlap=2.56, column=64)
    latents = encode(pipe, clip.windows[0])
    samples = TrainingSchedule.of(pipe.scheduler).noised(latents, draw_noise(latents, 200, 1, 0), 200)
    states, _ = pipe.encode_prompt(CAPTION, "cpu", 1, False)
    return samples, Texts.of(pipe, pipe.conditioner.token_table(CAPTION), states)


def of_word(maps, word):
    """The map of a word with row 0 the highest frequency, as latents have it."""
    return maps.heatmap(word).to_numpy()[::-1]


@torch.no_grad()
def guidance(pipe, view, text):
    samples, texts = view
    states = pipe.encode_prompt(text, "cpu", 1, False)[0] if text else texts.null
    return (
        (texts.predict(samples, 200, states) - texts.predict(samples, 200, texts.null)).square().sum(1)[0].numpy()
    )


@pytest.mark.parametrize("name", METHODS)
def test_maps_are_read_as_all_maps_are(maps, name):
    of = maps[name]
    method = METHODS[name]
    assert of.content == {
        "method": name, "quantity": method.quantity, "signed": int(method.signed), "family": "stable-diffusion",
    }  # fmt: skip
    heat = of.heatmap("dog barks", grid="image")
    assert heat.shape == (256, 1024)
    assert heat.attrs["long_name"] == method.quantity
    assert name == "heard" or float(abs(heat).max()) > 0  # an untrained model makes nothing that is heard
    assert np.isfinite(of.activation("dog").dropna("time")).all()
    assert method.signed or float(heat.min()) >= 0
    assert of.provenance["attribution"]["method"] == name
    if name == "heard":
        assert of["prediction"].shape[-2:] == (1, 256)
    elif name in BY_CELL:
        assert of.layers == ["prediction"]
        assert of["prediction"].shape[-2:] == (32, 128)
        grid = SpectrogramGrid(audio_seconds=3.0)
        np.testing.assert_allclose(of["prediction"]["time"], grid.time(128))
    else:
        assert of.layers == maps["attention"].layers


def test_methods_differ(maps):
    seen = [name for name in METHODS if name != "heard"]
    curves = np.stack([maps[name].heatmap("dog", grid="image").to_numpy().ravel() for name in seen])
    assert (np.corrcoef(curves) > 0.9999).sum() == len(seen)


def test_shapley_sums_to_the_guidance_energy(pipe, maps, view):
    whole = guidance(pipe, view, CAPTION)
    total = sum(of_word(maps["shapley"], word) for word in ("a", "dog", "barks"))
    np.testing.assert_allclose(total, whole, atol=1e-5 * whole.max())
    record = maps["shapley"].provenance["attribution"]
    assert record["exact"]
    assert record["efficiency_error"] < 1e-5


def test_shapley_of_one_word_is_the_whole(pipe, view):
    of = attnviz.explain(pipe, CLIP, "dog", method="shapley", **LOOK)
    whole = guidance(pipe, view, "dog")
    np.testing.assert_allclose(of_word(of, "dog"), whole, atol=1e-5 * whole.max())


def test_with_keys_replaced_the_frame_has_the_rest_and_a_word_of_padding_nothing(pipe, view, monkeypatch):
    samples, texts = view
    dog = texts.tokens.find("dog")
    planted = texts.caption.clone()
    planted[0, dog] = texts.padding[dog]
    own = pipe.encode_prompt

    def encode_prompt(prompt, device=None, num_images_per_prompt=1, do_classifier_free_guidance=True):
        states, null = own(prompt, device, num_images_per_prompt, do_classifier_free_guidance)
        if prompt == CAPTION:
            states = planted.repeat(len(states), 1, 1)
        return states, null

    monkeypatch.setattr(pipe, "encode_prompt", encode_prompt)
    of = attnviz.explain(pipe, CLIP, CAPTION, method="shapley", removal="keys", **LOOK)
    with torch.no_grad():
        null = texts.predict(samples, 200, texts.null)
        whole = (texts.predict(samples, 200, planted) - null).square().sum(1)[0].numpy()
    total = sum(of_word(of, word) for word in ("a", "dog", "barks"))
    frame = of.token_heatmap("start").to_numpy()[::-1]
    np.testing.assert_allclose(total + frame, whole, atol=1e-5 * whole.max())
    assert abs(of_word(of, "dog")).max() < 1e-5 * whole.max()
    assert abs(of_word(of, "barks")).max() > 1e-3 * whole.max()
    left = attnviz.explain(pipe, CLIP, CAPTION, method="leave_one_out", removal="keys", **LOOK)
    assert abs(of_word(left, "dog")).max() < 1e-5 * whole.max()


@torch.no_grad()
def test_leave_one_out_vs_two_predictions(pipe, maps, view):
    samples, texts = view
    without, _ = pipe.encode_prompt("a barks", "cpu", 1, False)
    literal = texts.predict(samples, 200, texts.caption) - texts.predict(samples, 200, without)
    literal = literal.square().sum(1)[0].numpy()
    np.testing.assert_allclose(
        of_word(maps["leave_one_out"], "dog"), literal, rtol=1e-3, atol=1e-5 * literal.max()
    )


def test_a_phrase_is_left_out_as_a_whole(pipe, view):
    of = attnviz.explain(pipe, CLIP, CAPTION, method="leave_one_out", phrases=["dog barks"], **LOOK)
    assert of.provenance["attribution"]["players"] == ["a", "dog barks"]
    np.testing.assert_array_equal(of.heatmap("dog"), of.heatmap("dog barks"))
    np.testing.assert_array_equal(of.heatmap("barks"), of.heatmap("dog barks"))


def test_integrated_gradients_are_complete(pipe, maps, view):
    """Of all keys, as `test_attribution_oracles` checks; here, with the share of padding left out."""
    record = maps["integrated_gradients"].provenance["attribution"]
    assert record["completeness_error"] <= BAR
    assert len(record["n_steps"]) == len(record["convergence_delta"]) == 1
    whole = guidance(pipe, view, CAPTION)
    assert abs(record["convergence_delta"][0]) <= BAR * whole.sum()


def test_what_stays_incomplete_is_said(pipe, monkeypatch):
    monkeypatch.setattr("attnviz.attribution.gradients._MOST_STEPS", 2)
    with pytest.warns(CompletenessWarning, match="after 2 steps; 1% was wanted"):
        explained(pipe, "integrated_gradients", n_steps=1)


def test_batches_that_are_split_give_the_same(pipe, maps, monkeypatch):
    own, largest = pipe.unet.forward, 3

    def forward(sample, *args, **kwargs):
        if len(sample) > largest:
            raise torch.OutOfMemoryError("out of memory")
        return own(sample, *args, **kwargs)

    monkeypatch.setattr(pipe.unet, "forward", forward)
    for name in ("shapley", "gradient_shap"):
        of = explained(pipe, name)
        expected = maps[name].heatmap("dog").to_numpy()
        np.testing.assert_allclose(of.heatmap("dog"), expected, atol=2e-4 * abs(expected).max())


def test_an_event_keeps_its_cells_alone(pipe, maps):
    event = (0.5, 1.0, 500.0, 4000.0)
    of = attnviz.explain(pipe, CLIP, CAPTION, method="gradient_shap", event=event, n_samples=1, **LOOK)
    heat, whole = of.heatmap("dog"), maps["gradient_shap"].heatmap("dog")
    inside = (heat.time >= 0.5) & (heat.time < 1.0) & (heat.freq >= 500) & (heat.freq <= 4000)
    assert 0 < int(inside.sum()) < 200
    np.testing.assert_array_equal(heat, whole.where(inside, 0.0))
    of = attnviz.explain(pipe, CLIP, CAPTION, method="gradient", event=event, **LOOK)
    assert not np.allclose(of.heatmap("dog"), maps["gradient"].heatmap("dog"))


def test_the_listeners_logit_is_a_target_of_gradient(pipe, maps, view):
    """More attention to what is mapped raises the logit: the maps are of another target, and of its frames."""
    by_logit = attnviz.explain(pipe, CLIP, CAPTION, method="gradient", target="listener", **LOOK)
    early = attnviz.explain(pipe, CLIP, CAPTION, method="gradient", target="listener", event=(0.0, 1.0), **LOOK)
    heats = [of.heatmap("dog").to_numpy() for of in (maps["gradient"], by_logit, early)]
    assert all(heat.max() > 0 for heat in heats)
    assert max(abs(np.corrcoef([heat.ravel() for heat in heats])[np.triu_indices(3, 1)])) < 0.999
    with pytest.raises(CaptureError, match="names none of its sounds"):
        attnviz.explain(pipe, CLIP, "a violin", method="gradient", target="listener", **LOOK)


def test_gradient_vs_a_graph_through_explicit_probabilities(pipe, maps, view):
    """Attention written out, with the probabilities in the graph."""
    samples, texts = view
    kept = {}

    class Written(torch.nn.Module):
        def __init__(self, path):
            super().__init__()
            self.path = path

        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
            text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
            q, k, v = attn.to_q(hidden_states), attn.to_k(text), attn.to_v(text)
            q, k, v = (each.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for each in (q, k, v))
            p = (q @ k.transpose(-1, -2) * attn.scale).softmax(-1)
            if encoder_hidden_states is not None:
                kept[self.path] = p
            return attn.to_out[0]((p @ v).transpose(1, 2).flatten(-2))

    with torch.no_grad():
        null = texts.predict(samples, 200, texts.null)
    before = dict(pipe.unet.attn_processors)
    try:
        pipe.unet.set_attn_processor({name: Written(name) for name in before})
        states = texts.caption.clone().requires_grad_()
        target = energy((texts.predict(samples, 200, states) - null)[None]).sum()
        gradients = torch.autograd.grad(target, list(kept.values()))
    finally:
        pipe.unet.set_attn_processor(before)
    for (path, p), gradient in zip(kept.items(), gradients, strict=True):
        name = path.partition(".transformer_blocks")[0]
        layer = maps["gradient"][name]
        literal = (p * gradient).clamp(min=0).mean(1)[0].T[layer.token.to_numpy()].detach()
        literal = literal.unflatten(-1, layer.shape[-2:]).numpy()[:, ::-1]
        np.testing.assert_allclose(layer[0, 0], literal, atol=1e-4 * literal.max(), rtol=1e-3)


def test_classes_interchange_and_explain_takes_one(pipe, maps):
    method = LeaveOneOut(pipe)
    assert isinstance(method, Attribution)
    ours = method.attribute(CLIP, CAPTION, **LOOK)
    taken = attnviz.explain(pipe, CLIP, CAPTION, method=method, **LOOK)
    for of in (ours, taken):
        np.testing.assert_array_equal(of.heatmap("dog"), maps["leave_one_out"].heatmap("dog"))


def test_steps_are_kept_and_windows_are_joined(pipe):
    long = noise_bursts(13.0)
    of = attnviz.explain(
        pipe,
        long,
        CAPTION,
        method="leave_one_out",
        timesteps=(400, 50),
        draws=1,
        keep="step",
        phrases=["dog barks"],
    )
    assert of["prediction"].dims == ("prompt", "image", "step", "token", "freq", "time")
    assert of["prediction"].sizes["time"] > 128
    assert of.grid.seconds > 13
    assert float(abs(of["prediction"].isel(step=0) - of["prediction"].isel(step=1)).max()) > 0


@pytest.mark.parametrize("name", [name for name in METHODS if name != "integrated_gradients"])  # as gradient_shap
def test_nothing_is_left_changed(adapter_checkpoint, name):
    pipe = tiny_pipeline(adapter_checkpoint)
    before = state_of(pipe)
    explained(pipe, name, "dog")
    assert state_of(pipe) == before
    assert all(parameter.grad is None for parameter in pipe.unet.parameters())


@pytest.mark.parametrize("name", NEEDING_GRADIENTS)
def test_gradients_under_half_precision_are_refused(adapter_checkpoint, name):
    pipe = tiny_pipeline(adapter_checkpoint)
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(CaptureError, match="bfloat16.*torch_dtype=torch.float32"),
    ):
        attnviz.explain(pipe, CLIP, CAPTION, method=name, **LOOK)
    pipe.to(torch.bfloat16)
    with pytest.raises(CaptureError, match="not accurate in bfloat16"):
        attnviz.explain(pipe, CLIP, CAPTION, method=name, **LOOK)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"method": "lime"}, CaptureError, "lime.*attention, value, rollout, gradient"),
        ({"method": 3}, CaptureError, "method=3 is unknown"),
        ({"permutations": 8}, CaptureError, "permutations is no setting of explain or of method='attention'"),
        (
            {"method": "shapley", "n_steps": 8},
            CaptureError,
            "whose own are phrases, removal, perm",
        ),
        ({"method": "shapley", "permutations": 7}, CaptureError, "odd"),
        ({"method": "shapley", "removal": "letters"}, CaptureError, "removal='letters'"),
        ({"method": "shapley", "internal_batch_size": 0}, CaptureError, "internal_batch_size"),
        ({"method": "shapley", "phrases": ["cat"]}, PromptError, "'cat' is not in the prompt"),
        ({"method": "leave_one_out", "keep": ("head",)}, CaptureError, "only layers of attention have heads"),
        ({"method": "integrated_gradients", "target": "loudness"}, CaptureError, "target='loudness'"),
        ({"method": "integrated_gradients", "n_steps": 0}, CaptureError, "n_steps"),
        ({"method": "integrated_gradients", "event": (7.0, 8.0)}, CaptureError, "not inside the clip.* 3.00 s"),
        ({"method": "gradient", "event": (2.0, 1.0)}, CaptureError, "onset < offset"),
        ({"method": "gradient", "event": (0.0, 1.0, 9.0)}, CaptureError, "two or four finite numbers"),
        ({"method": "gradient", "event": 3}, CaptureError, "not \\(onset, offset\\)"),
        ({"method": "gradient_shap", "baselines": "rain"}, CaptureError, "not a sequence of texts"),
        ({"method": "gradient_shap", "stdevs": -1.0}, CaptureError, "stdevs"),
        ({"method": "rollout", "keep": ("head",)}, CaptureError, "averages over heads"),
    ],
)
def test_what_cannot_be_asked_is_refused(pipe, given, error, message):
    with pytest.raises(error, match=message):
        attnviz.explain(pipe, CLIP, CAPTION, **LOOK, **given)


def test_a_method_of_another_pipeline_is_refused(pipe):
    other = Shapley(linear_texts().pipe)
    with pytest.raises(CaptureError, match="another pipeline"):
        attnviz.explain(pipe, CLIP, CAPTION, method=other)
    with pytest.raises(CaptureError, match="belong to the method"):
        attnviz.explain(pipe, CLIP, CAPTION, method=IntegratedGradients(pipe), n_steps=2)


def test_readouts_of_layers_say_that_there_is_one(maps):
    with pytest.raises(MapsError, match="share of the guidance energy"):
        attnviz.diagnose(maps["shapley"])
    with pytest.raises(MapsError, match="one grid only"):
        maps["shapley"].heatmap("dog", readout="auffusion")


def test_players_of_a_real_table(pipe):
    assert [player.text for player in players_of(pipe.conditioner.token_table(CAPTION))] == ["a", "dog", "barks"]


# Heard ------------------------------------------------------------------------------------------------


def test_heard_is_the_listeners_probability_with_the_word_less_without(pipe, maps, view, monkeypatch):
    """The generation from the noisy clip, written out with diffusers' own DDIM; a planted listener."""
    listened = []

    def listen(audio):
        listened.append(audio)
        values = np.full((10, 256), float(len(audio) and np.abs(audio).mean()))
        return SimpleNamespace(probabilities=xr.DataArray(values, {"sound": list(CLASSES)}, ("sound", "time")))

    monkeypatch.setattr("attnviz.attribution.continuing.listen", listen)
    of = attnviz.explain(
        pipe,
        CLIP,
        CAPTION,
        method="heard",
        num_inference_steps=2,
        guidance_scale=3.0,
        phrases=["dog barks"],
        **LOOK,
    )
    assert of.provenance["attribution"]["sounds"] == ["Dog bark"]
    assert of["prediction"].shape[-2:] == (1, 256)
    samples, texts = view
    schedule = TrainingSchedule.of(pipe.scheduler)
    ddim = schedule.sampler()
    expected = []
    with torch.no_grad():
        for text in (CAPTION, "a"):
            states, latents = pipe.encode_prompt(text, "cpu", 1, False)[0], samples
            for at, after in ((200, 100), (100, 0), (0, None)):
                null = texts.predict(latents, at, texts.null)
                guided = null + 3.0 * (texts.predict(latents, at, states) - null)
                ddim.set_timesteps(10)  # steps of 100
                step = ddim.step(guided, at, latents)
                latents = step.pred_original_sample if after is None else step.prev_sample
            expected.append(np.abs(pipe.decode_audio(latents, 10.24).audios[0]).mean())
    assert len(listened) == 3  # with the caption, without "a", without "dog barks"
    np.testing.assert_allclose(np.abs(listened[0]).mean(), expected[0], rtol=1e-3)
    np.testing.assert_allclose(of.activation("dog barks")[:75], expected[0] - expected[1], rtol=0.02)


def test_heard_of_words_that_name_no_sound(pipe):
    players = players_of(pipe.conditioner.token_table("a dog barks, then rain falls"))
    sounds, named = named_sounds("a dog barks, then rain falls", players)
    assert sounds == ["Dog bark", "Rain"]
    assert named == [[0], [0], [0], [0, 1], [1], [1]]
    with pytest.raises(CaptureError, match="names none of its sounds"):
        named_sounds("a violin plays", players)


def test_names_that_need_no_library_are_the_methods():
    assert tuple(METHODS) == choices.METHODS
    assert tuple(MEASURES) == choices.RECORDED
