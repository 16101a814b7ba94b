"""What an edit equals: to the last bit where nothing is changed, and the paper's formula where something is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from diffusers.models.attention_processor import AttnProcessor
from editing_literal import literal_edit
from peft import LoraConfig

import attnviz
from attnviz.editing import LocalBlend, PromptEdit, apply_edit, refine, reweight, swap
from attnviz.editing.alignment import align_refine, key_map
from attnviz.editing.injection import Injection
from attnviz.errors import AttnVizWarning
from attnviz.models.pipelines.recommended import RecommendedSettings
from attnviz.tracing.trace import Trace

SOURCE = "a dog barks, then rain falls"
SWAPPED = "a rooster barks, then rain falls"  # three tokens, or four, in place of one
EQUAL = "a cat barks, then wind falls"  # one token in place of one, in CLIP and in T5
REFINED = "a big dog barks loudly, then rain falls"
SMALL = {"height": 72, "width": 232, "num_inference_steps": 4, "output_type": "latent", "guidance_scale": 5.0}
WHOLE = {"cross_replace_steps": 1.0, "self_replace_steps": 1.0}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def plainly(pipe, source, target, **call):
    """Both prompts from the same noise, with nothing injected."""
    return pipe([source, target], generator=[seeded(), seeded()], **{**SMALL, **call}).latents


GUIDANCE = {"pipe": 1.0, "two": 5.0, "plain": 5.0}


@pytest.fixture(params=GUIDANCE)
def any_pipe(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def guidance(request):
    """On with several encoders and in the plain layout, off with one encoder."""
    return {"guidance_scale": GUIDANCE[request.node.callspec.params["any_pipe"]]}


# Bit for bit ----------------------------------------------------------------------


@pytest.mark.parametrize("edit", [swap, refine])
@pytest.mark.filterwarnings("ignore:All weights of the edit are 1")
def test_an_edit_to_the_same_prompt_gives_the_source(any_pipe, edit, guidance):
    same = {"weights": {"rain": 1.0}, "generator": seeded()}
    source, edited = edit(any_pipe, SOURCE, SOURCE, **same, **SMALL | guidance).output.latents
    assert torch.equal(edited, source)
    assert torch.equal(source, plainly(any_pipe, SOURCE, SOURCE, **guidance)[0])


def test_weight_1_changes_nothing(any_pipe, guidance):
    weights = {"rain": 1.0, "dog": 1}
    with pytest.warns(AttnVizWarning, match="All weights of the edit are 1"):
        made = reweight(any_pipe, SOURCE, weights, generator=seeded(), **SMALL | guidance)
    source, edited = made.output.latents
    assert torch.equal(edited, source)
    once = swap(any_pipe, SOURCE, SWAPPED, generator=seeded(), **SMALL).output.latents
    again = swap(any_pipe, SOURCE, SWAPPED, weights={"rain": 1.0}, generator=seeded(), **SMALL).output.latents
    assert torch.equal(once, again)


def test_replace_steps_0_is_plain_generation(any_pipe, guidance):
    edited = swap(
        any_pipe,
        SOURCE,
        SWAPPED,
        weights={"rain": 3.0},
        cross_replace_steps=0,
        self_replace_steps=0,
        generator=seeded(),
        **SMALL | guidance,
    )
    assert torch.equal(edited.output.latents, plainly(any_pipe, SOURCE, SWAPPED, **guidance))


@pytest.mark.parametrize(("edit", "target"), [(swap, SWAPPED), (refine, REFINED)])
def test_the_source_is_never_edited(any_pipe, edit, target, guidance):
    source, edited = edit(any_pipe, SOURCE, target, generator=seeded(), **WHOLE, **SMALL | guidance).output.latents
    plain = plainly(any_pipe, SOURCE, target, **guidance)
    assert torch.equal(source, plain[0])
    assert float((edited - plain[1]).abs().max()) > 0.05


def test_swapping_words_back_returns_the_source_attention(two):
    there = swap(two, SOURCE, EQUAL, generator=seeded(), **WHOLE, **SMALL).maps
    for layer in there.layers:
        source, edited = there[layer].to_numpy()
        np.testing.assert_array_equal(edited, source)  # the same tokens at the same keys
    tables = [two.conditioner.token_table(prompt) for prompt in (SOURCE, EQUAL)]
    swapped, back = (PromptEdit("swap", *pair) for pair in ((SOURCE, EQUAL), (EQUAL, SOURCE)))
    keys = swapped.injection(*tables).keys @ back.injection(*tables[::-1]).keys
    assert torch.equal(keys, torch.eye(154))


def test_common_words_of_a_refinement_keep_their_attention_while_it_is_injected(any_pipe):
    settings = {"cross_replace_steps": 0.5, "self_replace_steps": 0.0}
    maps = refine(any_pipe, SOURCE, REFINED, keep=("step",), generator=seeded(), **settings, **SMALL).maps
    calls = len(maps.timesteps)
    source, target = maps.tokens
    for layer in maps.layers:
        before, after = maps[layer].to_numpy()[:, 0]
        for word in ("a", "dog", "barks", "then", "rain", "falls"):
            kept = np.isin(maps.positions, source.find(word)), np.isin(maps.positions, target.find(word))
            here, there = before[:, kept[0]], after[:, kept[1]]
            np.testing.assert_array_equal(here[: calls // 2], there[: calls // 2])
            assert not np.array_equal(here[calls // 2], there[calls // 2])


@pytest.mark.filterwarnings("ignore:All weights of the edit are 1")
def test_noise_drawn_on_the_way_is_the_same_for_both(pipe):
    ancestral = attnviz.AuffusionPipeline.from_pipe(
        pipe, scheduler=EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    )
    ancestral.set_progress_bar_config(disable=True)
    same = {"weights": {"rain": 1.0}, "generator": seeded()}
    source, edited = swap(ancestral, SOURCE, SOURCE, **same, **SMALL).output.latents
    assert torch.equal(source, edited)


def test_the_generator_goes_on_as_after_a_generation(pipe):
    used, alone = seeded(), seeded()
    swap(pipe, SOURCE, EQUAL, generator=used, **SMALL)
    pipe(SOURCE, generator=alone, **SMALL)
    assert torch.equal(used.get_state(), alone.get_state())
    torch.manual_seed(7)
    first = swap(pipe, SOURCE, EQUAL, **SMALL).output.latents
    torch.manual_seed(7)
    assert torch.equal(first, swap(pipe, SOURCE, EQUAL, **SMALL).output.latents)


# The paper's formula ----------------------------------------------------------------------


def by_formula(pipe, edit, keys, added, weights, fractions, self_fraction, guided):
    """Edit with the oracle: replace, refine and re-weight as the paper writes them, key by key."""
    calls = SMALL["num_inference_steps"] + 1  # PNDM

    def cross(call, source, target):
        replaced = source @ keys.double()
        replaced[..., added] = target[..., added]
        replaced = replaced * weights
        injected = (call < torch.floor(fractions * calls)).double()
        return injected * replaced + (1 - injected) * target

    def own(call, source, target):
        return source if call < int(self_fraction * calls) else target

    with literal_edit(pipe.unet, cross, own, guided=guided):
        return plainly(pipe, edit.source, edit.target, guidance_scale=5.0 if guided else 1.0)


@pytest.mark.parametrize(
    "edit",
    [
        PromptEdit("swap", SOURCE, SWAPPED),
        PromptEdit("swap", SOURCE, SWAPPED, {"rain": -2.0, "rooster": 3.0}, {"rooster": 0.4, None: 0.7}),
        PromptEdit("refine", SOURCE, REFINED, {"loudly": 4.0}, 0.6, 0.2),
        PromptEdit("refine", SOURCE, REFINED, {}, {"big": 0.3, "dog": 1.0, None: 0.5}, 0.0),
        PromptEdit("reweight", SOURCE, SOURCE, {"dog": -1.0, "falls": 2.5}),
    ],
    ids=["swap", "swap-weights-steps", "refine-weights", "refine-steps", "reweight"],
)
def test_edits_follow_the_paper(two, edit):
    guided = edit.kind != "reweight"
    tables = [two.conditioner.token_table(prompt) for prompt in (edit.source, edit.target)]
    # A matrix by hand: the words that differ, else the next token of the other prompt, encoder by encoder.
    keys = torch.zeros(154, 154)
    new = tables[1].find("rooster") if "rooster" in edit.target else np.array([], dtype=int)
    added = [key for word in ("big", "loudly") if word in edit.target for key in tables[1].find(word)]
    for encoder in (0, 1):
        inside = range(77 * encoder, 77 * encoder + 77)
        old = set(tables[0].find("dog")) if len(new) else set()
        ours = [key for key in inside if tables[0].rows["kind"][key] != "padding" and key not in old]
        theirs = [key for key in inside if tables[1].rows["kind"][key] != "padding" and key not in {*new, *added}]
        keys[ours, theirs] = 1
        for key in set(inside) & old:
            here = [each for each in new if each in inside]
            keys[key, here] = 1 / len(here)
        for key in inside:
            if tables[0].rows["kind"][key] == "padding":
                keys[key, max(key, max([*theirs, *(set(inside) & {*new, *added})]) + 1)] = 1
    weights, fractions = torch.ones(154, dtype=torch.float64), torch.ones(154, dtype=torch.float64)
    for word, weight in edit.weights.items():
        weights[tables[1].find(word)] = weight
    edit = edit.settled(RecommendedSettings())
    steps = edit.cross_replace_steps
    steps = {None: steps} if isinstance(steps, float) else steps
    fractions *= steps[None]
    for word, fraction in steps.items():
        if word is not None:
            fractions[tables[1].find(word)] = fraction
    wanted = by_formula(two, edit, keys, added, weights, fractions, edit.self_replace_steps, guided)
    got = apply_edit(two, edit, generator=seeded(), **SMALL | {"guidance_scale": 5.0 if guided else 1.0})
    torch.testing.assert_close(got.output.latents, wanted, rtol=1e-3, atol=2e-3)
    assert float((wanted[0] - wanted[1]).abs().max()) > 0.05


@pytest.mark.parametrize("kind", ["classic", "sliced", "lora"])
def test_known_processors_stay_at_work(adapter_checkpoint, kind):
    pipe = attnviz.load(adapter_checkpoint)
    pipe.set_progress_bar_config(disable=True)
    edit = PromptEdit("refine", SOURCE, REFINED, {"dog": -1.0}, {"dog": 0.4})
    wanted = apply_edit(pipe, edit, generator=seeded(), **SMALL).output.latents
    if kind == "classic":
        pipe.unet.set_attn_processor(AttnProcessor())
    elif kind == "sliced":
        pipe.enable_attention_slicing(2)
    else:
        pipe.unet.add_adapter(
            LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
        )  # zero at first
    before = {name: id(processor) for name, processor in pipe.unet.attn_processors.items()}
    got = apply_edit(pipe, edit, generator=seeded(), **SMALL).output.latents
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=2e-3)
    assert {name: id(processor) for name, processor in pipe.unet.attn_processors.items()} == before


def test_recorded_attention_is_what_is_in_effect(two):
    weights = {"rain": -2.0}
    maps = reweight(two, SOURCE, weights, keep=("step",), generator=seeded(), **WHOLE, **SMALL).maps
    assert maps.provenance["edit"]["weights"] == {"rain [18:22]": -2.0}
    rain = np.isin(maps.positions, maps.tokens[1].find("rain"))
    for layer in maps.layers:
        source, edited = maps[layer].to_numpy()[:, 0]
        np.testing.assert_allclose(edited[:, rain], -2.0 * source[:, rain], rtol=1e-6)
        np.testing.assert_array_equal(edited[:, ~rain], source[:, ~rain])


def test_both_branches_are_recorded_and_one_is_edited(pipe):
    table, other = (pipe.conditioner.token_table(prompt) for prompt in (SOURCE, REFINED))
    edit = Injection(
        key_map(table, other, align_refine(SOURCE, REFINED)), torch.ones(77), torch.ones(77).double(), 1.0
    )
    call = {**SMALL, "negative_prompt": "wind"}
    with Trace(pipe, branch="both", edit=edit) as traced:
        pipe([SOURCE, REFINED], generator=[seeded(), seeded()], **call)
    dog, same = table.find("dog"), other.find("dog")
    for layer in traced.maps.layers:
        array = traced.maps[layer]
        at = [[list(traced.maps.positions).index(key) for key in keys] for keys in (dog, same)]
        conditional, unconditional = (
            array.sel(branch=name).to_numpy() for name in ("conditional", "unconditional")
        )
        np.testing.assert_array_equal(conditional[0, 0, at[0]], conditional[1, 0, at[1]])
        assert not np.array_equal(unconditional[0, 0, at[0]], unconditional[1, 0, at[1]])


# Local blend ----------------------------------------------------------------------


def test_outside_the_blend_the_source_stays(two):
    blend = LocalBlend(threshold=0.9, start=0.0)
    edited = swap(two, SOURCE, SWAPPED, blend=blend, generator=seeded(), **SMALL)
    source, target = edited.output.latents
    mask = torch.from_numpy(edited.mask)
    assert mask.shape == (9, 29)
    assert 0 < mask.float().mean() < 1
    assert torch.equal(source[:, ~mask], target[:, ~mask])
    assert not torch.equal(source[:, mask], target[:, mask])
    assert torch.equal(source, plainly(two, SOURCE, SWAPPED)[0])


def test_a_callback_sees_the_blended_latents(two):
    seen = []

    def see(pipe, step, timestep, tensors):
        seen.append(tensors["latents"].clone())
        return tensors

    blend = LocalBlend(threshold=0.9, start=0.0)
    edited = swap(two, SOURCE, SWAPPED, blend=blend, callback_on_step_end=see, generator=seeded(), **SMALL)
    mask = torch.from_numpy(edited.mask)
    assert torch.equal(seen[-1], edited.output.latents)
    assert torch.equal(seen[-1][0][:, ~mask], seen[-1][1][:, ~mask])
    assert "step" not in vars(two.scheduler)


def test_edits_are_combined(two):
    blend = LocalBlend(threshold=0.9)
    both = swap(two, SOURCE, SWAPPED, weights={"rain": 2.0}, blend=blend, generator=seeded(), **SMALL)
    for other in ({"weights": {"rain": 2.0}}, {"blend": blend}, {}):
        alone = swap(two, SOURCE, SWAPPED, generator=seeded(), **other, **SMALL)
        assert not torch.equal(both.output.latents[1], alone.output.latents[1])
