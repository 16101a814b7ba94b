"""An interrupt at any line of a traced call leaves models of other families as they were."""

from __future__ import annotations

import pytest
import torch
from capture.test_interrupts import at_every_line
from transformers import AutoTokenizer, MusicgenForConditionalGeneration

import attnviz
from attnviz.capture.kernel import tap_depth
from attnviz.testing import write_family_checkpoint


def state(model, modules):
    """What a trace changes: the class and attributes of the model, processors, hooks and attributes of modules."""
    return (
        type(model),
        sorted(vars(model)),
        [id(getattr(each, "processor", None)) for each in modules],
        [[*each._forward_hooks, *each._forward_pre_hooks] for each in modules],
        [sorted(vars(each)) for each in modules],
        tap_depth(),
    )


@pytest.mark.slow
def test_a_traced_call_of_a_family(family_pipe):
    pipe = family_pipe("stable-audio").pipe
    modules = [each for part in (pipe.transformer, pipe.text_encoder, pipe.vae) for each in part.modules()]

    def run():
        with attnviz.trace(pipe):
            pipe("rain", num_inference_steps=1, output_type="latent")

    run()
    before = state(pipe, modules)

    def check(when):
        assert state(pipe, modules) == before, when

    assert at_every_line(run, check, "family_calls.py") > 50


@pytest.mark.slow
def test_a_traced_generation(tmp_path):
    folder = write_family_checkpoint(tmp_path, "musicgen")
    model = MusicgenForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(["rain"], return_tensors="pt")

    def run():
        torch.manual_seed(0)
        with attnviz.trace(model, processor=tokenizer):
            model.generate(**inputs, max_new_tokens=2)

    run()
    modules = list(model.modules())
    before = state(model, modules)

    def check(when):
        assert state(model, modules) == before, when

    assert at_every_line(run, check, "generation.py", "sequences.py") > 50
