"""Edits with every family: what an edit equals, and where a planted one acts."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from families.conftest import CALLS
from families.editable import CODES, LATENTS, LOADED, NAMES, SITES, Editable, seeded
from families.kernel_spy import spied
from published_families import Tango, TangoFluxInference

import attnviz
from attnviz.capture.kernel import tap_depth
from attnviz.editing import LocalBlend, PromptEdit, apply_edit, reweight, swap
from attnviz.editing.alignment import key_map
from attnviz.editing.noise import shared_noise
from attnviz.errors import AttnVizError, AttnVizWarning, CaptureError, PromptError
from attnviz.models.families import family_of
from attnviz.models.pipelines import tango as tango_pipelines
from attnviz.models.pipelines.published import ModelWithProcessor
from attnviz.testing import write_family_checkpoint

SOURCE = "a dog barks, then rain falls"
EQUAL = "a cat barks, then wind falls"  # one token in place of one
REFINED = "a big dog barks loudly, then rain falls"
WHOLE = {"cross_replace_steps": 1.0, "self_replace_steps": 1.0}
ONES = "ignore:All weights of the edit are 1"


@pytest.fixture(scope="module")
def editable(family_pipe, models, tmp_path_factory):
    made = {}

    def loaded(name):
        pipe = attnviz.load(write_family_checkpoint(tmp_path_factory.mktemp("loaded") / name, LOADED[name]))
        pipe.set_progress_bar_config(disable=True)
        return SimpleNamespace(pipe=pipe)

    def load(name):
        if name not in made:
            if name in CODES:
                inner = models[name]
            elif name in CALLS:
                inner = family_pipe(name)
            elif name in LOADED:
                inner = loaded(name)
            else:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    inner = Tango() if name == "tango" else TangoFluxInference()
            made[name] = Editable(name, inner)
        return made[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tango_pipelines, "LATENT_FRAMES", 32)  # an eighth of the clip, for the time that tests take
        yield load


@pytest.fixture(params=NAMES)
def one(request, editable):
    return editable(request.param)


def plainly(one, source, target):
    """Both prompts from the same noise, with nothing injected."""
    nothing = {"cross_replace_steps": 0, "self_replace_steps": 0}
    with spied(one.sites) as seen:
        made, _ = one.swap(source, target, **nothing)
    for call in seen:
        expected = call.probabilities @ call.values
        torch.testing.assert_close(call.output.double(), expected, rtol=1e-4, atol=1e-5)
    return made


# Bit for bit ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings(ONES)
def test_an_edit_to_the_same_prompt_gives_the_source(one):
    same = {"weights": {"rain": 1.0}}
    plain = one.swap(SOURCE, SOURCE, **same, cross_replace_steps=0, self_replace_steps=0)[0]
    swapped = one.swap(SOURCE, SOURCE, **same, **WHOLE)[0]
    weighed = one.reweight(SOURCE, {"rain": 1.0, "dog": 1}, **WHOLE)[0]
    for source, edited in (swapped, weighed):
        assert torch.equal(source, plain[0])
        if torch.equal(plain[0], plain[1]):
            assert torch.equal(edited, source)
        else:  # two equal rows of a batch differ in the last bit, as those of 41 positions do
            assert one.name == "stable-audio"
            torch.testing.assert_close(edited, source, rtol=1e-4, atol=1e-4)


def test_replace_steps_0_is_plain_generation_and_the_source_is_never_edited(one):
    """Where nothing is injected, every kernel's output is its own P V; elsewhere, the source's still is."""
    plain = plainly(one, SOURCE, EQUAL)
    source, edited = one.swap(SOURCE, EQUAL, **WHOLE)[0]
    assert torch.equal(source, plain[0])
    assert one.name in CODES or not torch.equal(edited, plain[1])  # few codes of a tiny model change


@pytest.mark.parametrize("name", LATENTS)
def test_the_source_is_what_it_is_alone(editable, name):
    """Source and edit share the noise that a generation of the source draws from the same seed."""
    one = editable(name)
    source = one.swap(SOURCE, EQUAL, **WHOLE)[0][0]
    call = dict(one.call)
    if not one.published:
        alone = torch.as_tensor(one.pipe(SOURCE, generator=seeded(), **call).audios)[0]
    elif name == "tango":
        torch.manual_seed(0)
        alone = one.model.inference([SOURCE], one.pipe.scheduler, **call)[0]
    else:
        alone = one.model.inference_flow(SOURCE, seed=0, **call)[0]
    torch.testing.assert_close(source, alone, rtol=1e-3, atol=1e-3)


def test_noise_drawn_on_the_way_is_the_same_for_both(editable):
    """Tango's published scheduler draws noise in every step, from torch's global generator."""
    from diffusers import DDPMScheduler

    tango = editable("tango")
    settings = {"inference_scheduler": DDPMScheduler(clip_sample=False), "weights": {"rain": 1.0}}
    with pytest.warns(AttnVizWarning, match="All weights"):
        source, edited = tango.swap(SOURCE, SOURCE, **settings)[0]
    assert torch.equal(source, edited)
    torch.manual_seed(1)
    other = swap(tango.pipe, SOURCE, EQUAL, num_steps=2).output
    torch.manual_seed(1)
    assert torch.equal(other, swap(tango.pipe, SOURCE, EQUAL, num_steps=2).output)


# The formula ----------------------------------------------------------------------------------------------


def check_formula(one, seen, prompts, change, own):
    """Compare each conditional kernel call's output with P' V, by hand.

    `change` maps the source's and the target's own probabilities over the keys of the text to those it is to have.
    """
    source, target = one.rows
    calls = one.conditional(seen)
    assert calls
    text = {path for path, _ in one.text_sites}
    for call in calls:
        p, v = call.probabilities, call.values
        expected = p @ v
        if call.path not in text:
            wanted = p[source] if own else p[target]
        elif not one.joint:
            wanted = change(p[source], p[target])
        else:
            n, queries = one.conditions(*prompts), p.shape[2]
            wanted = p[target].clone()
            # Text queries come first, in the first call of a sequence and in each of a denoiser.
            first = n if queries > n or one.name == "tango-flux" else 0
            wanted[:, first:, :n] = change(p[source][:, first:, :n], p[target][:, first:, :n])
            if own:
                wanted[:, first:, n:] = p[source][:, first:, n:]
        expected[target] = wanted @ v[target]
        torch.testing.assert_close(call.output.double(), expected, rtol=1e-4, atol=1e-5)


def test_reweighting_follows_the_formula_and_is_recorded(one):
    """Every call of every site: the word's probability is scaled, in the target's row and nowhere else."""
    keys = one.keys(SOURCE, "rain")
    axes = ("head",) if one.name in CODES else ("step", "head")
    with spied(one.sites) as seen:
        _, edited = one.reweight(SOURCE, {"rain": -1.5}, keep=axes, **WHOLE)
    check_formula(one, seen, [SOURCE], weighing(keys), own=True)
    maps = edited.maps
    assert maps.complete
    assert maps.provenance["edit"]["weights"] == {"rain [18:22]": -1.5}
    rain = np.isin(maps.positions, maps.tokens[1].find("rain"))
    for layer in maps.layers:
        source, target = maps[layer].transpose("prompt", "token", ...).to_numpy()
        np.testing.assert_allclose(target[rain], -1.5 * source[rain], rtol=1e-5)
        np.testing.assert_array_equal(target[~rain], source[~rain])


def weighing(keys):
    def change(source, own):
        weighed = source.clone()
        weighed[..., keys] *= -1.5
        return weighed

    return change


def test_swapping_follows_the_formula(one):
    """One token in place of one: the target has the source's probabilities, and its own values."""
    with spied(one.sites) as seen:
        _, edited = one.swap(SOURCE, EQUAL, cross_replace_steps=1.0, self_replace_steps=0)
    check_formula(one, seen, [SOURCE, EQUAL], lambda source, own: source, own=False)
    for layer in edited.maps.layers:
        theirs, mine = edited.maps[layer].to_numpy()
        np.testing.assert_array_equal(mine, theirs)


def test_refining_follows_the_formula(one):
    """Old words have the source's probabilities, at their new keys, and new words their own."""
    with spied(one.text_sites) as seen:
        _, edited = one.refine(SOURCE, REFINED, **WHOLE)
    matrix = key_map(*edited.maps.tokens, PromptEdit("refine", SOURCE, REFINED).pairs).double()
    assert not matrix[:, [key for word in ("big", "loudly") for key in one.keys(REFINED, word)]].any()
    for word in ("a", "dog", "barks", "then", "rain", "falls"):
        ours, theirs = one.keys(SOURCE, word), one.keys(REFINED, word)
        assert torch.equal(matrix[ours][:, theirs], torch.eye(len(ours), dtype=torch.float64))
    check_formula(
        one,
        seen,
        [SOURCE, REFINED],
        lambda source, own: torch.where(matrix.any(dim=0), source @ matrix, own),
        own=True,
    )
    for layer in edited.maps.layers:
        before, after = edited.maps[layer].squeeze("image").to_numpy()
        for word in ("dog", "rain"):
            kept = [np.isin(edited.maps.positions, table.find(word)) for table in edited.maps.tokens]
            np.testing.assert_array_equal(before[kept[0]], after[kept[1]])


@pytest.mark.parametrize("name", [name for name in NAMES if SITES[LOADED.get(name, name)][1] is not None])
def test_a_word_of_weight_0_does_not_reach_the_audio(editable, name):
    """Other values at its keys change nothing: memory and global positions do not see it, either.

    In joint attention they do: the other words attend to it, as they do in a text encoder.
    """
    one = editable(name)
    keys = one.keys(SOURCE, "rain")
    settings = {**WHOLE, "guidance_scale": 1.0}

    def plant(q, k, v, number):
        v = v.clone()
        v[1, :, keys] += 1e3
        return q, k, v

    for weight, reaches in ((0.0, False), (1.5, True)):
        plain = one.reweight(SOURCE, {"rain": weight}, **settings)[0]
        with spied(one.text_sites, plant):
            other = one.reweight(SOURCE, {"rain": weight}, **settings)[0]
        assert torch.equal(plain[0], other[0])
        assert torch.equal(plain[1], other[1]) is not reaches


# Planted --------------------------------------------------------------------------------------------------


class Planted:
    """Queries, keys and values of the conditional rows, so that one word holds one column.

    The source's "dog" holds `columns[0]`, and the target's own queries would let the word in its place hold
    `columns[1]`; all other queries are held by "barks". Only the edited word has a value: 1 in the source's row,
    -1 in the target's.
    """

    columns = (3, 7)

    def __init__(self, one, target, word):
        self.one = one
        self.held = [one.keys(SOURCE, "dog"), one.keys(target, word)]
        self.rest = [one.keys(SOURCE, "barks"), one.keys(target, "barks")]
        self.n = one.conditions(SOURCE, target) if one.joint else 0
        self.position = 0  # of the first query that is audio, where positions are written one by one

    def first_query(self, queries):
        """Return the query of column 0 in a call; a later call of a sequence has one query."""
        if self.one.joint:
            return self.n if queries > 1 else 0
        return self.one.first

    def __call__(self, q, k, v, number):
        if number % 2 and self.one.name == "stable-audio-3":
            return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)  # what is subtracted
        q, k, v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for row, held, rest, column, sign in zip(
            self.one.rows, self.held, self.rest, self.columns, (1.0, -1.0), strict=True
        ):
            if len(q) <= row:
                continue
            k[row, :, rest[:1], 0], k[row, :, held, 1] = 30.0, 30.0
            v[row, :, held] = sign
            q[row, :, :, 0] = 30.0
            if (at := self.query_of(column, q.shape[2])) is not None:
                q[row, :, at, 0], q[row, :, at, 1] = 0.0, 30.0
        return q, k, v

    def query_of(self, column, queries):
        """Return the query of a column in a call, if it is there."""
        at = self.first_query(queries) + column - self.position
        return at if self.first_query(queries) <= at < queries else None

    def see_position(self, module, args, kwargs):
        """Read the position from the cache, as a pre-hook of a decoder."""
        cache = kwargs.get("past_key_values")
        self.position = max(0, (0 if cache is None else cache.get_seq_length()) - self.n)


@pytest.mark.parametrize("name", LATENTS)
def test_a_planted_swap_gives_the_new_word_the_second_of_the_old(editable, name):
    one = editable(name)
    planted = Planted(one, "a cat barks, then rain falls", "cat")
    with spied(one.text_sites, planted) as seen:
        _, edited = one.swap(SOURCE, "a cat barks, then rain falls", cross_replace_steps=1.0, self_replace_steps=0)
    calls = one.conditional(seen)
    if name == "stable-audio-3":
        calls = calls[::2]
    for call in calls:
        source, target = (call.output[row].mean(dim=(0, 2)) for row in one.rows)
        expected = torch.zeros(len(source))
        expected[planted.query_of(planted.columns[0], len(source))] = 1.0
        torch.testing.assert_close(source, expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(target, -expected, rtol=1e-3, atol=1e-4)
    if edited.maps.content["signed"]:
        return  # a half of zeros is subtracted, which holds each key everywhere
    for number, word in enumerate(("dog", "cat")):
        for layer in edited.maps.layers:
            heat = edited.maps.heatmap(word, prompt_index=number, readout=layer)
            flat = np.nan_to_num(heat.transpose("time", ...).to_numpy()).ravel()
            if one.name in ("audioldm2", "tango"):
                # Time is the slower axis there, the lowest band first, as in the map.
                assert flat.argmax() == planted.columns[0]
            assert flat.max() > 0.9 / len(edited.maps.tokens[number].find(word)) and (flat > 0.1).sum() == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_weight_acts_where_the_word_is(editable, name):
    one = editable(name)
    planted = Planted(one, SOURCE, "dog")
    planted.columns = (3, 3)
    columns = []

    def see(q, k, v, number):
        q, k, v = planted(q, k, v, number)
        columns.append(planted.query_of(3, q.shape[2]))
        return q, k, v

    handle = one.denoiser.register_forward_pre_hook(planted.see_position, with_kwargs=True)
    try:
        with spied(one.text_sites, see if name in CODES else planted) as seen:
            one.reweight(SOURCE, {"dog": 2.5}, cross_replace_steps=1.0, self_replace_steps=0)
    finally:
        handle.remove()
    calls = one.conditional(seen)
    if name == "stable-audio-3":
        calls = calls[::2]
    columns = columns or [planted.query_of(3, call.output.shape[2]) for call in calls]
    assert any(at is not None for at in columns)
    for call, at in zip(calls, columns, strict=True):
        first = planted.first_query(call.output.shape[2]) if one.joint else 0  # no queries of the text
        source, target = (call.output[row, :, first:].mean(dim=(0, 2)) for row in one.rows)
        expected = torch.zeros(len(source))
        if at is not None:
            expected[at - first] = 1.0
        torch.testing.assert_close(source, expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(target, -2.5 * expected, rtol=1e-3, atol=1e-4)


WRONG = {
    "flipped guidance": lambda family: dataclasses.replace(family, guidance=family.guidance[::-1]),
    "words of another segment": lambda family: dataclasses.replace(family, keys=family.keys[::-1]),
}


@pytest.mark.parametrize(
    ("name", "what"),
    [("stable-audio", "flipped guidance"), ("ace-step", "words of another segment"), ("tango", "flipped guidance"),
     ("tango-flux", "words of another segment"), ("TangoPipeline", "flipped guidance"),
     ("TangoFluxPipeline", "words of another segment")],
)  # fmt: skip
def test_the_formula_fails_where_the_family_is_wrong(editable, name, what):
    one = editable(name)
    family = WRONG[what](family_of(one.model))

    def check():
        with spied(one.text_sites) as seen:
            one.reweight(SOURCE, {"rain": -1.5}, cross_replace_steps=1.0, self_replace_steps=0, family=family)
        check_formula(one, seen, [SOURCE], weighing(one.keys(SOURCE, "rain")), own=False)

    with pytest.raises((AssertionError, AttnVizError)):
        check()


# Local blend ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LATENTS)
def test_outside_the_blend_the_source_stays(editable, name):
    """Words that hold a planted column are edited there and in the next cells, and nowhere else."""
    one = editable(name)
    planted = Planted(one, EQUAL, "cat")
    with spied(one.text_sites, planted):
        latents, edited = one.swap(SOURCE, EQUAL, blend=LocalBlend(threshold=0.5, start=0.0), **WHOLE)
        plain = one.swap(SOURCE, EQUAL, **WHOLE)[0]
    source, target = latents
    assert torch.equal(source, plain[0])
    mask = edited.mask
    assert 0 < mask.mean() < 1
    if one.name in ("stable-audio", "stable-audio-3", "longcat-audio-dit", "tango-flux"):
        assert np.flatnonzero(mask).tolist() == [2, 3, 4]
    if one.name in ("audioldm2", "tango"):  # (time, freq), the lowest band first
        assert mask.shape == tuple(source.shape[:0:-1])
        inside = torch.from_numpy(mask[::-1].T.copy()).expand_as(source)
    elif one.name in ("longcat-audio-dit", "tango-flux", "ace-step"):  # (time, channels)
        inside = torch.from_numpy(mask)[:, None].expand_as(source)
    else:
        inside = torch.from_numpy(mask).expand_as(source)
    assert torch.equal(source[~inside], target[~inside])
    assert not torch.equal(source[inside], target[inside])


# Everything is put back -----------------------------------------------------------------------------------


def left(one):
    model = one.model
    parts = [
        each for each in [model, *getattr(model, "components", {}).values()] if isinstance(each, torch.nn.Module)
    ]
    modules = {id(each): each for part in parts for each in part.modules()}.values()
    schedulers = [getattr(owner, name) for owner in (model, one.pipe) for name in ("scheduler", "noise_scheduler")
                  if hasattr(owner, name)]  # fmt: skip
    return (
        type(model),
        sorted(set(vars(model))),
        [id(getattr(each, "processor", None)) for each in modules],
        [len(each._forward_hooks) + len(each._forward_pre_hooks) for each in modules],
        ["forward" in vars(each) for each in modules],
        ["step" in vars(each) for each in schedulers],
        tap_depth(),
    )


def test_everything_is_put_back_on_every_exit(one):
    blend = {} if one.name in CODES else {"blend": True}
    one.swap(SOURCE, EQUAL, **WHOLE, **blend)
    before = left(one)

    def stop(*_):
        raise KeyboardInterrupt

    handle = one.text_sites[-1][1].register_forward_hook(stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            one.swap(SOURCE, EQUAL, **WHOLE, **blend)
    finally:
        handle.remove()
    assert left(one) == before


@pytest.mark.parametrize("name", ["stable-audio-3", "longcat-audio-dit", "ace-step"])
@pytest.mark.parametrize("which", ["text_sites", "self_sites"])
def test_all_sites_are_edited_or_none(editable, name, which):
    one = editable(name)
    path, module = getattr(one, which)[-1]
    before = left(one)
    module.processor._attention_backend = "flash"
    handle = one.denoiser.register_forward_pre_hook(lambda *_: pytest.fail("the denoiser ran"))
    try:
        with pytest.raises(CaptureError, match=rf"{path} is run by the backend flash"):
            one.swap(SOURCE, EQUAL)
    finally:
        handle.remove()
        del module.processor._attention_backend
    assert left(one) == before


# Refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("stable-audio", {"num_waveforms_per_prompt": 2}, AttnVizError, "one for each seed"),
        ("stable-audio", {"audio_start_in_s": 0.5}, CaptureError, "cuts off the front"),
        ("stable-audio", {"strenght": 1}, AttnVizError, "no argument strenght"),
        ("stable-audio", {"prompt": "x"}, AttnVizError, "two prompts"),
        ("stable-audio", {"latents": torch.zeros(2, 4, 40)}, AttnVizError, r"\(2, 4, 40\)"),
        ("stable-audio", {"generator": [seeded()]}, AttnVizError, "torch.Generator"),
        ("stable-audio", {"clip": object()}, AttnVizError, "inverted for an Auffusion pipeline"),
        ("tango", {"latents": torch.zeros(1, 8, 64, 16)}, AttnVizError, "takes no latents"),
        ("musicgen", {"latents": torch.zeros(1, 4)}, AttnVizError, "writes codes"),
        ("musicgen", {"blend": True}, AttnVizError, "musicgen: it writes codes, each frame once"),
        ("musicgen-melody", {"blend": LocalBlend()}, AttnVizError, "musicgen-melody: it writes codes"),
        ("musicgen", {"cross_replace_steps": 0.8}, AttnVizError, "0.8 is a part of the denoising steps"),
        ("musicgen", {"cross_replace_steps": {"cat": 0.5}}, AttnVizError, r"\['cat'\]=0.5"),
        ("musicgen", {"self_replace_steps": 0.4}, AttnVizError, "self_replace_steps=0.4"),
        ("musicgen", {"processor": None}, CaptureError, "processor=AutoProcessor"),
        ("musicgen", {"num_return_sequences": 2}, AttnVizError, "one sequence each"),
        ("musicgen", {"keep": ("step",)}, CaptureError, "no steps"),
        ("musicgen", {"guidance_scal": 3.0}, AttnVizError, "refuses the settings: .*guidance_scal"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(editable, name, settings, error, message):
    one = editable(name)
    handle = one.denoiser.register_forward_pre_hook(lambda *_: pytest.fail("the denoiser ran"))
    try:
        with pytest.raises(error, match=message):
            one.swap(SOURCE, EQUAL, **settings)
    finally:
        handle.remove()


def test_prompts_that_the_model_lower_cases(editable):
    with pytest.raises(PromptError, match="the same tokens"):
        editable("longcat-audio-dit").swap(SOURCE, SOURCE.title())


def test_a_family_without_self_sites(editable):
    one = editable("stable-audio")
    family = dataclasses.replace(family_of(one.model), self_sites=None)
    with pytest.raises(AttnVizError, match="states no self_sites"):
        one.swap(SOURCE, EQUAL, self_replace_steps=0.4, family=family)
    latents, edited = one.swap(SOURCE, EQUAL, family=family)
    assert edited.edit.self_replace_steps == 0.0
    assert torch.equal(latents, one.swap(SOURCE, EQUAL, self_replace_steps=0.0)[0])


def test_a_scheduler_that_is_not_given(editable):
    with pytest.raises(AttnVizError, match="pass inference_scheduler="):
        swap(editable("tango").model, SOURCE, EQUAL, num_steps=1)


# What is returned -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stable-audio", "audioldm2", "musicgen", *LOADED])
def test_audio_of_both(editable, name):
    one = editable(name)
    output = {"weights": {"cat": 1e4}, "cross_replace_steps": 1} if name == "musicgen" else {"output_type": "np"}
    _, edited = one.swap(SOURCE, EQUAL, **output)
    assert edited.audio.dtype == np.float32
    assert edited.audio.shape == edited.source_audio.shape
    assert edited.audio.ndim == (2 if one.name in ("stable-audio", "tango-flux") else 1)
    assert not np.array_equal(edited.audio, edited.source_audio)


def test_the_pair_that_load_returns_is_edited(editable):
    one = editable("musicgen")
    call = {name: value for name, value in one.call.items() if name != "processor"}
    pair = ModelWithProcessor(one.model, one.made.tokenizer)
    edited = swap(pair, SOURCE, EQUAL, generator=seeded(), **call)
    assert torch.equal(edited.output, one.swap(SOURCE, EQUAL)[1].output)


def test_latents_are_no_audio(editable):
    _, edited = editable("tango").swap(SOURCE, EQUAL)
    with pytest.raises(AttnVizError, match="latents alone"):
        _ = edited.audio


def test_a_negative_prompt_and_latents_are_those_of_both(editable):
    one = editable("stable-audio")
    noise = torch.randn(1, 4, 40, generator=seeded(5))
    given = {"negative_prompt": "noise", "latents": noise}
    latents, _ = one.swap(SOURCE, EQUAL, cross_replace_steps=0, self_replace_steps=0, **given)
    plain = one.pipe(
        [SOURCE, EQUAL], **one.call, negative_prompt=["noise"] * 2, latents=noise.repeat(2, 1, 1)
    ).audios
    assert torch.equal(latents, torch.as_tensor(plain))


def test_weights_of_words_and_steps_of_words(editable):
    """What `swap` combines: a fraction of each word, in the family's own tokens."""
    one = editable("ace-step")
    edit = PromptEdit("swap", SOURCE, EQUAL, {"barks": 2.0}, {"cat": 0.5, None: 1.0})
    edited = apply_edit(one.pipe, edit, keep=("step",), generator=seeded(), **one.call)
    source, target = edited.maps.tokens
    for layer in edited.maps.layers:
        theirs, mine = edited.maps[layer].squeeze("image").to_numpy()

        def of(array, table, word):
            return array[:, np.isin(edited.maps.positions, table.find(word))]

        np.testing.assert_allclose(of(mine, target, "barks"), 2 * of(theirs, source, "barks"), rtol=1e-5)
        dog, cat = of(theirs, source, "dog").sum(1), of(mine, target, "cat").sum(1)
        np.testing.assert_allclose(cat[0], dog[0], rtol=1e-5)
        assert not np.allclose(cat[1], dog[1], rtol=1e-3)


# Random numbers -------------------------------------------------------------------------------------------


def test_shared_noise_is_that_of_one_row():
    with shared_noise(seeded()):
        two = torch.randn(2, 3, 16)
        like = torch.randn_like(torch.empty(2, 16, dtype=torch.float64))
        other = torch.randn(5, 16)
    alone = seeded()
    expected = [torch.randn(1, 3, 16, generator=alone), torch.randn(1, 16, generator=alone, dtype=torch.float64)]
    for drawn, each in zip((two, like), expected, strict=True):
        assert torch.equal(drawn, each.expand_as(drawn))
    assert other.shape == (5, 16)
    with shared_noise(seeded(), rows=1):
        assert torch.equal(torch.randn((1, 3, 16)), two)
    assert tap_depth() == 0


def test_shared_codes_are_those_of_the_first_half():
    """Torch's own sampling of the source; equal odds give equal codes, and others differ as often as they must."""
    odds = torch.rand(4, 50, generator=seeded(1))
    with shared_noise(seeded(2)):
        codes = torch.multinomial(torch.cat([odds, odds]), num_samples=1)
    assert torch.equal(codes[:4], codes[4:])
    assert torch.equal(codes[:4], torch.multinomial(odds, 1, generator=seeded(2)))
    a, b = (torch.tensor(each).expand(4000, 3) for each in ([0.5, 0.3, 0.2], [0.4, 0.3, 0.3]))
    with shared_noise(seeded(3)):
        source, target = torch.multinomial(torch.cat([a, b]), 1).chunk(2)
    assert abs(float((target == 2).float().mean()) - 0.3) < 0.03
    assert float((source != target).float().mean()) < 0.2  # independent draws differ in 66 %
    with shared_noise(), pytest.raises(AttnVizError, match="one at a time"):
        torch.multinomial(odds, 2)


def test_codes_of_the_source_are_those_of_a_plain_generation(editable):
    one = editable("musicgen")
    made, _ = one.reweight(SOURCE, {"dog": 1e4})
    with shared_noise(seeded()):
        words = one.made.tokenizer([SOURCE, SOURCE], padding=True, return_tensors="pt")
        plain = one.model.generate(**words, max_new_tokens=8, temperature=0.02)
    assert torch.equal(plain[0], plain[1])
    assert torch.equal(made[0], plain[0])
    assert not torch.equal(made[1], plain[1])


def test_auffusion_is_still_asked_for_by_name(plain_checkpoint):
    from diffusers import StableDiffusionPipeline

    other = StableDiffusionPipeline.from_pretrained(plain_checkpoint, safety_checker=None)
    with pytest.raises(CaptureError, match=r"StableDiffusionPipeline.*families.*from_pipe"):
        reweight(other, SOURCE, {"rain": 2})


def test_a_model_that_is_traced_is_not_edited(editable):
    one = editable("stable-audio")
    with attnviz.trace(one.pipe), pytest.raises(CaptureError, match="traced already"):
        one.swap(SOURCE, EQUAL)
