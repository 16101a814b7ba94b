"""Interrupts at every line of a traced call, and a second one after it: nothing is left behind."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from capture.conftest import KEYS
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

import attnviz
from attnviz.attribution.randomizing import randomized, randomized_blocks
from attnviz.audio import SpectrogramGrid
from attnviz.capture import AttentionRecorder, Conditioning, EditedRow, held, is_traced
from attnviz.capture.kernel import tap_depth

PACKAGE = str(Path(attnviz.__file__).parent)
SAMPLE = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(2))


@contextmanager
def interrupted(at: int = 0, second: int = 0, files: tuple[str, ...] = ("",)):
    """Raise at the n-th line of this package that runs, and so many lines later once more; give the lines."""
    lines: list[tuple[str, int]] = []

    def tracer(frame, event, arg):
        name = frame.f_code.co_filename
        if not name.startswith(PACKAGE) or not any(each in name for each in files):
            return None
        if event == "line":
            lines.append((name, frame.f_lineno))
            if len(lines) == at or (second and len(lines) == at + second):
                raise KeyboardInterrupt
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        yield lines
    finally:
        sys.settrace(before)


def at_every_line(run: Callable[[], None], check: Callable[[str], None], *files: str) -> int:
    """Interrupt `run` at each of its lines: where it runs first, and where it runs last with another to follow."""
    files = files or ("",)
    run()  # what is done once is done
    with interrupted(files=files) as lines:
        run()
    check("not interrupted")
    first = {line: place for place, line in reversed([*enumerate(lines, start=1)])}
    last = {line: place for place, line in enumerate(lines, start=1)}
    # The second comes at any distance: while changes are taken back, and while they are taken back again.
    both = [(at, 0) for at in first.values()] + [(at, 1 + number % 29) for number, at in enumerate(last.values())]
    for at, second in both:
        with pytest.raises(KeyboardInterrupt), interrupted(at, second, files):
            run()
        check(f"interrupted at {lines[at - 1]}, and {second} lines later")
    return len(first)


def state(unet):
    return (
        {name: id(processor) for name, processor in unet.attn_processors.items()},
        [[*module._forward_hooks, *module._forward_pre_hooks] for module in unet.modules()],
        [sorted(vars(module)) for module in unet.modules()],
        tap_depth(),
    )


@pytest.fixture
def small_pipe(small_unet, plain_checkpoint):
    pipe = StableDiffusionPipeline.from_pretrained(plain_checkpoint, unet=None, safety_checker=None)
    width = pipe.text_encoder.config.hidden_size
    pipe.register_modules(
        unet=UNet2DConditionModel.from_config({**small_unet.config, "cross_attention_dim": width})
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


class Edit:
    """A row that is another's, and one that is made from both."""

    record: ClassVar = {}

    def cross_attention(self, call, calls):
        return [EditedRow(1, 0, lambda source, own: 2 * source - own)]

    def self_attention(self, call, calls, positions):
        return [EditedRow(1, 0)]


@pytest.mark.slow
def test_a_recorded_and_edited_call(small_unet, embeds):
    states = embeds[:2]
    before = state(small_unet)
    conditioning = Conditioning(states, None, 2, range(KEYS))

    def run():
        with AttentionRecorder(small_unet, edit=Edit()) as recorder, torch.no_grad():
            recorder.begin(conditioning, lambda: 1)
            small_unet(SAMPLE, 500, encoder_hidden_states=states)

    def check(when):
        assert state(small_unet) == before, when

    assert at_every_line(run, check) > 200


def test_a_traced_call_of_a_pipeline(small_pipe):
    pipe, unet = small_pipe, small_pipe.unet
    owners = (pipe, pipe.vae, pipe.scheduler)

    def run():
        with attnviz.trace(pipe, grid=SpectrogramGrid(32, 48)):
            pipe("rain", num_inference_steps=1, height=32, width=48, output_type="latent")

    run()
    before = state(unet), [sorted(vars(owner)) for owner in owners]

    def check(when):
        assert (state(unet), [sorted(vars(owner)) for owner in owners]) == before, when

    assert at_every_line(run, check, "trace.py", "changes.py") > 50


def test_an_edit_of_this_packages_own(small_unet):
    """A `with` statement in the package's own code: an interrupt may strike after its block and before leaving."""
    before = state(small_unet)

    def run():
        recorder = AttentionRecorder(small_unet)
        with held(recorder):
            assert is_traced(small_unet)

    def check(when):
        assert state(small_unet) == before, when

    assert at_every_line(run, check, "changes.py") > 15


def test_randomised_weights(small_unet):
    blocks = randomized_blocks(small_unet, "up_blocks.1")
    before = {name: tensor.clone() for name, tensor in small_unet.state_dict().items()}

    def run():
        with randomized(small_unet, blocks, 0):
            pass

    def check(when):
        after = small_unet.state_dict()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items()), when

    assert at_every_line(run, check, "randomizing.py") > 15
