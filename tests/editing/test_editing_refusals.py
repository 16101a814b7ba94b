"""Edits that cannot be made are refused before any model runs, and leave nothing behind."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import XFormersAttnProcessor

import attnviz
from attnviz.editing import LocalBlend, refine, reweight, swap
from attnviz.errors import AttnVizError, CaptureError, PromptError

SOURCE, TARGET = "a dog barks, then another dog barks", "a cat barks, then another dog barks"
SMALL = {"height": 72, "width": 232, "num_inference_steps": 2, "output_type": "latent"}


@pytest.mark.parametrize(
    ("edit", "prompts", "arguments", "error", "message"),
    [
        (swap, ("a dog barks", "the rain"), {}, PromptError, "no word in common"),
        (swap, (SOURCE, ""), {}, PromptError, "empty"),
        (swap, (SOURCE, 3), {}, PromptError, "not a string"),
        (refine, (SOURCE, TARGET), {}, PromptError, "lacks 'dog'"),
        (reweight, (SOURCE, {"rain": 2.0}), {}, PromptError, "'rain' is not in the prompt"),
        (reweight, (SOURCE, {"dog": 2.0}), {}, PromptError, "2 times"),
        (reweight, (SOURCE, {}), {}, AttnVizError, "No word has a weight"),
        (reweight, (SOURCE, {("dog", 0): math.nan}), {}, AttnVizError, "nan.*not a finite number"),
        (reweight, (SOURCE, {("dog", 0): math.inf}), {}, AttnVizError, "inf.*not a finite number"),
        (reweight, (SOURCE, {("dog", 0): "loud"}), {}, AttnVizError, "'loud'.*not a finite number"),
        (swap, (SOURCE, TARGET), {"cross_replace_steps": 1.2}, AttnVizError, r"1.2.*\[0, 1\]"),
        (swap, (SOURCE, TARGET), {"cross_replace_steps": {"cat": 80}}, AttnVizError, r"\['cat'\]=80.*percent"),
        (swap, (SOURCE, TARGET), {"cross_replace_steps": {"rain": 0.8}}, PromptError, "'rain'"),
        (swap, (SOURCE, TARGET), {"self_replace_steps": -0.1}, AttnVizError, "self_replace_steps=-0.1"),
        (swap, (SOURCE, TARGET), {"self_replace_steps": math.nan}, AttnVizError, "nan"),
        (swap, (SOURCE, TARGET), {"blend": LocalBlend(source=["rain"])}, PromptError, "'rain'"),
        (swap, (SOURCE, TARGET), {"blend": LocalBlend(target="cat")}, PromptError, r"\['cat'\]"),
        (swap, (SOURCE, SOURCE), {"blend": LocalBlend()}, PromptError, "changes no word"),
        (swap, (SOURCE, SOURCE), {}, PromptError, f"both '{SOURCE}'.*another word in place"),
        (swap, (SOURCE, f" {SOURCE.replace(' ', '  ')}"), {}, PromptError, "changes no word"),
        (swap, (SOURCE, SOURCE.upper()), {}, PromptError, "the same tokens"),
        (refine, (SOURCE, SOURCE), {}, PromptError, "Add a word"),
        (refine, (SOURCE, SOURCE.title()), {}, PromptError, "the same tokens"),
        (swap, (SOURCE, TARGET), {"num_images_per_prompt": 2}, AttnVizError, "one for each seed"),
        (swap, (SOURCE, TARGET), {"generator": [torch.Generator()]}, AttnVizError, "torch.Generator"),
        (swap, (SOURCE, TARGET), {"latents": torch.zeros(2, 4, 9, 29)}, AttnVizError, r"\(2, 4, 9, 29\)"),
        (swap, (SOURCE, TARGET), {"latents": torch.zeros(1, 4, 9, 9)}, AttnVizError, r"\(2, 4, 9, 29\)"),
        (swap, (SOURCE, TARGET), {"strenght": 1}, AttnVizError, "no argument strenght"),
        (swap, (SOURCE, TARGET), {"guidance_scale": math.nan}, AttnVizError, "guidance_scale"),
    ],
)
def test_refused_before_any_model_runs(pipe, no_model_runs, edit, prompts, arguments, error, message):
    with pytest.raises(error, match=message):
        edit(pipe, *prompts, **SMALL | arguments)


@pytest.mark.parametrize("arguments", [{"threshold": 1.0}, {"threshold": math.nan}, {"start": 1.1}, {"start": -1}])
def test_blends_that_cannot_be(arguments):
    with pytest.raises(AttnVizError, match="threshold|start"):
        LocalBlend(**arguments)


def test_words_that_were_cut_off(pipe, no_model_runs):
    long = "a dog barks " * 40
    with pytest.raises(PromptError, match="cut off"):
        swap(pipe, long + "rain", long + "wind", **SMALL)


def test_other_pipelines_are_refused_by_name(plain_checkpoint):
    other = StableDiffusionPipeline.from_pretrained(plain_checkpoint, safety_checker=None)
    with pytest.raises(CaptureError, match=r"StableDiffusionPipeline.*from_pipe"):
        swap(other, SOURCE, TARGET)


def fingerprints(pipe):
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in pipe.unet.modules())
    return hooks, {name: id(processor) for name, processor in pipe.unet.attn_processors.items()}


class Unknown(XFormersAttnProcessor):
    pass


@pytest.mark.parametrize("which", ["attn1", "attn2"])
def test_other_kernels_are_refused_by_name_and_layer(adapter_checkpoint, monkeypatch, which):
    pipe = attnviz.load(adapter_checkpoint)
    getattr(pipe.unet.mid_block.attentions[0].transformer_blocks[0], which).processor = Unknown()
    before = fingerprints(pipe)
    monkeypatch.setattr(pipe.unet, "forward", lambda *a, **k: pytest.fail("a model ran"))
    with pytest.raises(CaptureError, match=rf"mid_block.*{which} is run by Unknown"):
        swap(pipe, SOURCE, TARGET, **SMALL)
    assert fingerprints(pipe) == before


def test_a_pipeline_that_is_traced_already(pipe):
    with attnviz.trace(pipe), pytest.raises(CaptureError, match="traced already"):
        swap(pipe, SOURCE, TARGET, **SMALL)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_everything_is_put_back_on_every_exit(pipe, error):
    before = fingerprints(pipe)

    def stop(*_):
        raise error

    with pytest.raises(error):
        swap(pipe, SOURCE, TARGET, callback_on_step_end=stop, **SMALL)
    assert fingerprints(pipe) == before
    swap(pipe, SOURCE, TARGET, blend=LocalBlend(), **SMALL)
    assert fingerprints(pipe) == before
