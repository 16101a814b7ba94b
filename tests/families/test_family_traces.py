"""`attnviz.trace` on pipelines of every family: nothing changes, and words are those of the user."""

from __future__ import annotations

import dataclasses
import types

import diffusers
import numpy as np
import pytest
import torch

import attnviz
from attnviz.errors import CaptureError, MapsError, PromptError
from attnviz.models.families import FAMILIES, example_family, family_of, setting
from attnviz.text.encoded import KeySegment, encoded_table, origins

NAMES = ["audioldm2", "stable-audio", "stable-audio-3", "longcat-audio-dit", "ace-step"]
PROMPT = "A Dog barks,  then “Rain” falls"
# Layers, columns, seconds a column; whether there is frequency.
SHAPES = {
    "audioldm2": (10, 16, 0.08, True),
    "stable-audio": (2, 40, 8 / 160, False),
    "stable-audio-3": (2, 12, 4 / 16, False),
    "longcat-audio-dit": (2, 36, 2 / 24, False),
    "ace-step": (2, 25, 2 * 8 / 200, False),
}


def left(pipe, denoiser):
    """What a trace may leave changed on a pipeline."""
    slots = {path: id(each.processor) for path, each in denoiser.named_modules() if hasattr(each, "processor")}
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    hooks = sum(
        len(each._forward_hooks) + len(each._forward_pre_hooks) for part in modules for each in part.modules()
    )
    own = {name for name in ("encode_prompt", "_format_prompt") if name in vars(pipe)} | (
        set(vars(pipe.vae)) & {"decode"}
    )
    return type(pipe), slots, hooks, own


def test_every_family_has_a_tiny_checkpoint():
    assert {family.name for family in FAMILIES} == set(attnviz.testing.FAMILIES)


@pytest.mark.parametrize("name", NAMES)
def test_output_is_bit_identical_and_maps_are_in_seconds(family_pipe, name):
    made = family_pipe(name)
    plain = made(PROMPT)
    before = left(made.pipe, made.denoiser)  # after a call: transformers installs hooks of its own in the first
    with attnviz.trace(made.pipe) as trace:
        traced = made(PROMPT)
        assert made.pipe.__class__.__name__ == before[0].__name__
    assert torch.equal(plain, traced)
    assert left(made.pipe, made.denoiser) == before
    maps = trace.maps
    layers, columns, step, has_freq = SHAPES[name]
    assert maps.complete
    assert trace.coverage == (layers, layers)
    assert len(maps.timesteps) == 2
    curve = maps.activation("dog barks")
    np.testing.assert_allclose(curve.time, (np.arange(columns) + 0.5) * step)
    assert maps.heatmap("rain").dims == (("freq", "time") if has_freq else ("time",))
    assert maps.provenance["family"] == name
    assert maps.provenance["guidance_scale"] > 1


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ace-step"])  # which diffusers has not listed
def test_what_diffusers_finds_for_a_folder_is_of_the_family(family_pipe, name):
    made = family_pipe(name).pipe
    found = diffusers.AutoPipelineForText2Audio.from_pretrained(made.config["_name_or_path"])
    assert type(found) is type(made)
    assert family_of(found).name == name


@pytest.mark.parametrize("name", NAMES)
def test_words_are_the_users(family_pipe, name):
    made = family_pipe(name)
    with attnviz.trace(made.pipe, tokens="all") as trace:
        made(PROMPT)
    table = trace.maps.tokens[0]
    assert table.prompt == PROMPT
    assert table.kept_words == ["A", "Dog", "barks", "then", "Rain", "falls"]
    for word in table.kept_words:
        rows = table.rows[table.rows["position"].isin(table.find(word))]
        start, end = table.phrase_span(word)
        assert set(rows["word"]) == {word}
        assert rows["start"].min() == start and rows["end"].max() == end
    assert set(table.rows["kind"]) >= {"text"}
    total = 0.0 if name == "stable-audio-3" else 1.0
    for layer in trace.maps.layers:
        np.testing.assert_allclose(trace.maps[layer].sum("token"), total, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_prompts_of_other_lengths_have_their_own_tables(family_pipe, name):
    """Each prompt has the tokens, and the map, that it has alone, though a longer one pads it."""
    made = family_pipe(name)
    prompts = ["a dog barks", "rain falls while a clock ticks and a rooster crows"]
    changes = {"lyrics": ["la", "la la la la la"]} if name == "ace-step" else {}
    noise = torch.randn(1, *made("x", num_inference_steps=1).shape[1:], generator=torch.Generator().manual_seed(3))
    with attnviz.trace(made.pipe) as trace:
        made(prompts, latents=noise.repeat(2, *[1] * (noise.ndim - 1)), num_inference_steps=1, **changes)
    for number, (prompt, word) in enumerate(zip(prompts, ("dog", "clock"), strict=True)):
        alone_changes = {"lyrics": changes["lyrics"][number]} if changes else {}
        with attnviz.trace(made.pipe) as alone:
            made(prompt, latents=noise, num_inference_steps=1, **alone_changes)
        assert trace.maps.tokens[number].prompt == prompt
        ours = trace.maps.activation(word, prompt_index=number)
        ids = trace.maps.tokens[number].rows.query("kind == 'text'")["token_id"].tolist()
        assert ids == alone.maps.tokens[0].rows.query("kind == 'text'")["token_id"].tolist()
        # Elsewhere what a prompt becomes depends on the padding that a longer one beside it brings: the vectors of
        # AudioLDM2's GPT-2, the convolutions of LongCat, the attention that ACE-Step's padding holds.
        if name in ("stable-audio", "stable-audio-3"):
            np.testing.assert_allclose(ours, alone.maps.activation(word), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["stable-audio", "stable-audio-3"])
def test_waveforms_of_one_prompt_are_its_images(family_pipe, name):
    made = family_pipe(name)
    with attnviz.trace(made.pipe) as trace:
        made(["a dog barks", "rain falls"], num_waveforms_per_prompt=2)
    assert (len(trace.maps.tokens), trace.maps.images) == (2, 2)


@pytest.mark.parametrize("name", NAMES)
def test_runs_of_other_seeds_merge_and_of_other_settings_do_not(family_pipe, name):
    made = family_pipe(name)
    with attnviz.trace(made.pipe) as trace:
        for seed in (1, 2):
            made(PROMPT, num_inference_steps=1, generator=torch.Generator().manual_seed(seed))
        made(PROMPT, num_inference_steps=1, guidance_scale=1.5)
    one, two, other = trace.runs
    assert attnviz.AttentionMaps.merge([one, two]).images == 2
    with pytest.raises(MapsError, match="guidance_scale"):
        attnviz.AttentionMaps.merge([one, other])


def test_guidance_may_come_and_go_within_a_run(family_pipe):
    made = family_pipe("ace-step")
    with attnviz.trace(made.pipe) as trace:
        made(PROMPT, num_inference_steps=4, cfg_interval_start=0.3)
    assert len(trace.maps.timesteps) == 4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("negative", [None, "noise"])
def test_negative_prompts_are_not_recorded(family_pipe, name, negative):
    if name == "ace-step":
        pytest.skip("ACE-Step takes no negative prompt")
    made = family_pipe(name)
    with attnviz.trace(made.pipe) as trace:
        made(PROMPT, negative_prompt=negative, num_inference_steps=1)
    assert trace.maps.tokens[0].prompt == PROMPT
    with attnviz.trace(made.pipe) as unguided:
        made(PROMPT, guidance_scale=1.0, num_inference_steps=1)
    np.testing.assert_allclose(trace.maps.activation("dog"), unguided.maps.activation("dog"), rtol=2e-3, atol=1e-6)


def test_both_branches_of_a_conditional_first_family(family_pipe):
    made = family_pipe("ace-step")
    with attnviz.trace(made.pipe, branch="both") as both:
        made(PROMPT)
    with attnviz.trace(made.pipe) as one:
        made(PROMPT)
    layer = one.maps.layers[0]
    np.testing.assert_array_equal(both.maps[layer].sel(branch="conditional"), one.maps[layer])
    # Of the null condition all keys are the same.
    other = both.maps[layer].sel(branch="unconditional")
    np.testing.assert_allclose(other, float(other.mean()), rtol=1e-4)


def test_an_error_in_the_call_restores_everything_and_keeps_what_was_seen(family_pipe):
    made = family_pipe("stable-audio")
    before = left(made.pipe, made.denoiser)

    def stop(step, timestep, latents):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), attnviz.trace(made.pipe) as trace:
        made(PROMPT, callback=stop, callback_steps=1)
    assert left(made.pipe, made.denoiser) == before
    assert not trace.maps.complete
    assert len(trace.maps.timesteps) == 1


# Refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "call", "why"),
    [
        ("audioldm2", {"num_waveforms_per_prompt": 2}, "another order"),
        ("stable-audio", {"audio_start_in_s": 0.5}, "cuts off the front"),
        ("ace-step", {"audio_cover_strength": 0.5}, "not the prompt"),
    ],
)
def test_calls_whose_maps_are_not_defined_are_refused(family_pipe, name, call, why):
    made = family_pipe(name)
    with pytest.raises(CaptureError, match=why), attnviz.trace(made.pipe):
        made(PROMPT, **call)


def test_embeddings_without_a_prompt_are_refused(family_pipe):
    made = family_pipe("stable-audio-3")
    with pytest.raises(PromptError, match="prompt_embeds alone"), attnviz.trace(made.pipe):
        made(None, prompt_embeds=torch.zeros(1, 4, 16))


@pytest.mark.parametrize("name", ["AudioLDMPipeline", "MusicLDMPipeline"])
def test_models_without_words_are_refused_by_name(name):
    with pytest.raises(CaptureError, match=f"{name} cannot be traced.*CLAP.*with and without"):
        attnviz.trace(object.__new__(getattr(diffusers, name)))


def test_a_model_of_no_family_is_told_the_lines_that_make_one(family_pipe):
    """The lines of the message, filled in for Stable Audio, trace it as its own family does."""
    made = family_pipe("stable-audio")

    class OtherPipeline(diffusers.DiffusionPipeline):
        __call__ = diffusers.StableAudioPipeline.__call__
        encode_prompt = diffusers.StableAudioPipeline.encode_prompt
        encode_duration = diffusers.StableAudioPipeline.encode_duration
        prepare_latents = diffusers.StableAudioPipeline.prepare_latents
        prepare_extra_step_kwargs = diffusers.StableAudioPipeline.prepare_extra_step_kwargs
        check_inputs = diffusers.StableAudioPipeline.check_inputs

        def __init__(self, vae, text_encoder, projection_model, tokenizer, transformer, scheduler):
            super().__init__()
            self.register_modules(
                vae=vae, text_encoder=text_encoder, projection_model=projection_model, tokenizer=tokenizer,
                transformer=transformer, scheduler=scheduler,
            )  # fmt: skip
            self.rotary_embed_dim = made.pipe.rotary_embed_dim

    pipe = OtherPipeline(**made.pipe.components)
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(CaptureError) as refused:
        attnviz.trace(pipe)
    message = str(refused.value)
    lines = message[message.index("from attnviz.models") :]
    assert lines in example_family(pipe)
    assert len(lines.splitlines()) <= 14
    lines = lines.replace("prefix=0", "prefix=1").replace(
        '(Segment("text"),)', '(Segment("text"), Segment("duration", 2))'
    )
    space: dict = {}
    exec(lines, space)
    call = {"audio_end_in_s": 1.0, "num_inference_steps": 1, "output_type": "latent"}
    with attnviz.trace(pipe, family=space["family"]) as trace:
        pipe(PROMPT, generator=torch.Generator().manual_seed(0), **call)
    with attnviz.trace(made.pipe) as own:
        made(PROMPT, num_inference_steps=1)
    np.testing.assert_array_equal(trace.maps.activation("dog"), own.maps.activation("dog"))


def test_what_is_no_pipeline_is_told(family_pipe):
    part = family_pipe("stable-audio").denoiser
    for given, message in (("mine/model", r"attnviz\.load\('mine/model'\)"), (part, "Model cannot.*no pipeline")):
        with pytest.raises(CaptureError, match=message), attnviz.trace(given):
            pass


def test_a_processor_that_would_not_be_used_is_refused(family_pipe):
    pipe = family_pipe("stable-audio").pipe
    for call in (
        lambda given: attnviz.trace(pipe, processor=given),
        lambda given: attnviz.explain(pipe, np.zeros(160, np.float32), PROMPT, processor=given),
        lambda given: attnviz.editing.swap(pipe, "a dog", "a cat", processor=given),
    ):
        with pytest.raises(CaptureError, match="processor= has no use for StableAudioPipeline"):
            call(pipe.tokenizer)


def test_a_family_names_what_the_pipeline_lacks(family_pipe):
    family = dataclasses.replace(family_of(family_pipe("stable-audio").pipe), encoder="text_encoder_9")
    with pytest.raises(CaptureError, match="no text_encoder_9"):
        attnviz.trace(family_pipe("stable-audio").pipe, family=family)


def test_a_family_without_seconds_gives_no_seconds(family_pipe):
    made = family_pipe("stable-audio")
    family = dataclasses.replace(family_of(made.pipe), seconds=None)
    with pytest.raises(CaptureError, match="states no seconds"), attnviz.trace(made.pipe, family=family):
        made(PROMPT, num_inference_steps=1)


def test_what_has_no_meaning_for_a_family_is_refused(family_pipe):
    pipe = family_pipe("longcat-audio-dit").pipe
    with pytest.raises(CaptureError, match="once for each branch"):
        attnviz.trace(pipe, branch="both")
    with pytest.raises(CaptureError, match="states the axes"):
        attnviz.trace(pipe, grid=attnviz.audio.SpectrogramGrid())


# Prompts that the model does not get as they are ---------------------------------------------------------


def test_origins_of_a_lower_cased_prompt():
    prompt, encoded = "A  “Dog”, BARKS!", "a dog , barks!"
    found = origins(prompt, encoded)
    assert "".join(prompt[at] for at in found if at >= 0).casefold() == "adog,barks!"
    assert found[2:5] == [4, 5, 6]


def test_origins_of_a_template():
    assert origins("dog", "# Caption\ndog\n# Dog", "# Caption\n") == [-1] * 10 + [0, 1, 2] + [-1] * 6
    with pytest.raises(PromptError, match="does not follow"):
        origins("dog", "a cat", "# Caption\n")


@pytest.mark.parametrize("encoded", ["two dogs", "a dog", "2 cats", "22 dogs"])
def test_a_prompt_that_is_rewritten_is_refused(encoded):
    with pytest.raises(PromptError, match="changes the prompt"):
        origins("2 dogs", encoded)


def test_other_tokens_than_the_prompts_are_refused():
    tokenizer = attnviz.testing.make_tokenizer("t5")
    ids = tokenizer("a dog")["input_ids"]
    table = encoded_table(tokenizer, "a dog", [0, 0, *ids], [KeySegment("duration", 1), KeySegment("text")])
    assert table.rows["kind"].tolist()[:3] == ["duration", "padding", "padding"]
    assert table.rows["kind"].tolist()[-1] == "end"
    with pytest.raises(CaptureError, match="other tokens|the tokens"):
        encoded_table(tokenizer, "a cat", ids, [KeySegment("text")])


class ByHand:
    """A processor with a softmax of its own instead of torch's kernel."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        query = attn.to_q(hidden_states).unflatten(-1, (4, -1)).transpose(1, 2)
        key, value = (
            project(encoder_hidden_states).unflatten(-1, (2, -1)).transpose(1, 2).repeat_interleave(2, dim=1)
            for project in (attn.to_k, attn.to_v)
        )
        scores = torch.einsum("rhqw,rhkw->rhqk", query, key) / query.shape[-1] ** 0.5
        heads = torch.einsum("rhqk,rhkw->rhqw", scores.softmax(-1), value)
        return attn.to_out[0](heads.transpose(1, 2).flatten(2))


class Twice(diffusers.models.attention_processor.StableAudioAttnProcessor2_0):
    """A processor that attends once more, to something else."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        once = super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)
        return once + super().__call__(attn, hidden_states, encoder_hidden_states.flip(1), attention_mask)


@pytest.mark.parametrize(
    ("processor", "why"),
    [(ByHand, r"without torch's attention kernel.*set_attention_backend"), (Twice, "more than once")],
)
def test_a_processor_whose_attention_is_not_seen_is_refused(family_pipe, processor, why):
    made = family_pipe("stable-audio")
    attention = made.denoiser.transformer_blocks[1].attn2
    own, put = attention.processor, processor()
    attention.processor = put
    try:
        with pytest.raises(CaptureError, match=rf"transformer_blocks\.1\.attn2.*{why}"), attnviz.trace(made.pipe):
            made(PROMPT)
        assert attention.processor is put
    finally:
        attention.processor = own


class Plain(torch.nn.Module):
    """An attention module of a user's own: no slot for a processor, only torch's attention."""

    heads = 4

    def __init__(self, other):
        super().__init__()
        self.to_q, self.to_k, self.to_v, self.to_out = other.to_q, other.to_k, other.to_v, other.to_out
        self.by_hand = False

    def forward(self, hidden_states, encoder_hidden_states=None, attention_mask=None, **others):
        query = self.to_q(hidden_states).unflatten(-1, (4, -1)).transpose(1, 2)
        key, value = (
            each(encoder_hidden_states).unflatten(-1, (2, -1)).transpose(1, 2).repeat_interleave(2, dim=1)
            for each in (self.to_k, self.to_v)
        )
        if self.by_hand:
            made = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1) @ value
        else:
            made = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return self.to_out[0](made.transpose(1, 2).flatten(2))


@pytest.fixture
def with_plain(family_pipe):
    """Stable Audio with such a module in its second block."""
    made = family_pipe("stable-audio")
    block = made.denoiser.transformer_blocks[1]
    made.slotted = block.attn2
    block.attn2 = Plain(made.slotted)
    yield made
    block.attn2 = made.slotted


def test_modules_without_a_slot_are_traced(with_plain):
    plain = with_plain(PROMPT)
    with attnviz.trace(with_plain.pipe) as trace:
        traced = with_plain(PROMPT)
        with pytest.raises(CaptureError, match="being traced already"):
            attnviz.trace(with_plain.pipe).__enter__()
    assert torch.equal(plain, traced)
    module = with_plain.denoiser.transformer_blocks[1].attn2
    assert "forward" not in vars(module) and not hasattr(module, "processor")
    block = with_plain.denoiser.transformer_blocks[1]
    block.attn2 = with_plain.slotted  # the same weights in diffusers' own module
    with attnviz.trace(with_plain.pipe) as slotted:
        with_plain(PROMPT)
    for layer in trace.maps.layers:
        np.testing.assert_allclose(trace.maps[layer], slotted.maps[layer], rtol=1e-4, atol=1e-6)


def test_a_module_without_a_slot_says_what_is_missing(with_plain):
    module = with_plain.denoiser.transformer_blocks[1].attn2
    module.by_hand = True
    with pytest.raises(CaptureError, match="call torch.nn.functional.scaled_dot"), attnviz.trace(with_plain.pipe):
        with_plain(PROMPT)
    module.by_hand, module.heads = False, None
    with pytest.raises(CaptureError, match="no whole number of heads"), attnviz.trace(with_plain.pipe):
        with_plain(PROMPT)


def test_another_backend_is_refused_before_anything_runs(family_pipe):
    made = family_pipe("ace-step")
    processor = made.denoiser.layers[0].cross_attn.processor
    processor._attention_backend = "flash"
    try:
        with pytest.raises(CaptureError, match="layers.0.cross_attn is run by the backend flash"):
            attnviz.trace(made.pipe).__enter__()
    finally:
        del processor._attention_backend


def test_a_block_that_a_cache_skips_is_refused(family_pipe):
    """As feature caches do it: a block runs in some denoiser calls only."""
    made = family_pipe("ace-step")
    block = made.denoiser.layers[1]
    run, calls = block.forward, []

    def sometimes(hidden_states, *args, **kwargs):
        calls.append(1)
        return run(hidden_states, *args, **kwargs) if len(calls) == 1 else hidden_states

    block.forward = sometimes
    try:
        trace = attnviz.trace(made.pipe)
        with pytest.raises(CaptureError, match=r"1 of 2 .*did not run in denoiser call 1, first layers\.1"), trace:
            made(PROMPT)
        assert not trace.maps.complete
    finally:
        del block.forward


@pytest.mark.parametrize(("strides", "levels"), [(None, 3), ([4], 3), ([4, 2], 2), ([2, 4, 2, 8], 3)])
def test_seconds_of_longcat_are_those_of_its_layers(strides, levels):
    """The auto-encoder extends a short list of strides, and cuts a long one."""
    vae = diffusers.LongCatAudioDiTVae(
        in_channels=1, channels=8, c_mults=[1, 2, 2][:levels], strides=strides, latent_dim=4, encoder_latent_dim=8
    ).eval()
    pipe = types.SimpleNamespace(vae=vae)
    with torch.no_grad():
        made = vae.decode(torch.zeros(1, 4, 6)).sample.shape[-1]
    family = next(family for family in FAMILIES if family.name == "longcat-audio-dit")
    assert setting(pipe, family.seconds.samples) == made / 6


def test_compiled_models_are_refused(family_pipe):
    made = family_pipe("longcat-audio-dit")
    block = made.denoiser.blocks[0]
    block.compile()
    try:
        with pytest.raises(CaptureError, match=r"blocks\.0 is compiled"):
            attnviz.trace(made.pipe).__enter__()
    finally:
        block._compiled_call_impl = None


@pytest.mark.parametrize("name", NAMES)
def test_compiling_the_denoiser_during_a_trace_is_refused(family_pipe, name):
    made = family_pipe(name)
    plain = made(PROMPT)
    with attnviz.trace(made.pipe):
        made.denoiser.compile(backend="eager")
        try:
            with pytest.raises(CaptureError, match="is compiled with torch.compile"):
                made(PROMPT)
        finally:
            made.denoiser._compiled_call_impl = None
    assert torch.equal(made(PROMPT), plain)
