"""Methods of attribution on models of the other families: those that are defined, and refusals by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families.test_family_explain import CLIPS, NAMES, clip_of

import attnviz
from attnviz.attribution.denoising import rehearse
from attnviz.diffusion.continuous import schedule_of
from attnviz.errors import CaptureError, PromptError
from attnviz.models.families import family_of

PROMPT = "a dog barks"
LOOK = {"timesteps": (400,), "draws": 1}


def explained(made, name, prompt=PROMPT, **settings):
    return attnviz.explain(made.pipe, clip_of(name), prompt, sampling_rate=CLIPS[name][0], **LOOK, **settings)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_leave_one_out_vs_the_pipelines_own_calls(family_pipe, name):
    """The predictions with and without "dog", each with the arguments that the pipeline itself would pass."""
    made = family_pipe(name)
    family = family_of(made.pipe)
    latents = []
    hook = made.denoiser.register_forward_pre_hook(
        lambda module, args, kwargs: latents.append(args[0] if args else kwargs[family.latents]), with_kwargs=True
    )
    maps = explained(made, name, method="leave_one_out")
    hook.remove()
    values = {400: schedule_of(made.pipe.scheduler).given(400)}
    with_and_without = [
        rehearse(
            made.pipe, family, text, values, scheduler=made.pipe.scheduler, rows=1, seconds=CLIPS[name][1]
        ).denoising(latents[-1], 400)  # of the last prediction; before it are those of rehearsals
        for text in (PROMPT, "a barks")
    ]
    literal = (with_and_without[0] - with_and_without[1]).square()
    assert maps.content["method"] == "leave_one_out"
    assert maps.content["family"] == family.name
    assert maps.provenance["attribution"]["players"] == ["a", "dog", "barks"]
    if family.queries.has_freq:  # AudioLDM2: (rows, channels, time, frequency), the lowest first, as in maps
        literal = literal[0].sum(0).T
    literal = (
        literal if family.queries.has_freq else literal.movedim(family.queries.axis, -1).flatten(1, -2).sum(1)[0]
    )
    heat = maps.heatmap("dog").to_numpy()
    assert (heat.max() > 0) == bool((with_and_without[0] != 0).any())  # a tiny denoiser may end in zeros
    np.testing.assert_allclose(heat, literal.numpy(), atol=1e-5 * heat.max())


@pytest.mark.parametrize("name", NAMES)
def test_value_is_recorded_or_refused_by_name(family_pipe, name):
    made = family_pipe(name)
    if name == "stable-audio-3":
        with pytest.raises(CaptureError, match="difference of two kernel calls"):
            explained(made, name, method="value")
        return
    maps = explained(made, name, method="value")
    assert maps.content["quantity"] == "norm of what the word adds"
    assert float(maps.heatmap("dog").max()) > 0


@pytest.mark.parametrize("method", ["rollout", "gradient", "integrated_gradients", "shapley", "heard"])
def test_what_is_not_defined_is_refused_by_name(family_pipe, method):
    with pytest.raises(CaptureError, match=f"method='{method}'.*longcat-audio-dit"):
        explained(family_pipe("longcat-audio-dit"), "longcat-audio-dit", method=method)


def test_a_caption_of_one_word_and_keys_are_refused(family_pipe):
    made = family_pipe("longcat-audio-dit")
    with pytest.raises(PromptError, match="empty without one of its phrases"):
        explained(made, "longcat-audio-dit", "dog", method="leave_one_out")
    with pytest.raises(CaptureError, match="removal='keys'"):
        explained(made, "longcat-audio-dit", method="leave_one_out", removal="keys")
