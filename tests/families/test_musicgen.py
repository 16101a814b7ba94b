"""MusicGen and MusicGen Melody: maps of each frame, beside transformers' own eager attention."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from families.conftest import NEW

import attnviz
from attnviz.attribution import cascade
from attnviz.capture import SequenceRecorder
from attnviz.errors import AttnVizError, AudioError, CaptureError, MapsError, MemoryBudgetError, PromptError
from attnviz.models.families import family_of
from attnviz.tracing import generation

PROMPTS = ["a Dog barks, then rain falls", "rain"]
NAMES = ["musicgen", "musicgen-melody"]
CODEBOOKS, CHROMA, RATE = 4, 7, 50
FRAMES = NEW + 1 - CODEBOOKS


@pytest.fixture(params=NAMES)
def made(models, request):
    return models[request.param]


def traced(made, prompts=PROMPTS, *, keep=(), tokens="text", **changes):
    with attnviz.trace(made.model, processor=made.tokenizer, keep=keep, tokens=tokens) as trace:
        output = made(prompts, **changes)
    return trace, output


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_output_is_bit_identical_and_everything_is_restored(made, guidance):
    plain = made(guidance_scale=guidance)
    trace, output = traced(made, guidance_scale=guidance)
    assert torch.equal(plain, output)
    assert "generate" not in vars(made.model)
    assert "build_delay_pattern_mask" not in vars(made.model.decoder)
    assert not any("forward" in vars(site) for site in made.sites)
    assert not any(part._forward_pre_hooks for part in made.model.modules())
    maps = trace.maps
    assert trace.coverage == (2, 2)
    assert maps.complete
    assert maps.provenance["guidance_scale"] == guidance


def test_columns_are_frames_and_the_axis_says_what_they_share(made):
    trace, output = traced(made)
    curve = trace.maps.activation("Dog barks", prompt_index=0)
    np.testing.assert_allclose(curve.time, (np.arange(FRAMES) + 0.5) / RATE)
    # As long as the sound: 8 samples a frame at 400 Hz.
    assert output.shape[-1] == FRAMES * 8
    assert "4 positions" in curve.time.attrs["smear"]
    assert "share 3" in trace.maps.heatmap("rain", prompt_index=1).time.attrs["smear"]


def test_words_are_the_users(made):
    trace, _ = traced(made, tokens="all")
    for prompt, table in zip(PROMPTS, trace.maps.tokens, strict=True):
        assert table.prompt == prompt
    table = trace.maps.tokens[1]
    assert set(table.rows["kind"]) == {"text", "end", "padding"} | ({"audio"} if "melody" in made.name else set())
    ids = made.tokenizer("rain")["input_ids"]
    first = CHROMA if "melody" in made.name else 0
    assert table.rows["token_id"].tolist()[first : first + len(ids)] == ids


def codes_of(made, **changes):
    """Generate, and return the codes that the decoder was given: (prompts x codebooks, positions)."""
    pieces = {}

    def see(module, args, kwargs):
        past = kwargs.get("past_key_values")
        at = 0 if past is None else past.get_seq_length()
        pieces[at] = kwargs["input_ids"] if kwargs.get("input_ids") is not None else args[0]

    handle = made.model.decoder.register_forward_pre_hook(see, with_kwargs=True)
    try:
        made(**changes)
    finally:
        handle.remove()
    joined = torch.cat([pieces[at] for at in sorted(pieces)], dim=1)
    return joined[: len(PROMPTS) * CODEBOOKS]


def eager(made, codes):
    """Return transformers' own attention, teacher-forced: (layer, prompt, head, position, key)."""
    made.model.decoder.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            output = made.model(
                **made.inputs(),
                decoder_input_ids=codes,
                output_attentions=True,
                **({} if made.name == "musicgen" else {"input_features": chroma(made)}),
            )
    finally:
        made.model.decoder.set_attn_implementation("sdpa")
    if made.name == "musicgen":
        return torch.stack(output.cross_attentions)
    prefix = CHROMA + made.inputs()["input_ids"].shape[1]
    return torch.stack(output.attentions)[..., prefix:, :prefix]


def chroma(made):
    null = torch.zeros(len(PROMPTS), 1, 12)
    null[:, :, 0] = 1
    return null


def test_maps_equal_eager_attention(made):
    codes = codes_of(made)
    assert codes.shape == (len(PROMPTS) * CODEBOOKS, NEW)
    trace, _ = traced(made, keep=("head",), tokens="all")
    oracle = eager(made, codes)
    for number, layer in enumerate(trace.maps.layers):
        ours = trace.maps[layer].squeeze("image").to_numpy()  # prompt, head, token, time
        for frame in range(FRAMES):
            # Codebook k of a frame is predicted by the query at position frame + k.
            expected = np.mean([oracle[number][:, :, frame + k] for k in range(CODEBOOKS)], axis=0)
            np.testing.assert_allclose(ours[..., frame], expected, rtol=2e-4, atol=2e-6)


# Audio prompts -------------------------------------------------------------------------------------------

GIVEN = 6


def prompted(models):
    """MusicGen that continues a clip of six frames: its prompt is encoded in one call, made twice."""
    noise = torch.rand(len(PROMPTS), 1, GIVEN * 8, generator=torch.Generator().manual_seed(1)) - 0.5
    return models["musicgen"], {"input_values": noise, "max_new_tokens": NEW}


def unlike_eager(made, changes):
    """Greatest difference from teacher-forced eager attention over all columns, the prompt's included."""
    codes = codes_of(made, **changes)
    trace, _ = traced(made, keep=("head",), tokens="all", **changes)
    oracle = eager(made, codes)
    columns = trace.maps[trace.maps.layers[0]].sizes["time"]
    assert columns == codes.shape[1] + 1 - CODEBOOKS
    differences = []
    for number, layer in enumerate(trace.maps.layers):
        ours = trace.maps[layer].squeeze("image").to_numpy()
        for frame in range(columns):
            expected = np.mean([oracle[number][:, :, frame + k] for k in range(CODEBOOKS)], axis=0)
            differences.append(np.abs(ours[..., frame] - expected).max())
    return max(differences), trace


def test_columns_of_an_audio_prompt_are_its_own(models):
    made, changes = prompted(models)
    difference, trace = unlike_eager(made, changes)
    assert difference < 2e-6
    curve = trace.maps.activation("rain", prompt_index=1)
    assert curve.sizes["time"] > GIVEN  # the clip's frames come first
    assert trace.maps.provenance["frames_given"] == GIVEN
    np.testing.assert_allclose(curve.time, (np.arange(len(curve.time)) + 0.5) / RATE)


def test_an_audio_prompt_changes_no_sample(models):
    made, changes = prompted(models)
    plain = made(**changes)
    _, output = traced(made, **changes)
    assert torch.equal(plain, output)


@pytest.mark.parametrize("what", ["counting calls", "a delay too much", "one frame late"])
def test_the_oracle_fails_where_columns_of_an_audio_prompt_are_wrong(models, what, monkeypatch):
    made, changes = prompted(models)
    if what == "a delay too much":
        real = generation.delays_of
        monkeypatch.setattr(generation, "delays_of", lambda *given: real(*given) + 1)
    else:
        before, counted = SequenceRecorder._before, []

        def wrong(self, decoder, args, kwargs):
            before(self, decoder, args, kwargs)
            counted.append(1)
            # The first call is made twice: counting shifts what follows. Late: the codes of the clip move by one.
            self._first = len(counted) - 1 if what == "counting calls" else min(self._first + 1, 3)

        monkeypatch.setattr(SequenceRecorder, "_before", wrong)
    with pytest.raises((AssertionError, AttnVizError)):
        assert unlike_eager(made, changes)[0] < 2e-6


@contextmanager
def planted(made, at):
    """The query of one position of the first prompt holds the key of "Dog": codebook k of frame at - k."""
    offsets = made.tokenizer(PROMPTS[0], return_offsets_mapping=True)["offset_mapping"]
    keys = [i for i, (start, end) in enumerate(offsets) if start < 5 and end > 2 and end > start]
    prefix = CHROMA + made.inputs()["input_ids"].shape[1] if "melody" in made.name else 0
    if prefix:
        keys = [CHROMA + key for key in keys]
    handles, reached = [], {"cached": 0}

    def see(module, args, kwargs):
        past = kwargs.get("past_key_values")
        reached["cached"] = 0 if past is None else past.get_seq_length()

    handles.append(made.model.decoder.register_forward_pre_hook(see, with_kwargs=True))

    def query(module, args, output):
        planted = torch.zeros_like(output)
        place = prefix + at - reached["cached"]
        if 0 <= place < output.shape[1]:
            planted[0, place] = 20.0
        return planted

    def key(module, args, output):
        planted = torch.zeros_like(output)
        if output.shape[1] > max(keys):
            planted[:, keys] = 20.0
        return planted

    for site in made.sites:
        handles += [site.q_proj.register_forward_hook(query), site.k_proj.register_forward_hook(key)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("at", [5, 8])
def test_a_planted_pulse_is_read_in_the_frames_of_its_position(made, at):
    with planted(made, at):
        trace, _ = traced(made)
    curve = trace.maps.activation("Dog", prompt_index=0)
    high = curve.to_numpy() > 0.1
    assert np.flatnonzero(high).tolist() == list(range(at - CODEBOOKS + 1, min(at, FRAMES - 1) + 1))
    other = trace.maps.activation("rain", prompt_index=1).to_numpy()
    assert other.max() < 2 * other.min()  # uniform; over ever more keys where codes are keys, too


def test_fewer_tokens_than_a_delay_needs(made):
    trace, output = traced(made, max_new_tokens=5)
    assert output.shape[-1] == 5 * 8
    assert trace.maps.activation("rain", prompt_index=1).sizes["time"] == 5
    assert "smear" not in trace.maps.activation("rain", prompt_index=1).time.attrs


def test_an_interrupt_keeps_whole_frames(made):
    calls = []

    def stop(module, args):
        calls.append(1)
        if len(calls) > 8:
            raise KeyboardInterrupt

    handle = made.model.decoder.register_forward_pre_hook(stop)
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            attnviz.trace(made.model, processor=made.tokenizer) as trace,
        ):
            made()
    finally:
        handle.remove()
    assert "generate" not in vars(made.model)
    assert not trace.maps.complete
    assert 3 <= trace.maps.activation("rain", prompt_index=1).sizes["time"] < FRAMES


def test_saved_and_loaded(made, tmp_path):
    trace, _ = traced(made)
    trace.maps.save(tmp_path / "maps.zarr")
    loaded = attnviz.AttentionMaps.load(tmp_path / "maps.zarr")
    np.testing.assert_array_equal(loaded.heatmap("Dog"), trace.maps.heatmap("Dog"))
    assert loaded.heatmap("Dog").time.attrs == trace.maps.heatmap("Dog").time.attrs
    assert loaded.grid == trace.maps.grid


# Of a clip ----------------------------------------------------------------------------------------------


def undelayed(codes):
    """Codes of each frame from what the decoder was given: codebook k of frame f is at position f + k + 1."""
    # The last code of the last frame is given to no position.
    rows = torch.nn.functional.pad(codes[:CODEBOOKS], (0, 1))
    return torch.stack([row[k + 1 : k + 1 + FRAMES] for k, row in enumerate(rows)])


def explained(made, clip, caption=PROMPTS[0], **settings):
    return attnviz.explain(made.model, clip, caption, processor=made.tokenizer, **settings)


@pytest.fixture
def clip():
    return np.random.default_rng(0).standard_normal(FRAMES * 8).astype(np.float32) * 0.1


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_maps_of_codes_equal_those_of_the_generation_that_made_them(made, clip, guidance, monkeypatch):
    call = {"prompts": PROMPTS[:1], "guidance_scale": guidance}
    trace, _ = traced(made, keep=("head",), tokens="all", **call)
    codes = undelayed(codes_of(made, **call))

    class Codes:
        audio_codes = codes[None, None]

    monkeypatch.setattr(made.model.audio_encoder, "encode", lambda wave: Codes)
    maps = explained(made, clip, keep=("head",), tokens="all")
    assert maps.layers == trace.maps.layers
    for layer in maps.layers:
        np.testing.assert_allclose(maps[layer], trace.maps[layer], rtol=2e-4, atol=2e-6)
    assert maps.grid == trace.maps.grid
    assert maps.tokens[0].rows.equals(trace.maps.tokens[0].rows)


def test_codes_of_a_clip_are_those_that_the_model_makes_of_it(models, clip):
    made = models["musicgen"]
    seen = []

    def see(module, args, kwargs):
        seen.append(kwargs["input_ids"])

    handle = made.model.decoder.register_forward_pre_hook(see, with_kwargs=True)
    try:
        explained(made, clip)
        with torch.no_grad():
            made.model(**made.inputs(PROMPTS[:1]), input_values=torch.from_numpy(clip)[None, None])
    finally:
        handle.remove()
    ours, theirs = seen
    assert ours.shape == (CODEBOOKS, FRAMES + CODEBOOKS - 1)
    for k in range(CODEBOOKS):
        expected = [32] * (k + 1) + theirs[k].tolist() + [32] * CODEBOOKS
        assert ours[k].tolist() == expected[: ours.shape[1]]


def test_a_clip_at_another_rate_and_its_axes(made, clip):
    maps = explained(made, np.repeat(clip, 2)[:, None], sampling_rate=800)
    curve = maps.activation("Dog")
    np.testing.assert_allclose(curve.time, (np.arange(FRAMES) + 0.5) / RATE)
    assert "4 positions" in curve.time.attrs["smear"]
    assert not curve.isnull().any()


def test_a_clip_beyond_the_longest_call_is_read_in_windows(made):
    """At most 60 positions, 56 frames; where a window is alone, its maps are those of its own codes."""
    long = np.random.default_rng(1).standard_normal(80 * 8).astype(np.float32) * 0.1
    maps = explained(made, long, overlap=0.3)
    assert maps.provenance["windows"] == pytest.approx([0.0, 24 / RATE])
    assert maps.grid.width == 80
    whole = explained(made, long[: 56 * 8])
    np.testing.assert_allclose(maps.activation("Dog")[:20], whole.activation("Dog")[:20], atol=1e-5)


def test_windows_shorter_than_the_usual_overlap_overlap_by_a_quarter(made):
    long = np.random.default_rng(1).standard_normal(80 * 8).astype(np.float32) * 0.1
    maps = explained(made, long)
    assert maps.provenance["overlap"] == pytest.approx(56 / RATE / 4)
    assert maps.grid.width == 80


@pytest.mark.parametrize("at", [5, 8])
def test_a_planted_pulse_is_read_in_a_clip(made, clip, at):
    with planted(made, at):
        maps = explained(made, clip, PROMPTS[0])
    high = maps.activation("Dog").to_numpy() > 0.1
    assert np.flatnonzero(high).tolist() == list(range(at - CODEBOOKS + 1, min(at, FRAMES - 1) + 1))


def test_weights_are_shuffled_and_come_back(made, clip):
    family = family_of(made.model)
    blocks = cascade(made.model.decoder, family)
    layers = [f"model.decoder.layers.{n}" for n in (1, 0)]
    assert blocks == ["output", *layers, "input"]
    before = {key: value.clone() for key, value in made.model.decoder.state_dict().items()}
    plain, shuffled = explained(made, clip), explained(made, clip, randomize="input", randomize_seed=2)
    assert not np.allclose(plain.activation("Dog"), shuffled.activation("Dog"), rtol=1e-5)
    assert all(torch.equal(before[key], value) for key, value in made.model.decoder.state_dict().items())


def test_what_cannot_be_explained_says_why(models, clip):
    made = models["musicgen"]
    for settings, match in (
        ({"timesteps": (50,)}, r"timesteps=\(50,\).*without noise"),
        ({"latents": "inversion", "seed": 1}, "latents='inversion', seed=1.*without noise"),
        ({"keep": ("step",)}, "no steps"),
        ({"randomize": 9}, "from 0 to 4"),
    ):
        with pytest.raises(CaptureError, match=match):
            explained(made, clip, **settings)
    with pytest.raises(CaptureError, match="processor=AutoProcessor"):
        attnviz.explain(made.model, clip, "a dog")
    with pytest.raises(AudioError, match="at least 4"):
        explained(made, clip[:24])
    with pytest.raises(PromptError):
        explained(made, clip, "")
    with pytest.raises(MemoryBudgetError, match="budget"):
        explained(made, clip, max_bytes=100)
    with (
        attnviz.trace(made.model, processor=made.tokenizer),
        pytest.raises(CaptureError, match="already"),
    ):
        explained(made, clip)


# Refused ------------------------------------------------------------------------------------------------


def test_what_cannot_be_traced_says_why(models):
    made = models["musicgen"]
    with pytest.raises(CaptureError, match="processor=AutoProcessor"):
        attnviz.trace(made.model)
    with pytest.raises(CaptureError, match="no steps"):
        attnviz.trace(made.model, processor=made.tokenizer, keep=("step",))
    with pytest.raises(CaptureError, match="attend to nothing"):
        attnviz.trace(made.model, processor=made.tokenizer, branch="both")
    with pytest.raises(CaptureError, match="joins the sequences"):
        traced(made, num_return_sequences=2)
    with pytest.raises(MapsError, match="No frame"):
        with attnviz.trace(made.model, processor=made.tokenizer) as trace:
            pass
        _ = trace.maps
    with pytest.raises(PromptError, match="no text"), attnviz.trace(made.model, processor=made.tokenizer):
        made.model.generate(**made.model.get_unconditional_inputs(1), max_new_tokens=NEW)
    small = attnviz.trace(made.model, processor=made.tokenizer, max_bytes=100)
    with pytest.raises(MemoryBudgetError, match="budget"), small:
        made()
    with (
        pytest.raises(CaptureError, match="already"),
        attnviz.trace(made.model, processor=made.tokenizer),
        attnviz.trace(made.model, processor=made.tokenizer),
    ):
        pass


def test_eager_attention_is_refused_with_what_to_set(made):
    made.model.decoder.set_attn_implementation("eager")
    try:
        with pytest.raises(CaptureError, match=r'set_attn_implementation\("sdpa"\)'):
            traced(made)
    finally:
        made.model.decoder.set_attn_implementation("sdpa")


def test_two_calls_are_two_runs(models):
    made = models["musicgen"]
    with attnviz.trace(made.model, processor=made.tokenizer) as trace:
        made(["a dog barks"])
        made(["rain falls"])
    assert [maps.tokens[0].prompt for maps in trace.runs] == ["a dog barks", "rain falls"]
    with pytest.raises(MapsError, match="ambiguous"):
        _ = trace.maps


@torch.no_grad()
def test_what_a_word_adds_to_the_log_probability_of_the_codes(made, clip):
    """The code of codebook k at position p + 1 is predicted at p: told from what the decoder was given."""
    seen = []

    def see(module, args, kwargs, output):
        seen.append((kwargs["input_ids"].reshape(CODEBOOKS, -1), output.logits.log_softmax(-1)))

    handle = made.model.decoder.register_forward_hook(see, with_kwargs=True)
    try:
        maps = explained(made, clip, "a Dog barks", method="leave_one_out")
    finally:
        handle.remove()
    assert len(seen) == 4  # the caption, and without each of three words

    def likely(given, logits):
        logits = logits[:, -given.shape[1] :]
        return [
            sum(float(logits[k, f + k, given[k, f + k + 1]]) for k in range(CODEBOOKS))
            for f in range(FRAMES - 1)  # the last code of the last frame is given to no position
        ]

    with_it, without_dog = (np.array(likely(*seen[at])) for at in (0, 2))
    np.testing.assert_allclose(maps.activation("Dog")[:-1], with_it - without_dog, atol=1e-4)
    assert maps.content["signed"] == 1
    assert "nats" in maps.content["quantity"]
    assert float(abs(maps.activation("Dog")).max()) > 0


def test_methods_that_need_more_than_codes_are_refused(models, clip):
    made = models["musicgen"]
    for method in ("shapley", "integrated_gradients", "gradient", "heard", "rollout"):
        with pytest.raises(CaptureError, match=f"{method}.*musicgen"):
            explained(made, clip, method=method)
    with pytest.raises(CaptureError, match="removal='keys'"):
        explained(made, clip, method="leave_one_out", removal="keys")
    value = explained(made, clip, method="value")
    assert float(value.activation("Dog").max()) > 0


def test_a_decoder_compiled_during_a_trace_is_refused(made):
    decoder = made.model.decoder
    with attnviz.trace(made.model, processor=made.tokenizer):
        decoder.compile(backend="eager")
        try:
            with pytest.raises(CaptureError, match="compiled with torch.compile"):
                made()
        finally:
            decoder._compiled_call_impl = None
    assert made() is not None


def test_a_pair_of_model_and_processor_is_told_what_to_pass(made):
    with pytest.raises(CaptureError, match=r"trace\(model, processor=processor\)"):
        attnviz.trace((made.model, made.tokenizer))
