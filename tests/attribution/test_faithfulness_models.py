"""Faithfulness on a tiny pipeline: against predictions made one by one, for every method, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attribution_small import COARSE, noise_bursts, state_of, tiny_pipeline

import attnviz
from attnviz.attribution import (
    METHODS,
    Attention,
    Attribution,
    CellAblation,
    HeadAblation,
    HeardWord,
    WordAblation,
    deletion_insertion,
    infidelity,
    sensitivity_max,
    weight_randomization,
)
from attnviz.attribution.texts import Texts
from attnviz.capture import is_traced
from attnviz.diffusion.clip import encode, read_clip
from attnviz.diffusion.noising import draw_noise
from attnviz.diffusion.schedule import TrainingSchedule
from attnviz.errors import ArgumentError, CaptureError, MapsError, PromptError

CAPTION = "a dog barks"
CLIP = noise_bursts()
LOOK = {"timesteps": (200,), "draws": 1}
FEW = {
    "heard": {"num_inference_steps": 1},
    "gradient_shap": {"n_samples": 1},
    "integrated_gradients": {"n_steps": 1},
}


@pytest.fixture(scope="module")
def pipe(adapter_checkpoint):
    return tiny_pipeline(adapter_checkpoint, COARSE)


@pytest.fixture(scope="module")
def words(pipe):
    return WordAblation(pipe, CLIP, CAPTION, **LOOK)


@pytest.fixture(scope="module")
def by_head(pipe):
    return attnviz.explain(pipe, CLIP, CAPTION, keep=("head",), **LOOK)


@pytest.fixture(scope="module")
def view(pipe):
    """The noised latents of a look, and the texts."""
    clip = read_clip(CLIP, normalize=True, overlap=2.56, column=64)
    latents = encode(pipe, clip.windows[0])
    samples = TrainingSchedule.of(pipe.scheduler).noised(latents, draw_noise(latents, 200, 1, 0), 200)
    states, _ = pipe.encode_prompt(CAPTION, "cpu", 1, False)
    return samples, Texts.of(pipe, pipe.conditioner.token_table(CAPTION), states)


@torch.no_grad()
def predicted(pipe, view, text):
    samples, texts = view
    return texts.predict(samples, 200, pipe.encode_prompt(text, "cpu", 1, False)[0] if text else texts.null)


def cells(difference, columns=128):
    """Energy in each cell that has audio."""
    inside = (np.arange(columns) + 0.5) / columns <= 3.0 / 10.24
    return difference.square().sum(1)[0].numpy()[:, inside]


# Words ------------------------------------------------------------------------------------------------


def test_the_targets_of_words_vs_predictions_one_by_one(pipe, words, view):
    assert words.players == ("a", "dog", "barks")
    whole, null, some = (predicted(pipe, view, text) for text in (CAPTION, "", "a barks"))
    values = words([{0, 1, 2}, set(), {0, 2}])
    np.testing.assert_allclose(values[:2], [1, 0], atol=1e-6)
    assert float(values[2]) == pytest.approx(cells(some - null).sum() / cells(whole - null).sum(), rel=1e-3)
    change = words.with_target("change")([{0, 1, 2}, set(), {0, 2}])
    np.testing.assert_allclose(change[:2], [1, 0], atol=1e-6)
    literal = 1 - cells(some - whole).sum() / cells(whole - null).sum()
    assert float(change[2]) == pytest.approx(literal, abs=1e-3)


def test_a_caption_of_one_word_is_there_or_not(pipe):
    found = deletion_insertion(WordAblation(pipe, CLIP, "dog", **LOOK), [0.5])
    np.testing.assert_allclose(found.deletion.values, [1, 0], atol=1e-6)
    assert found.deletion.area == found.insertion.area == pytest.approx(0.5)


def test_an_event_counts_its_cells_alone(pipe, view):
    event = (0.5, 1.5, 500.0, 4000.0)
    found = WordAblation(pipe, CLIP, CAPTION, event=event, **LOOK)([{0, 2}])
    grid = attnviz.explain(pipe, CLIP, CAPTION, method="leave_one_out", **LOOK)["prediction"]
    inside = (grid.time >= 0.5) & (grid.time < 1.5) & (grid.freq >= 500) & (grid.freq <= 4000)
    inside = inside.transpose("freq", "time").to_numpy()
    whole, null, some = (predicted(pipe, view, text) for text in (CAPTION, "", "a barks"))
    energies = [(one - null).square().sum(1)[0].numpy()[::-1][inside].sum() for one in (some, whole)]
    assert float(found) == pytest.approx(energies[0] / energies[1], rel=1e-3)


def test_each_set_of_words_is_predicted_once(pipe, words, monkeypatch):
    words([{0}, {1}, {0, 1}])
    monkeypatch.setattr(pipe.unet, "forward", None)
    assert words([{0, 1}, {1}]).shape == words.with_target("change")([{1}, {0}]).shape == (2,)


def test_every_method_has_curves_and_the_score_is_the_mean_map(pipe, words):
    shares = attnviz.explain(pipe, CLIP, CAPTION, method="shapley", **LOOK)
    scores = words.scores(shares)
    heat = shares.heatmap("dog")
    assert scores[1] == pytest.approx(float(heat.where(~heat.padding).mean()))
    found = deletion_insertion(words, scores)
    assert found.order[0] == words.players[int(scores.argmax())]
    assert found.deletion.values[0] == found.insertion.values[-1] == pytest.approx(1)
    # Shapley values of this very game sum to the target, so they fit better than scores that say nothing.
    assert infidelity(words, scores) < infidelity(words, np.zeros(3))


def test_the_same_words_of_a_deaf_model_change_nothing(adapter_checkpoint):
    pipe = tiny_pipeline(adapter_checkpoint, COARSE)
    for name, parameter in pipe.unet.named_parameters():
        if "attn2.to_v" in name:
            parameter.data.zero_()
    before = state_of(pipe)
    words = WordAblation(pipe, CLIP, CAPTION, **LOOK)
    assert words([{0, 1, 2}, {0}, set()]).abs().max() == 0
    assert infidelity(words, [1.0, 2.0, 3.0]) == 0
    heads = HeadAblation(pipe, CLIP, CAPTION, "dog", **LOOK)
    assert (heads([set(), {0}]) == 1).all()
    assert state_of(pipe) == before


# Heads ------------------------------------------------------------------------------------------------


class Written:
    """Cross-attention written out, with the attention to some keys multiplied in one head of one layer."""

    def __init__(self, keys, head):
        self.keys, self.head = keys, head

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        q, k, v = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        q, k, v = (each.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for each in (q, k, v))
        p = (q @ k.transpose(-1, -2) * attn.scale).softmax(-1)
        p[:, self.head, :, self.keys] *= 0.25
        return attn.to_out[0]((p @ v).transpose(1, 2).flatten(-2))


def test_a_weakened_head_vs_attention_written_out(pipe, view):
    heads = HeadAblation(pipe, CLIP, CAPTION, "dog", factor=0.25, **LOOK)
    _, texts = view
    count = len(heads.players)
    found = heads([set(range(count)), set(), set(range(count)) - {1}])
    np.testing.assert_allclose(found[:2], [1, 0], atol=1e-6)
    assert heads.players[1].endswith("head 1")
    path = next(name for name in pipe.unet.attn_processors if "attn2" in name)
    assert path.startswith(heads.players[1].partition(",")[0])
    keys = texts.tokens.find("dog").tolist()
    before = dict(pipe.unet.attn_processors)
    whole = predicted(pipe, view, CAPTION)

    def changed(written):
        try:
            pipe.unet.set_attn_processor({**before, **written})
            return cells(predicted(pipe, view, CAPTION) - whole).sum()
        finally:
            pipe.unet.set_attn_processor(dict(before))

    one = changed({path: Written(keys, 1)})
    everything = changed({name: Written(keys, slice(None)) for name in before if "attn2" in name})
    assert 0 < one < everything
    assert float(found[2]) == pytest.approx(1 - one / everything, abs=1e-3)


def test_heads_are_scored_by_their_maps_and_nothing_is_left(pipe, by_head):
    before = state_of(pipe)
    heads = HeadAblation(pipe, CLIP, CAPTION, "dog barks", **LOOK)
    scores = heads.scores(by_head)
    assert scores.shape == (len(heads.players),)
    layer = by_head[heads.players[0].partition(",")[0]].isel(prompt=0, image=0, head=0)
    tokens = np.isin(by_head.positions, by_head.tokens[0].find("dog barks"))
    assert scores[0] == pytest.approx(float(layer.isel(token=tokens).where(~layer.padding).mean()), rel=1e-5)
    found = deletion_insertion(heads, scores, fractions=(0, 0.5, 1))
    assert found.deletion.values[0] == pytest.approx(1)
    assert not is_traced(pipe.unet)
    assert state_of(pipe) == before
    with pytest.raises(MapsError, match="keep=\\('head',\\)"):
        heads.scores(attnviz.explain(pipe, CLIP, CAPTION, **LOOK))


# Cells ------------------------------------------------------------------------------------------------


@pytest.fixture
def loudness(monkeypatch):
    """A listener to whom the size of the latents is the sound, in every frame."""

    def heard(going, latents, sounds):
        return np.full((len(sounds), 256), float(latents.abs().mean()))

    monkeypatch.setattr("attnviz.attribution.continuing.Continuing.heard", heard)


@torch.no_grad()
def test_local_guidance_vs_one_step_written_out(pipe, view, loudness):
    """From timestep 200 in one step to 0: two predictions of each text, and the clean latents of the last."""
    setting = {"timestep": 200, "num_inference_steps": 1, "guidance_scale": 3.0}
    game = CellAblation(pipe, CLIP, CAPTION, "dog", **setting)
    assert game.sound == "Dog bark"
    rows, columns = 32, 128
    assert len(game.players) == rows * columns
    assert game.players[columns + 2] == "row 1, column 2"
    kept = [row * columns + column for row in range(8) for column in range(columns)]  # the lowest frequencies
    everywhere, nowhere, low = game([range(rows * columns), [], kept]).tolist()
    samples, texts = view
    schedule = TrainingSchedule.of(pipe.scheduler)
    ddim = schedule.sampler()
    ddim.set_timesteps(5)  # steps of 200

    def literal(mask):
        latents = samples
        for at in (200, 0):
            null = texts.predict(latents, at, texts.null)
            guided = null + 3.0 * mask * (texts.predict(latents, at, texts.caption) - null)
            step = ddim.step(guided, at, latents)
            latents = step.prev_sample if at else step.pred_original_sample
        return float(latents.abs().mean())

    mask = torch.zeros(rows, columns)
    assert everywhere == pytest.approx(literal(mask + 1), rel=1e-4)
    assert nowhere == pytest.approx(literal(mask), rel=1e-4)
    mask[-8:] = 1  # latents have the highest frequency first
    assert low == pytest.approx(literal(mask), rel=1e-4)
    assert len({round(each, 6) for each in (everywhere, nowhere, low)}) == 3


def test_cells_are_ranked_by_maps_by_energy_and_by_smooth_noise(pipe, loudness):
    game = CellAblation(pipe, CLIP, CAPTION, "dog", timestep=200, num_inference_steps=1)
    maps = attnviz.explain(pipe, CLIP, CAPTION, method="leave_one_out", **LOOK)
    scores = game.scores(maps).reshape(32, 128)
    heat = maps.heatmap("dog")
    heard = ~heat.padding.to_numpy()
    np.testing.assert_allclose(scores[:, heard], heat.to_numpy()[:, heard], rtol=1e-5)
    assert scores[:, ~heard].max() < scores[:, heard].min()
    energy = game.energy_scores().reshape(32, 128)
    loud = energy[:, heard].mean(0)
    seconds = heat.time.to_numpy()[heard]
    assert loud[(seconds > 0.6) & (seconds < 0.9)].min() > 10 * loud[seconds > 1.3].max()
    one, other = (game.random_scores(np.random.default_rng(seed)).reshape(32, 128) for seed in (0, 1))
    assert np.corrcoef(one[:-1, heard].ravel(), one[1:, heard].ravel())[0, 1] > 0.5
    assert abs(np.corrcoef(one[:, heard].ravel(), other[:, heard].ravel())[0, 1]) < 0.5


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"phrase": "violin"}, PromptError, "'violin' is not in the prompt"),
        ({"caption": "a violin plays", "phrase": "violin"}, CaptureError, "names none of its sounds"),
        ({"caption": "a dog barks then rain falls", "phrase": "then"}, CaptureError, "'then' names 2 sounds"),
        ({"num_inference_steps": 0}, CaptureError, "num_inference_steps"),
        ({"guidance_scale": np.nan}, CaptureError, "guidance_scale"),
        ({"timestep": 5000}, CaptureError, "timesteps contains 5000"),
        ({"audio": noise_bursts(12.0)}, CaptureError, "lasts 12.00 s"),
    ],
)
def test_what_cannot_be_heard_is_refused(pipe, given, error, message):
    with pytest.raises(error, match=message):
        CellAblation(pipe, **{"audio": CLIP, "caption": CAPTION, "phrase": "dog", **given})


# Methods ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::attnviz.errors.CompletenessWarning")
@pytest.mark.parametrize("name", METHODS)
def test_randomised_weights_of_every_method(pipe, name, monkeypatch):
    monkeypatch.setattr("attnviz.attribution.gradients._MOST_STEPS", 1)
    before = state_of(pipe)
    method = METHODS[name](pipe, **FEW.get(name, {}))
    table = weight_randomization(method, CLIP, "dog", blocks=[len(attnviz.attribution.cascade(pipe.unet))], **LOOK)
    assert table.columns.tolist() == ["blocks", "last_block", "seed", "word", "pearson", "spearman"]
    assert table["word"].tolist() == ["dog"]
    assert table["last_block"].tolist() == ["conv_in"]
    if name != "heard":  # an untrained model makes nothing that is heard: both maps are constant
        assert -1 <= table["pearson"][0] < 0.95
        assert -1 <= table["spearman"][0] < 0.95
    assert state_of(pipe) == before


class Fixed(Attribution):
    """A method whose maps are given, one after the other."""

    def __init__(self, pipe, maps):
        super().__init__(pipe)
        object.__setattr__(self, "maps", iter(maps))

    def look(self, *args):
        raise NotImplementedError

    def attribute(self, audio, caption, **looks):
        return next(self.maps)


def test_sensitivity_and_correlations_of_known_maps(pipe):
    """Maps that do not change have a sensitivity of 0, and a correlation of 1 with themselves."""
    maps = attnviz.explain(pipe, CLIP, CAPTION, **LOOK)
    other = attnviz.explain(pipe, CLIP[::-1].copy(), CAPTION, **LOOK)
    assert sensitivity_max(Fixed(pipe, [maps] * 4), CLIP, CAPTION, n_perturb_samples=3) == 0
    found = sensitivity_max(Fixed(pipe, [maps, maps, other]), CLIP, CAPTION, n_perturb_samples=2)
    rows = [
        np.concatenate([heat.where(~heat.padding).to_numpy().ravel() for heat in map(of.heatmap, of.words)])
        for of in (maps, other)
    ]
    literal = np.sqrt(np.nansum((rows[0] - rows[1]) ** 2) / np.nansum(rows[0] ** 2))
    assert found == pytest.approx(literal, rel=1e-4)
    table = weight_randomization(Fixed(pipe, [maps, maps, other]), CLIP, CAPTION)
    assert table["blocks"].tolist() == [4, 4, 4, 8, 8, 8]
    np.testing.assert_allclose(table[["pearson", "spearman"]][:3], 1)
    heats = [of.heatmap("barks").to_numpy()[:, ~maps.heatmap("barks").padding.to_numpy()] for of in (maps, other)]
    literal = np.corrcoef(heats[0].ravel(), heats[1].ravel())[0, 1]
    assert table["pearson"].iloc[-1] == pytest.approx(literal)


def test_a_real_method_changes_little_with_the_clip(pipe):
    found = sensitivity_max(Attention(pipe), CLIP, CAPTION, n_perturb_samples=1, perturb_radius=1e-3, **LOOK)
    assert 0 < found < 0.5


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda pipe: WordAblation(pipe, CLIP, CAPTION, target="energy"), CaptureError, "target='energy'"),
        (lambda pipe: WordAblation(pipe, CLIP, CAPTION, removal="letters"), CaptureError, "removal='letters'"),
        (lambda pipe: WordAblation(pipe, CLIP, CAPTION, event=(7, 8)), CaptureError, "not inside the clip"),
        (lambda pipe: WordAblation(pipe, CLIP, CAPTION, event=(1.01, 1.011)), CaptureError, "covers no cell"),
        (lambda pipe: WordAblation(pipe, CLIP, ""), PromptError, "empty"),
        (lambda pipe: WordAblation("pipe", CLIP, CAPTION), CaptureError, "str cannot be asked about words"),
        (lambda pipe: HeadAblation(pipe, CLIP, CAPTION, "dog", factor=1), CaptureError, "weakens nothing"),
        (lambda pipe: HeadAblation(pipe, CLIP, CAPTION, "cat"), PromptError, "'cat' is not in the prompt"),
        (lambda pipe: sensitivity_max("attention", CLIP, CAPTION), ArgumentError, "Attention\\(pipe\\)"),
        (
            lambda pipe: sensitivity_max(Attention(pipe), CLIP, CAPTION, perturb_radius=0),
            ArgumentError,
            "perturb_radius",
        ),
        (
            lambda pipe: sensitivity_max(Attention(pipe), CLIP, CAPTION, randomize=3),
            ArgumentError,
            "randomize cannot be given",
        ),
        (lambda pipe: weight_randomization(Attention(pipe), CLIP, CAPTION, blocks=[0]), CaptureError, "from 1 to"),
        (lambda pipe: weight_randomization(Attention(pipe), CLIP, CAPTION, seeds=[]), CaptureError, "seeds"),
    ],
)
def test_what_cannot_be_measured_is_refused(pipe, call, error, message):
    with pytest.raises(error, match=message):
        call(pipe)


def test_maps_of_another_caption_and_words_that_are_not_there_are_refused(pipe, words):
    other = attnviz.explain(pipe, CLIP, "rain falls", **LOOK)
    with pytest.raises(MapsError, match="rain falls"):
        words.scores(other)
    with pytest.raises(CaptureError, match="7 is no index of the 3 words"):
        words([{7}])


def test_a_scheduler_without_a_prediction_is_refused(adapter_checkpoint):
    """Flow matching has no noise schedule of betas, from which a timestep's noise would follow."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    pipe = tiny_pipeline(adapter_checkpoint, COARSE)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    for call in (
        lambda: WordAblation(pipe, CLIP, CAPTION, **LOOK),
        lambda: attnviz.explain(pipe, CLIP, CAPTION, method="shapley", **LOOK),
        lambda: HeardWord(pipe).attribute(CLIP, CAPTION, **LOOK),
    ):
        with pytest.raises(CaptureError, match="has no alphas_cumprod and betas"):
            call()
