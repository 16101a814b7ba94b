"""Settings that a checkpoint brings in its folder, and guidance in a part of the noise schedule."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attnviz
from attnviz import bundled
from attnviz.editing import LocalBlend, PromptEdit, swap
from attnviz.errors import AttnVizError, CheckpointError
from attnviz.models.pipelines import AuffusionAudioToAudioPipeline, AuffusionInpaintPipeline
from attnviz.models.pipelines.recommended import AUTHORS, FILE_NAME, NAMES, RecommendedSettings, read_recommended

OWN = {
    "generation": {"num_inference_steps": 3, "guidance_scale": 2.5, "guidance_interval": [0.0, 0.5]},
    "swap": {"num_inference_steps": 2, "cross_replace_steps": 0.5, "blend_threshold": 0.6, "blend_start": 0.1},
    "style": {"strength": 0.5, "num_inference_steps": 4},
    "invert": {"num_inference_steps": 5},
}
SMALL = {"height": 72, "width": 232, "output_type": "latent"}


@pytest.fixture(scope="module")
def checkpoint(small_checkpoint, tmp_path_factory):
    folder = shutil.copytree(small_checkpoint, tmp_path_factory.mktemp("recommended") / "own")
    (folder / FILE_NAME).write_text(json.dumps(OWN))
    return folder


@pytest.fixture(scope="module")
def pipe(checkpoint):
    pipe = attnviz.load(checkpoint)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded():
    return torch.Generator().manual_seed(3)


def test_what_is_left_out_is_the_checkpoint_s_then_its_generation_s_then_the_authors():
    own = RecommendedSettings(OWN)
    left_out = dict.fromkeys(("num_inference_steps", "guidance_scale", "cross_replace_steps"))
    assert own.settle(left_out, "swap") == {
        "num_inference_steps": 2, "guidance_scale": 2.5, "cross_replace_steps": 0.5,
    }  # fmt: skip
    assert own.value("self_replace_steps", "swap") == 0.4
    assert own.value("num_inference_steps", "reweight") == 3
    assert own.value("strength", "inpaint") == 1.0
    given = {"num_inference_steps": None, "self_replace_steps": None, "guidance_scale": 1.0}
    assert own.origins(given, "swap") == {
        "num_inference_steps": "checkpoint", "self_replace_steps": "authors", "guidance_scale": "given",
    }  # fmt: skip
    none = RecommendedSettings()
    assert none.settle(dict.fromkeys(NAMES["generation"])) == AUTHORS["generation"]


def test_every_name_has_a_value_of_the_authors():
    for purpose, names in NAMES.items():
        for name in names:
            assert RecommendedSettings().origin(name, purpose) == "authors"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not an object"),
        ("{", "is not JSON"),
        ('{"generate": {}}', "generate, which is unknown; there are: generation, swap"),
        ('{"generation": {"steps": 20}}', "generation has steps, which is unknown"),
        ('{"style": {"blend_threshold": 0.5}}', "style has blend_threshold"),
        ('{"generation": {"num_inference_steps": 0}}', "generation.num_inference_steps is 0"),
        ('{"generation": {"num_inference_steps": 20.5}}', "a whole number from 1 to 1000 is needed"),
        ('{"generation": {"guidance_scale": NaN}}', "NaN is not a JSON number"),
        ('{"generation": {"guidance_interval": [0, 880]}}', "Was it given in timesteps"),
        ('{"generation": {"guidance_interval": [0.5, 0.5]}}', "lower first"),
        ('{"generation": {"guidance_interval": 0.5}}', "guidance_interval=0.5"),
        ('{"swap": {"cross_replace_steps": 1.2}}', r"swap.cross_replace_steps=1.2 is not in \[0, 1\]"),
        ('{"swap": {"blend_threshold": 1}}', r"\[0, 1\)"),
        ('{"style": {"strength": 0}}', "leaves no step"),
        ('{"swap": 3}', "swap is int"),
    ],
)
def test_a_bad_file_is_refused_by_name(content, message, tmp_path):
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(CheckpointError, match=message) as refused:
        read_recommended(tmp_path)
    assert FILE_NAME in str(refused.value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, "x"]), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(sorted({n for names in NAMES.values() for n in names})), _JSON, max_size=4))
def test_anything_in_a_file_is_taken_or_refused_within_the_family(values):
    for purpose in NAMES:
        try:
            settled = RecommendedSettings({purpose: values})
        except AttnVizError:
            continue
        assert RecommendedSettings(json.loads(json.dumps(settled.of))) == settled


def test_the_pipelines_take_them_and_say_so(pipe):
    with attnviz.trace(pipe) as trace:
        left_out = pipe("a dog barks", generator=seeded(), **SMALL).latents
    made = trace.maps.provenance
    assert (made["guidance_scale"], made["guidance_interval"], made["steps"]) == (
        2.5,
        [0.0, 0.5],
        4,
    )  # PNDM: one more
    said = {"num_inference_steps": 3, "guidance_scale": 2.5, "guidance_interval": (0.0, 0.5)}
    assert torch.equal(left_out, pipe("a dog barks", generator=seeded(), **SMALL, **said).latents)


def test_they_travel_with_the_pipeline_and_are_saved(pipe, tmp_path):
    assert AuffusionInpaintPipeline.from_pipe(pipe).recommended == pipe.recommended
    pipe.save_pretrained(tmp_path / "again")
    assert attnviz.load(tmp_path / "again").recommended == pipe.recommended
    pipe.save_pretrained(tmp_path / "again", overwrite=True)  # its own folder, with the file in it


def test_style_and_inversion_have_their_own(pipe):
    style = AuffusionAudioToAudioPipeline.from_pipe(pipe)
    style.set_progress_bar_config(disable=True)
    clip = torch.randn(16_000, generator=seeded()).numpy() * 0.1
    with attnviz.trace(style) as trace:
        style("a dog barks", clip, width=200, generator=seeded(), output_type="latent")
    assert (trace.maps.provenance["steps"], trace.maps.provenance["strength"]) == (
        3,
        0.5,
    )  # half of 4, and one more: PNDM
    from attnviz.editing import invert

    assert invert(pipe, clip, "a dog barks").num_inference_steps == 5


def test_an_edit_takes_them_unless_they_are_given(pipe):
    made = swap(pipe, "a dog barks", "a cat barks", generator=seeded(), **SMALL)
    assert made.edit.cross_replace_steps == 0.5
    assert made.edit.self_replace_steps == 0.4
    assert made.edit.local_blend == LocalBlend(threshold=0.6, start=0.1)
    assert made.mask is not None
    assert made.maps.provenance["steps"] == 3
    given_ = swap(
        pipe, "a dog barks", "a cat barks", cross_replace_steps={"cat": 0.2}, blend=False, num_inference_steps=1,
        generator=seeded(), **SMALL,
    )  # fmt: skip
    assert given_.edit.fractions[0] == 0.5
    assert given_.mask is None
    assert given_.maps.provenance["edit"]["blend"] is None


def test_a_blend_s_open_numbers_are_the_recommended_ones():
    edit = PromptEdit("swap", "a dog barks", "a cat barks", blend=LocalBlend(start=0.7)).settled(
        RecommendedSettings(OWN)
    )
    assert edit.local_blend == LocalBlend(threshold=0.6, start=0.7)
    plain = PromptEdit("swap", "a dog barks", "a cat barks", blend=True).settled(RecommendedSettings())
    assert plain.local_blend == LocalBlend(threshold=0.3, start=0.2)


def test_outside_the_interval_the_prompt_alone_predicts(small_checkpoint):
    """Guidance in an interval without a step is no guidance; beyond it every step is guided."""
    pipe = attnviz.load(small_checkpoint)
    pipe.set_progress_bar_config(disable=True)

    def made(**how):
        return pipe("a dog barks", num_inference_steps=4, generator=seeded(), **SMALL, **how).latents

    plain, guided = made(guidance_scale=1.0), made(guidance_scale=6.0)
    assert torch.equal(guided, made(guidance_scale=6.0, guidance_interval=(0.0, 1.0)))
    nowhere = made(guidance_scale=20.0, guidance_interval=(0.9999, 1.0))
    # One row more in the batch: equal to float32's rounding.
    torch.testing.assert_close(nowhere, plain, rtol=1e-3, atol=1e-3)
    assert (guided - plain).abs().max() > 0.05
    first, last = (
        made(guidance_scale=6.0, guidance_interval=(0.5, 1.0)),
        made(guidance_scale=6.0, guidance_interval=(0.0, 0.5)),
    )
    for part in (first, last):
        assert not torch.equal(part, guided)
        assert not torch.equal(part, plain)
    assert not pipe.unet._forward_hooks


def test_the_interval_is_that_of_a_loop_written_out(small_checkpoint):
    """A loop with DDIM, guided step by step by hand."""
    from diffusers import DDIMScheduler

    pipe = attnviz.load(small_checkpoint)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    latents = torch.randn(1, 4, 9, 29, generator=seeded())
    got = pipe(
        "a dog barks",
        num_inference_steps=5,
        guidance_scale=7.0,
        guidance_interval=(0.2, 0.7),
        latents=latents,
        **SMALL,
    ).latents
    keys, nothing = pipe.encode_prompt("a dog barks", "cpu", 1, True)
    pipe.scheduler.set_timesteps(5)
    wanted, scales = latents, []
    with torch.no_grad():
        for timestep in pipe.scheduler.timesteps:
            without, with_ = (pipe.unet(wanted, timestep, k, return_dict=False)[0] for k in (nothing, keys))
            scales.append(7.0 if 200 <= timestep < 700 else 1.0)
            wanted = pipe.scheduler.step(
                without + scales[-1] * (with_ - without), timestep, wanted, return_dict=False
            )[0]
    assert set(scales) == {1.0, 7.0}
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("ended", [KeyboardInterrupt, RuntimeError])
def test_no_hook_stays_when_a_call_is_cut_short(pipe, ended):
    def stop(*_):
        raise ended

    with pytest.raises(ended):
        pipe("a dog barks", callback_on_step_end=stop, **SMALL)
    assert not pipe.unet._forward_hooks


def test_the_maps_of_an_interval_are_of_the_conditional_rows(pipe):
    """Attention is that of the calls' conditional rows at every step, as with guidance all the way."""
    latents = torch.randn(1, 4, 9, 29, generator=seeded())

    def first_call(interval):
        with attnviz.trace(pipe, keep=("step",)) as trace:
            pipe("a dog barks", latents=latents, guidance_interval=interval, **SMALL)
        layer = trace.maps[trace.maps.layers[0]]
        return layer.isel(step=0).to_numpy()

    assert (first_call((0.0, 0.5)) == first_call((0.0, 1.0))).all()


def test_the_bundled_model_s_file_is_read_and_used():
    settings_ = read_recommended(bundled.FOLDER)
    assert {"generation", "swap", "refine", "reweight"} <= settings_.of.keys()
    assert settings_.origin("guidance_scale", "swap") == "checkpoint"
