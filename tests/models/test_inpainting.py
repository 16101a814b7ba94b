"""What an inpainting model is shown of a clip, and what of it reaches the result."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attnviz
from attnviz.errors import AttnVizError
from attnviz.models.pipelines import AuffusionInpaintPipeline
from attnviz.models.pipelines.inpainting import _near
from attnviz.models.pipelines.recommended import FILE_NAME

PROMPT = "a dog barks"
CALL = {
    "span": (0.8, 1.2),
    "width": 200,
    "num_inference_steps": 2,
    "output_type": "latent",
}  # at the first one the context is noise
CELLS = slice(10, 15)  # of 80 ms
CLIP = 0.2 * np.random.default_rng(3).standard_normal(32_000).astype(np.float32)


@pytest.fixture(scope="module")
def inpaint(adapter_checkpoint):
    pipe = AuffusionInpaintPipeline.from_pipe(attnviz.load(adapter_checkpoint))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn(inpaint, clip=CLIP, **changed):
    return inpaint(PROMPT, clip, generator=torch.Generator().manual_seed(0), **{**CALL, **changed}).latents


def elsewhere(clip, start, end):
    """Another sound before and after a part of a clip."""
    other = 0.2 * np.random.default_rng(4).standard_normal(len(clip)).astype(np.float32)
    other[round(start * 16_000) : round(end * 16_000)] = clip[round(start * 16_000) : round(end * 16_000)]
    return other


def test_what_is_drawn_does_not_depend_on_the_clip_beyond_its_context(inpaint):
    # The spectrogram of 0.56 to 1.44 s is of 64 ms around it.
    beyond, within = elsewhere(CLIP, 0.4, 1.6), elsewhere(CLIP, 0.7, 1.3)
    near = {"context": 0.24, "normalize": False}
    seen = drawn(inpaint, **near)
    assert torch.equal(seen[..., CELLS], drawn(inpaint, beyond, **near)[..., CELLS])
    assert not torch.equal(seen[..., CELLS], drawn(inpaint, within, **near)[..., CELLS])
    # The latents around are of the clip itself all the same, and not of the silence that the model saw.
    assert not torch.equal(seen[..., :4], drawn(inpaint, beyond, **near)[..., :4])
    assert torch.equal(seen[..., :10], drawn(inpaint, context=0.1, normalize=False)[..., :10])
    whole = {"context": math.inf, "normalize": False}
    assert not torch.equal(drawn(inpaint, **whole)[..., CELLS], drawn(inpaint, beyond, **whole)[..., CELLS])


def test_a_context_of_the_whole_clip_changes_nothing(inpaint):
    assert torch.equal(drawn(inpaint), drawn(inpaint, context=5.0))


@pytest.mark.filterwarnings("ignore::attnviz.errors.InaudibleWarning")  # weights by chance draw any level
@pytest.mark.parametrize("normalize", [True, False])
def test_outside_the_span_the_clip_is_kept_at_its_level_and_inside_it_is_another(inpaint, normalize):
    quiet = 0.1 * CLIP
    made = inpaint(
        PROMPT, quiet, context=0.2, normalize=normalize, generator=torch.Generator().manual_seed(0),
        **{**CALL, "output_type": "audio"},
    ).audios[0]  # fmt: skip
    kept = np.r_[0:12_800, 19_200:32_000]
    np.testing.assert_array_equal(made[kept], quiet[kept])
    assert not np.array_equal(made[13_200:18_800], quiet[13_200:18_800])


@pytest.mark.filterwarnings("ignore::attnviz.errors.InaudibleWarning")  # weights by chance draw any level
@pytest.mark.parametrize("normalize", [True, False])
def test_what_is_drawn_anew_gets_the_level_of_its_clip(inpaint, normalize):
    """The model sees a normalized clip at a peak of 0.95, and what it draws is scaled back."""
    quarter = np.float32(0.25) * CLIP  # the same at a peak of 0.95, to the last bit
    call = {**CALL, "output_type": "audio", "normalize": normalize}
    whole = slice(13_120, 18_880)  # 0.8 to 1.2 s, without the cross-fades of 20 ms
    made = []
    for clip in (CLIP, quarter):
        output = inpaint(PROMPT, clip, generator=torch.Generator().manual_seed(0), **call)
        seen = inpaint.vocoder(torch.from_numpy(output.spectrograms))[0].detach().numpy()[whole]
        level = np.abs(clip).max() / 0.95 if normalize else 1.0
        np.testing.assert_allclose(output.audios[0][whole], level * seen, rtol=1e-4, atol=1e-7)
        made.append(output.audios[0][whole])
    if normalize:
        np.testing.assert_allclose(made[1], 0.25 * made[0], rtol=1e-6, atol=1e-9)


def test_a_clip_at_a_peak_of_095_is_the_same_normalized(inpaint):
    clip = (0.95 / np.abs(CLIP).max() * CLIP.astype(np.float64)).astype(np.float32)
    torch.testing.assert_close(drawn(inpaint, clip, normalize=True), drawn(inpaint, clip, normalize=False))
    halved = drawn(inpaint, 0.5 * clip, normalize=False)
    assert not torch.allclose(drawn(inpaint, 0.5 * clip, normalize=True), halved)


@given(
    columns=st.lists(st.booleans(), min_size=3, max_size=12).filter(any),
    context=st.floats(0, 1) | st.just(math.inf),
)
def test_the_context_vs_every_column_s_distance(columns, context):
    factor, frame = 4, 0.01
    image = torch.tensor(columns).float().repeat_interleave(factor).expand(1, 1, 8, -1)
    drawn = np.flatnonzero(np.repeat(columns, factor))
    expected = [np.abs(drawn - column).min() * frame <= context + 1e-9 for column in range(image.shape[-1])]
    found = _near(image, context + 1e-9, factor)
    assert found.tolist() == expected


def test_every_clip_of_a_batch_is_shown_with_its_context(inpaint):
    prompts, clips = [PROMPT, "rain falls"], [CLIP, elsewhere(CLIP, 0.9, 1.1)]
    latents = inpaint(
        prompts, clips, num_images_per_prompt=2, context=0.1, generator=torch.Generator().manual_seed(0), **CALL
    ).latents
    assert torch.equal(latents[0][..., :10], latents[1][..., :10])
    assert torch.equal(latents[2][..., :10], latents[3][..., :10])
    assert not torch.equal(latents[0][..., :10], latents[2][..., :10])
    assert not torch.equal(latents[0][..., CELLS], latents[1][..., CELLS])


def test_the_checkpoint_s_own_context_and_level_are_taken(adapter_checkpoint, tmp_path):
    folder = shutil.copytree(adapter_checkpoint, tmp_path / "own")
    (folder / FILE_NAME).write_text(json.dumps({"inpaint": {"context": 0.24, "normalize": False}}))
    own = AuffusionInpaintPipeline.from_pipe(attnviz.load(folder))
    own.set_progress_bar_config(disable=True)
    assert torch.equal(drawn(own), drawn(own, context=0.24, normalize=False))
    assert not torch.equal(drawn(own), drawn(own, context=math.inf, normalize=True))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"context": -0.1}, "context=-0.1"),
        ({"context": math.nan}, "context=nan"),
        ({"context": "1"}, "number of seconds"),
        ({"context": True}, "context=True"),
        ({"normalize": 1}, "normalize=1 is neither True nor False"),
    ],
)
def test_bad_context_and_level(inpaint, given, message):
    with pytest.raises(AttnVizError, match=message):
        drawn(inpaint, **given)
