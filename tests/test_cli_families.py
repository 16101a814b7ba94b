"""Models of other families from the command line: loaded by what their folder states, run, written, examined."""

from __future__ import annotations

import importlib.util
import json

import diffusers
import numpy as np
import pytest
import soundfile
import torch
import transformers
from typer.testing import CliRunner

import attnviz
from attnviz.audio import to_int16
from attnviz.cli.app import app
from attnviz.cli.commands import figures
from attnviz.errors import CaptureError, CheckpointError
from attnviz.models.pipelines.published import ModelWithProcessor, Published
from attnviz.report.run_folder import is_run
from attnviz.testing import write_family_checkpoint

PROMPT = "a Dog barks, then rain falls"
# Options of a short call, the same in Python, sampling rate and channels, and whether there is frequency.
CALLS = {
    "audioldm2": (["--duration", 0.64], {"audio_length_in_s": 0.64}, 16_000, 1, True),
    "stable-audio": (["--duration", 1.5], {"audio_end_in_s": 1.5}, 160, 2, False),
    "musicgen": (["--duration", 0.4], {"max_new_tokens": 20 + 3}, 400, 1, False),
}
NAMES = list(CALLS)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    folders = {name: write_family_checkpoint(root / name, name) for name in NAMES}
    as_published(folders["audioldm2"])
    return folders


def as_published(folder):
    """Name the language model, and the keys of its weights, as AudioLDM2's folders on the hub do."""
    model = transformers.GPT2LMHeadModel.from_pretrained(folder / "language_model")
    model.transformer.save_pretrained(folder / "language_model")
    index = json.loads((folder / "model_index.json").read_text())
    index["language_model"] = ["transformers", "GPT2Model"]
    (folder / "model_index.json").write_text(json.dumps(index))


def command(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def runs(checkpoints, tmp_path_factory):
    """A run folder of each, made once."""
    made = {}

    def run_of(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("runs") / name
            steps = [] if name == "musicgen" else ["--steps", 1]
            options = ["--model", checkpoints[name], "--seed", 3, "--guidance", 2, *CALLS[name][0], *steps]
            result = command("generate", PROMPT, *options, "--out", folder)
            assert result.exit_code == 0, result.output
            made[name] = folder
        return made[name]

    return run_of


# Loading -------------------------------------------------------------------------------------------------


def test_a_folder_is_loaded_by_the_class_it_names(checkpoints):
    assert type(attnviz.load(checkpoints["audioldm2"])) is diffusers.AudioLDM2Pipeline
    pipe = attnviz.load(str(checkpoints["stable-audio"]), torch_dtype=torch.bfloat16)
    assert type(pipe) is diffusers.StableAudioPipeline
    assert pipe.transformer.dtype == torch.bfloat16
    model, processor = attnviz.load(checkpoints["musicgen"])
    assert type(model) is transformers.MusicgenForConditionalGeneration
    assert type(processor) is transformers.MusicgenProcessor
    assert not model.training


def test_a_loaded_pair_is_traced_with_its_processor(checkpoints):
    loaded = attnviz.load(checkpoints["musicgen"])
    assert isinstance(loaded, ModelWithProcessor)
    with attnviz.trace(loaded) as trace:
        loaded.model.generate(**loaded.processor(text=[PROMPT], return_tensors="pt"), max_new_tokens=8)
    assert trace.maps.prompts == [PROMPT]


def test_melody_is_loaded_with_its_tokenizer_where_the_processor_is_not_whole(tmp_path):
    loaded = attnviz.load(write_family_checkpoint(tmp_path / "melody", "musicgen-melody"))
    assert type(loaded.model) is transformers.MusicgenMelodyForConditionalGeneration
    assert loaded.processor(text=[PROMPT])["input_ids"]


@pytest.mark.parametrize(
    ("file", "content", "error", "message"),
    [
        (
            "model_index.json",
            {"_class_name": "AudioLDMPipeline"},
            CaptureError,
            "AudioLDMPipeline cannot be traced",
        ),
        ("model_index.json", {"_class_name": "MusicLDMPipeline"}, CaptureError, "generate with and without it"),
        (
            "model_index.json",
            {"_class_name": "FluxPipeline"},
            CheckpointError,
            "FluxPipeline, which belongs to no",
        ),
        ("config.json", {"model_type": "bark"}, CheckpointError, "is a bark, which belongs to no family"),
        ("model_index.json", ["AudioLDM2Pipeline"], CheckpointError, "not an Auffusion checkpoint"),
        ("main_config.json", {}, CheckpointError, "states no unet_model_config_path"),
        (
            "config.json",
            {"joint_attention_dim": 1024, "num_single_layers": 18, "audio_seq_len": 645},
            CheckpointError,
            "tangoflux.safetensors is missing",
        ),
        (
            "model_index.json",
            {"_class_name": "StableAudioPipeline", "vae": ["mine", "Vae"]},
            CheckpointError,
            "code of a checkpoint's own is never run",
        ),
        ("model_index.json", {"_class_name": "AudioDiffusion"}, CheckpointError, "Is a newer version needed"),
    ],
)
def test_other_folders_are_refused_by_name(file, content, error, message, tmp_path):
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(error, match=message):
        attnviz.load(tmp_path)


def test_a_scheduler_whose_library_is_missing_is_named_before_anything_runs(tmp_path):
    """As Stable Audio Open is published: its scheduler needs torchsde."""
    folder = write_family_checkpoint(tmp_path / "model", "stable-audio")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "CosineDPMSolverMultistepScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    if importlib.util.find_spec("torchsde") is not None:
        pytest.skip("torchsde is installed, so this scheduler can be made")
    result = command("generate", PROMPT, "--model", folder, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "torchsde" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "file"),
    [("stable-audio", "tokenizer/tokenizer.json"), ("audioldm2", "tokenizer_2/tokenizer.json"),
     ("audioldm2", "tokenizer/tokenizer.json"), ("musicgen", "tokenizer.json"),
     ("musicgen-melody", "tokenizer.json"), ("tango", "google/flan-t5-large/tokenizer.json"),
     ("tango-flux", "google/flan-t5-large/tokenizer.json")],
)  # fmt: skip
def test_a_checkpoint_without_a_vocabulary_is_refused(name, file, tmp_path):
    """Without its files, transformers makes a tokenizer that knows no word, and does not say so."""
    folder = write_family_checkpoint(tmp_path / name, name)
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        attnviz.load(folder)


@pytest.mark.parametrize("name", ["stable-audio", "audioldm2"])
@pytest.mark.parametrize(("content", "message"), [(None, "is missing"), ('["StableAudioPipeline"]', "names none")])
def test_a_pipeline_whose_index_names_no_class_is_told(name, content, message, tmp_path):
    folder = write_family_checkpoint(tmp_path / name, name)
    (folder / "model_index.json").unlink()
    if content is not None:
        (folder / "model_index.json").write_text(content)
    with pytest.raises(CheckpointError, match=rf"its model_index\.json.*{message}"):
        attnviz.load(folder)


@pytest.mark.parametrize("name", ["stable-audio", "musicgen"])
def test_a_checkpoint_without_all_weights_is_refused(name, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = write_family_checkpoint(tmp_path / name, name)
    path = next(folder.glob("transformer/*.safetensors" if name == "stable-audio" else "*.safetensors"))
    weights = load_file(path)
    gone = next(key for key in weights if "attn" in key and key.endswith("weight"))
    save_file({key: value for key, value in weights.items() if key != gone}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="attn"):
        attnviz.load(folder)


# Generating ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_run_holds_what_the_model_made(name, runs, checkpoints):
    folder, (_, call, rate, channels, has_freq) = runs(name), CALLS[name]
    sound = {"spectrogram.npz", "spectrogram.png"} if has_freq else set()
    files = {"audio.wav", "maps.zarr", "run.json", "tokens.csv", "words.png"} | sound
    assert files <= {path.name for path in folder.iterdir()}
    assert is_run(folder)
    if name == "musicgen":
        model, processor = attnviz.load(checkpoints[name])
        with attnviz.trace(model, processor=processor) as trace, torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            made = model.generate(**processor(text=[PROMPT], return_tensors="pt"), guidance_scale=2.0, **call)[0]
    else:
        pipe = attnviz.load(checkpoints[name])
        with attnviz.trace(pipe) as trace:
            generator = torch.Generator().manual_seed(3)
            out = pipe(PROMPT, num_inference_steps=1, guidance_scale=2.0, generator=generator, **call)
        made = torch.as_tensor(out.audios[0]).float()
    expected = made.numpy().reshape(channels, -1)
    samples, found = soundfile.read(folder / "audio.wav", dtype="int16", always_2d=True)
    assert found == rate
    np.testing.assert_array_equal(samples.T, np.stack([to_int16(one) for one in expected]))
    maps = attnviz.AttentionMaps.load(folder / "maps.zarr")
    np.testing.assert_array_equal(maps.heatmap("Dog barks"), trace.maps.heatmap("Dog barks"))
    record = json.loads((folder / "run.json").read_text())
    assert (record["family"], record["seed"], record["sampling_rate"]) == (name, 3, rate)
    assert record["provenance"]["guidance_scale"] == 2.0
    assert record["duration"] == pytest.approx(CALLS[name][0][1])


def test_report_of_a_run_with_frequency(runs):
    report = command("report", runs("audioldm2"))
    assert report.exit_code == 0, report.output


@pytest.mark.parametrize("name", NAMES[1:])
def test_report_and_figures_of_a_run_without_frequency(name, runs, monkeypatch):
    monkeypatch.setattr(figures, "_save", lambda figure, path, style: None)  # drawing them is slow enough
    report = command("report", runs(name), "--overwrite")
    assert report.exit_code == 0, report.output
    payload = (runs(name) / "report.html").read_text(encoding="utf-8")
    assert '"flat": true' in payload or '"flat":true' in payload
    drawn = command("--json", "figures", runs(name), "--word", "Dog")
    assert drawn.exit_code == 3
    assert set(json.loads(drawn.stdout)["left_out"]) == {"spectrogram", "steps", "alignment"}


def test_the_seed_alone_decides_what_a_model_without_generator_writes(runs, checkpoints, tmp_path):
    torch.rand(3)
    model = ["--model", checkpoints["musicgen"], "--seed", 3, "--guidance", 2, *CALLS["musicgen"][0]]
    assert command("generate", PROMPT, *model, "--out", tmp_path / "again").exit_code == 0
    assert (tmp_path / "again" / "audio.wav").read_bytes() == (runs("musicgen") / "audio.wav").read_bytes()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("audioldm2", ["--guidance-interval", 0, 0.8], "AudioLDM2Pipeline has no setting for --guidance-interval"),
        ("musicgen", ["--negative", "noise", "--steps", 3], "no setting for --num-inference-steps, --negative"),
        ("musicgen", ["--keep", "step"], "no steps to keep"),
        ("stable-audio", ["--duration", 7200], "at most 3600 s"),
        ("stable-audio", ["--guidance", "nan"], "guidance_scale"),
    ],
)
def test_settings_without_use_are_refused_before_loading(
    name, options, message, checkpoints, tmp_path, monkeypatch
):
    monkeypatch.setattr(Published, "load", lambda *_: pytest.fail("the weights were loaded"))
    result = command("generate", PROMPT, "--model", checkpoints[name], *options, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_what_the_model_refuses_is_said(checkpoints, tmp_path):
    options = ["--model", checkpoints["stable-audio"], "--steps", 1, "--duration", 60]
    result = command("generate", PROMPT, *options, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "StableAudioPipeline refuses the settings" in result.stderr
    assert not list(tmp_path.iterdir())


def test_commands_that_need_auffusion_say_so(checkpoints, runs, tmp_path):
    model = ["--model", checkpoints["audioldm2"], "--out", tmp_path / "run"]
    result = command("edit", "swap", "a dog", "a cat", *model)
    assert result.exit_code == 1
    assert (
        "names the class AudioLDM2Pipeline, which only attnviz generate, explain and doctor take" in result.stderr
    )


# Explain -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_a_recording(name, checkpoints, tmp_path):
    """At the rate of the model, with events that are scored; the maps are those of Python."""
    rate = CALLS[name][2]
    samples = np.random.default_rng(0).standard_normal(round(0.64 * rate)).astype(np.float32) * 0.1
    soundfile.write(tmp_path / "clip.wav", samples, rate)
    events = ["onset\toffset\tevent_label", "0.1\t0.3\tDog barks", "0.3\t0.6\train falls"]
    (tmp_path / "clip.tsv").write_text("\n".join(events))
    noise = [] if name == "musicgen" else ["--timestep", 300, "--draws", 1]
    options = ["--model", checkpoints[name], "--events", tmp_path / "clip.tsv", *noise]
    result = command("--json", "explain", tmp_path / "clip.wav", PROMPT, *options, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["phrases"]) > 1
    audio, written = soundfile.read(tmp_path / "run" / "audio.wav")
    assert (written, audio.ndim, len(audio)) == (rate, 1, len(samples))
    assert (tmp_path / "run" / "spectrogram.npz").exists() == CALLS[name][4]
    maps = attnviz.AttentionMaps.load(tmp_path / "run")
    how = {"timesteps": (300,), "draws": 1} if noise else {}
    same = attnviz.explain(attnviz.load(checkpoints[name]), tmp_path / "clip.wav", PROMPT, **how)
    np.testing.assert_allclose(maps.activation("rain"), same.activation("rain"), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("musicgen", ["--timestep", 50], "without noise and timesteps"),
        ("musicgen", ["--readout", "auffusion"], "is not defined for musicgen"),
        ("stable-audio", ["--readout", "fitted"], "is not defined for stable-audio"),
        ("stable-audio", ["--readout", "mid.0"], "transformer_blocks.0"),
    ],
)
def test_what_is_not_defined_for_a_recording_is_refused(name, options, message, checkpoints, tmp_path):
    soundfile.write(tmp_path / "clip.wav", np.full(8000, 0.1), 16_000)
    options = ["--model", checkpoints[name], *options, "--out", tmp_path / "run"]
    result = command("explain", tmp_path / "clip.wav", PROMPT, *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "run").exists()


# Doctor --------------------------------------------------------------------------------------------------


FOUND = {
    # Sites, grids, seconds a column, settings.
    "audioldm2": (10, "8 x 25, 4 x 13, 2 x 7 (frequency x time), of 2 s", "0.08, 0.16, 0.32", "--negative"),
    "stable-audio": (2, "40 (time), of 2 s", "0.05", "--negative"),
    "stable-audio-3": (2, "8 (time), of 2 s", "0.25", "--negative"),
    "longcat-audio-dit": (2, "24 (time), of 2 s", "0.08333", "--negative"),
    "ace-step": (2, "25 (time), of 2 s", "0.08", "--duration"),
    "musicgen": (2, "100 (time), of 2 s", "0.02", "--duration"),
    "musicgen-melody": (2, "100 (time), of 2 s", "0.02", "--duration"),
    "tango": (
        10,
        "16 x 256, 8 x 128, 4 x 64, 2 x 32 (frequency x time), of 10.24 s",
        "0.04, 0.08, 0.16, 0.32",
        "--num-inference-steps",
    ),
    "tango-flux": (3, "40 (time), of 2 s", "0.05", "--duration"),
}


@pytest.mark.parametrize("name", FOUND)
def test_doctor_knows_the_families(name, checkpoints, tmp_path):
    assert set(FOUND) == set(attnviz.testing.FAMILIES)
    folder = checkpoints[name] if name in NAMES else write_family_checkpoint(tmp_path / name, name)
    sites, grids, seconds, option = FOUND[name]
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    result = command("--json", "doctor", folder)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["found"]
    assert (found["family"], found["grids"], found["seconds"]) == (name, grids, f"{seconds} a column")
    assert found["sites"].startswith(f"{sites} modules attend to the text")
    assert found["licence"] == "cc-by-nc-4.0 (from README.md)"
    assert found["layers"].count(".") >= 2
    assert option in found["settings"].split(", ")


def test_doctor_refuses_models_without_words(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "AudioLDMPipeline"}')
    result = command("doctor", tmp_path)
    assert result.exit_code == 1
    assert "one CLAP vector of the whole prompt" in result.stderr
