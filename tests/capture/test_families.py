"""Denoisers of other families, recorded inside their own pipelines: prefixes, orientation, signs, guidance."""

from __future__ import annotations

import dataclasses

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from attnviz.capture import AttentionRecorder
from attnviz.capture.conditioning import PromptConditioning
from attnviz.errors import CaptureError
from attnviz.models.families import FAMILIES, family_of
from attnviz.testing import write_family_checkpoint

PROMPT = "a dog barks, then rain falls"
CALLS = {
    "audioldm2": {"audio_length_in_s": 1.28},
    "stable-audio": {"audio_end_in_s": 1.0},
    "stable-audio-3": {"duration": 3.0, "guidance_scale": 3.0},
    "longcat-audio-dit": {"audio_duration_s": 3.0},
    "ace-step": {"audio_duration": 2.0, "guidance_scale": 3.0},
}
# Grids of the layers, and whether they have rows (frequency).
SHAPES = {
    "audioldm2": ({(8, 16), (4, 8), (2, 4)}, "row"),
    "stable-audio": ({(40,)}, None),
    "stable-audio-3": ({(12,)}, None),
    "longcat-audio-dit": ({(36,)}, None),
    "ace-step": ({(25,)}, None),
}


@pytest.fixture(scope="module")
def pipes(tmp_path_factory):
    made = {}
    for name in CALLS:
        folder = write_family_checkpoint(tmp_path_factory.mktemp("families") / name, name)
        made[name] = DiffusionPipeline.from_pretrained(folder)
        made[name].set_progress_bar_config(disable=True)
    return made


def run(pipe, name, **changes):
    call = {**CALLS[name], "num_inference_steps": 2, "output_type": "latent", **changes}
    return torch.as_tensor(pipe(PROMPT, generator=torch.Generator().manual_seed(0), **call).audios)


def recorded(pipe, name, monkeypatch, *, keep=("head",), **changes):
    """Record one call; the embeddings are those the pipeline's own encoder gave."""
    family = family_of(pipe)
    recorder = AttentionRecorder(getattr(pipe, family.denoiser), keep=keep, family=family)
    begun = []

    def begin(embeds):
        if begun:
            return
        one = embeds[-1:] if family.guidance[0] == "unconditional" else embeds[:1]
        sizes = [segment.size or 0 for segment in family.keys]
        keys = one.shape[1] if family.encoded == "condition_encoder" else one.shape[1] + sum(sizes)
        conditioning = PromptConditioning(one, None, 1, range(keys), guidance=family.guidance)
        begun.append(recorder.begin(conditioning, lambda: len(pipe.scheduler.timesteps)))

    owner = getattr(pipe, family.encoded)
    if isinstance(owner, torch.nn.Module):
        handle = owner.register_forward_hook(lambda module, args, output: begin(output[0]))
    else:
        handle = None

        def encode(*args, **kwargs):
            result = owner(*args, **kwargs)
            begin(result if isinstance(result, torch.Tensor) else result[0])
            return result

        monkeypatch.setattr(pipe, family.encoded, encode)
    try:
        with recorder:
            output = run(pipe, name, **changes)
    finally:
        if handle is not None:
            handle.remove()
        monkeypatch.undo()
    return output, recorder.captured(begun[0]), begun[0]


def test_each_family_has_a_checkpoint_and_a_name():
    assert {family.name for family in FAMILIES} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_output_is_bit_identical_and_columns_are_the_latents(pipes, name, monkeypatch):
    plain = run(pipes[name], name)
    output, layers, recording = recorded(pipes[name], name, monkeypatch)
    assert torch.equal(plain, output)
    assert len(recording.timesteps) == 2
    shapes, row = SHAPES[name]
    at = -2 if row else -1
    assert {layer.attention.shape[at:] for layer in layers.values()} == shapes
    total = 0.0 if name == "stable-audio-3" else 1.0
    for layer in layers.values():
        assert ("row" in layer.dims) == (row is not None)
        np.testing.assert_allclose(layer.attention.sum(axis=layer.dims.index("token")), total, atol=1e-5)


@pytest.mark.parametrize("name", CALLS)
def test_every_slot_gets_its_processor_back(pipes, name, monkeypatch):
    family = family_of(pipes[name])
    denoiser = getattr(pipes[name], family.denoiser)
    slots = {path: module for path, module in denoiser.named_modules() if hasattr(module, "processor")}
    before = {path: module.processor for path, module in slots.items()}
    recorded(pipes[name], name, monkeypatch)
    assert all(slots[path].processor is processor for path, processor in before.items())


def test_audioldm2_is_not_mirrored(pipes, monkeypatch):
    """A query planted at (time, band) is read back at (row from the top, column)."""
    pipe = pipes["audioldm2"]
    family, handles, at = family_of(pipe), [], {}
    for path, module in pipe.unet.named_modules():
        if not family.is_site(path, module):
            continue
        grid = []
        block = pipe.unet.get_submodule(path.rsplit(".transformer_blocks", 1)[0])

        def see(module, args, grid=grid):
            grid[:] = args[0].shape[-2:]

        handles.append(block.register_forward_pre_hook(see))

        def query(module, args, output, grid=grid, path=path):
            times, bands = grid
            time, band = times - 2, 0  # late, in the lowest band
            at[path] = (bands - 1 - band, time)
            planted = torch.zeros_like(output)
            planted[:, time * bands + band] = 10.0
            return planted

        def key(module, args, output):
            planted = torch.zeros_like(output)
            planted[:, 2] = 10.0
            return planted

        handles += [module.to_q.register_forward_hook(query), module.to_k.register_forward_hook(key)]
    _, layers, _ = recorded(pipe, "audioldm2", monkeypatch, keep=())
    for handle in handles:
        handle.remove()
    assert len(layers) == len(at)
    for layer in layers.values():
        heat = layer.attention[0, 0, 2]
        assert np.unravel_index(heat.argmax(), heat.shape) == at[layer.path]
        assert heat.max() > 0.9


def test_a_flipped_guidance_order_is_refused(pipes):
    flipped = dataclasses.replace(family_of(pipes["ace-step"]), guidance=("unconditional", "conditional"))
    with pytest.raises(CaptureError, match="conditional rows"):
        recorded_with(pipes["ace-step"], flipped)


def recorded_with(pipe, family):
    recorder = AttentionRecorder(pipe.transformer, family=family)
    begun = []

    def begin(module, args, output):
        conditioning = PromptConditioning(output[0], None, 1, [0], guidance=family.guidance)
        begun.append(recorder.begin(conditioning, lambda: 2))

    handle = pipe.condition_encoder.register_forward_hook(begin)
    try:
        with recorder:
            run(pipe, "ace-step")
    finally:
        handle.remove()


def test_an_uncut_prefix_is_refused(pipes):
    family = family_of(pipes["stable-audio"])
    with pytest.raises(CaptureError, match="which of them are columns"):
        family.columns(pipes["stable-audio"].transformer, latents=41, positions=41, keys=0)


@pytest.mark.parametrize("name", ["AudioLDMPipeline", "MusicLDMPipeline"])
def test_models_without_words_are_refused_by_name(name):
    kind = getattr(diffusers, name)
    with pytest.raises(CaptureError, match=f"{name} cannot be traced.*CLAP.*with and without"):
        family_of(object.__new__(kind))
