"""Odd values for models, damaged files and odd commands: a result, or an error of attnviz, and soon."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import soundfile
import torch
from test_public_doors import EXCLUDED, Hang, within_seconds
from typer.testing import CliRunner

import attnviz
from attnviz.alignment import Alignment, align
from attnviz.audio import load_audio
from attnviz.cli.app import app
from attnviz.editing import PromptEdit, apply_edit, invert, refine, reweight, swap
from attnviz.errors import AttnVizError
from attnviz.maps import AttentionMaps
from attnviz.models.conditioning import TextConditioner
from attnviz.models.pipelines import AuffusionAudioToAudioPipeline, AuffusionInpaintPipeline, AuffusionPipeline
from attnviz.testing import example_events, example_maps
from attnviz.tracing.trace import Trace

NOISE = np.random.default_rng(0).normal(size=8000).astype(np.float32) / 10
PROMPTS = ("a dog barks", "a cat barks")
#: Wrong kinds and extreme numbers, for every parameter of a function that runs a model. Refused before it runs.
WRONG = (None, object(), "x" * 5000, -1, 10**9, float("nan"), [None], {"dog": object()}, b"dog")
EDIT = {"source": PROMPTS[0], "target": PROMPTS[1], "num_inference_steps": 1}
PARTS = ("specs", "encoders", "tokenizers", "adapters")
#: Each function, what it is called with beside the pipeline, and the arguments that are replaced.
CALLS = {
    "trace": (
        attnviz.trace,
        {},
        ("pipe", "keep", "tokens", "branch", "max_bytes", "method"),
    ),
    "explain": (
        attnviz.explain,
        {"audio": NOISE, "caption": "a dog barks", "timesteps": (50,), "draws": 1},
        ("pipe", "audio", "caption", "method", "latents", "timesteps", "draws", "overlap", "randomize", "keep",
         "tokens"),
    ),
    "swap": (
        swap,
        EDIT,
        ("pipe", "source", "target", "weights", "cross_replace_steps", "self_replace_steps", "clip",
         "num_inference_steps", "guidance_scale", "generator", "duration"),
    ),
    "refine": (
        refine,
        {**EDIT, "target": "a dog barks loudly"},
        ("pipe", "source", "target", "weights", "generator"),
    ),
    "reweight": (
        reweight,
        {"prompt": PROMPTS[0], "weights": {"dog": 2}, "num_inference_steps": 1},
        ("pipe", "prompt", "weights", "generator"),
    ),
    "invert": (
        invert,
        {"audio": NOISE, "prompt": PROMPTS[0], "num_inference_steps": 1},
        ("pipe", "audio", "prompt", "num_inference_steps", "method"),
    ),
    "apply_edit": (
        apply_edit,
        {"edit": PromptEdit("swap", *PROMPTS), "num_inference_steps": 1},
        ("pipe", "edit", "clip", "keep", "generator", "latents"),
    ),
    "TextConditioner": (
        lambda pipe, **given: TextConditioner(
            **{name: list(getattr(pipe.conditioner, name)) for name in PARTS} | given
        ),
        {},
        PARTS,
    ),
    "TextConditioner.encode": (
        lambda pipe, **given: pipe.conditioner.encode(**given),
        {"prompts": [PROMPTS[0]]},
        ("prompts", "device"),
    ),
    "TextConditioner.token_table": (
        lambda pipe, **given: pipe.conditioner.token_table(**given), {}, ("prompt",)
    ),
    "TextConditioner.save_pretrained": (
        lambda pipe, **given: pipe.conditioner.save_pretrained(**given), {}, ("folder",)
    ),
    "AuffusionPipeline.from_pipe": (
        AuffusionPipeline.from_pipe,
        {},
        ("pipe", "scheduler", "vocoder", "conditioner"),
    ),
    "AuffusionPipeline.encode_prompt": (
        AuffusionPipeline.encode_prompt,
        {"prompt": PROMPTS[0]},
        ("prompt", "device", "num_images_per_prompt", "negative_prompt", "clip_skip"),
    ),
    "AuffusionPipeline.decode_audio": (
        AuffusionPipeline.decode_audio,
        {"latents": torch.zeros(1, 4, 32, 4), "duration": 0.1},
        ("latents", "duration"),
    ),
    "AuffusionPipeline.load_lora_weights": (
        AuffusionPipeline.load_lora_weights,
        {"weights": {}},
        ("weights", "adapter_name"),
    ),
    "AuffusionPipeline.load_textual_inversion": (
        AuffusionPipeline.load_textual_inversion, {}, ("pretrained_model_name_or_path",)
    ),
    "AuffusionPipeline.save_pretrained": (AuffusionPipeline.save_pretrained, {}, ("save_directory",)),
    "AuffusionAudioToAudioPipeline": (
        lambda pipe, **given: AuffusionAudioToAudioPipeline.from_pipe(pipe)(**given),
        {"prompt": PROMPTS[0], "audio": NOISE, "num_inference_steps": 2, "width": 64},
        ("prompt", "audio", "strength", "duration", "width", "num_inference_steps", "generator"),
    ),
    "AuffusionInpaintPipeline": (
        lambda pipe, **given: AuffusionInpaintPipeline.from_pipe(pipe)(**given),
        {"prompt": PROMPTS[0], "audio": NOISE, "num_inference_steps": 2, "width": 64, "span": (0.1, 0.3)},
        ("prompt", "audio", "span", "mask", "context", "normalize", "strength", "duration"),
    ),
    "AuffusionPipeline": (
        AuffusionPipeline.__call__,
        {"prompt": PROMPTS[0], "num_inference_steps": 1},
        ("prompt", "num_inference_steps", "guidance_scale", "negative_prompt", "num_images_per_prompt",
         "generator", "width", "height", "duration", "eta", "guidance_rescale", "latents"),
    ),
}  # fmt: skip


class ModelRanError(Exception):
    """The denoiser was called: the arguments were accepted."""


@pytest.fixture(scope="module")
def pipe(small_checkpoint):
    pipe = attnviz.load(small_checkpoint)
    pipe.set_progress_bar_config(disable=True)

    def ran(*_: object, **__: object) -> None:
        raise ModelRanError

    pipe.unet.register_forward_pre_hook(ran)
    return pipe


def test_what_the_other_fuzz_leaves_to_this_one_is_here():
    left = {name for name, reason in EXCLUDED.items() if "test_hostile_input" in reason}
    assert left
    assert left <= set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_functions_that_run_a_model_refuse_odd_arguments(pipe, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, good, parameters = CALLS[name]
    wrong = []
    for parameter in parameters:
        for value in WRONG:
            given = {**good, parameter: value}
            found = outcome(lambda given=given: _entered(function(given.pop("pipe", pipe), **given)))
            if found:
                wrong.append(f"{name}({parameter}={str(value)[:40]}): {found}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["eta", "guidance_rescale", "guidance_scale", "duration"])
def test_numbers_that_are_not_finite_are_refused(pipe, name):
    for value in (float("nan"), float("inf")):
        with pytest.raises(AttnVizError, match=name):
            pipe(PROMPTS[0], num_inference_steps=1, **{name: value})


def _entered(result):
    """Enter a trace, which is where it looks at its pipeline."""
    if isinstance(result, Trace):
        with result:
            pass


def outcome(call):
    """Return what went wrong in a call: an error outside attnviz's, or more than ten seconds; else None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            within_seconds(call)
    except (AttnVizError, ModelRanError):
        return None
    except (Exception, Hang) as error:  # noqa: BLE001 the very thing that is looked for
        return f"{type(error).__name__}: {str(error)[:100]}"
    return None


def damaged(content: bytes) -> dict[str, bytes]:
    """Return damaged versions of a file's content."""
    rng = np.random.default_rng(0)
    middle = len(content) // 2
    return {
        "empty": b"",
        "half": content[:middle],
        "last byte lost": content[:-1],
        "random": rng.bytes(max(64, min(len(content), 4096))),
        "random in the middle": content[:middle] + rng.bytes(32) + content[middle + 32 :],
        "zeros": bytes(len(content)),
        "deep JSON": b"[" * 100_000,
        "deep objects": b'{"a":' * 100_000,
        "huge number": b'{"a": 1e999, "b": ' + b"9" * 5000 + b"}",
        "a list": b"[1, 2]",
        "null": b"null",
        "not UTF-8": b"\xff\xfe\x00\xd8" + content[:40],
    }


def _events(folder, suffix):
    from attnviz import events

    path = folder / f"events{suffix}"
    if suffix == ".jams":
        events.write_jams(example_events(), path, seconds=10.0)
    elif suffix == ".tsv":
        example_events().to_csv(path, sep="\t", index=False)
    elif suffix == ".json":
        path.write_text(json.dumps({"data": [{"audiocap_id": 1}]}))
    else:
        path.write_text("0.5\t1.5\tdog\n2\t3\train\n")
    return path


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".txt", ".jams", ".json", ".TextGrid"])
def test_damaged_event_files(tmp_path, suffix):
    path = _events(tmp_path, suffix)
    assert not _wrong_of([path], lambda: attnviz.read_events(path))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".aiff"])
def test_damaged_audio_files(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    soundfile.write(path, NOISE, 16_000)
    assert not _wrong_of([path], lambda: load_audio(path))
    assert not _wrong_of([path], lambda: attnviz.listen(path))


def test_damaged_maps(tmp_path):
    folder = tmp_path / "maps.zarr"
    example_maps().save(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    described, chunks = ([path for path in files if (path.suffix == ".json") is one] for one in (True, False))
    assert not _wrong_of([*described[:2], *chunks[:2]], lambda: AttentionMaps.load(folder))


def test_damaged_alignments(tmp_path):
    path = tmp_path / "saved"
    align(example_maps(), example_events()).save(path)
    files = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
    assert not _wrong_of(files[:8], lambda: Alignment.load(path))


def test_damaged_checkpoints(small_checkpoint, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(small_checkpoint, folder)
    files = list(folder.rglob("*.json"))
    wrong = []
    for path in sorted(files):
        content = path.read_bytes()
        for kind in ("half", "deep JSON", "a list"):
            path.write_bytes(damaged(content)[kind])
            if found := outcome(lambda: attnviz.load(folder)):
                wrong.append(f"{path.name}, {kind}: {found}")
        path.write_bytes(content)
    assert not wrong, "\n".join(wrong)


def _wrong_of(files, read):
    """Damage each file in each way, and return what did not end in a result or an error of attnviz."""
    wrong = []
    for path in files:
        content = path.read_bytes()
        for kind, damage in damaged(content).items():
            path.write_bytes(damage)
            if found := outcome(read):
                wrong.append(f"{path.name}, {kind}: {found}")
        path.write_bytes(content)
    return wrong


LONG = "x" * 5000
COMMANDS = [
    ("generate", "a dog barks", "--out", "run", "--device", "cpu:9"),
    ("generate", "a dog barks", "--out", "run", "--device", "nosuch"),
    ("generate", "a dog barks", "--out", LONG),
    ("generate", "a dog barks", "--out", "~nosuch/x"),
    ("generate", "a dog barks", "--out", ""),
    ("generate", "", "--out", "run"),
    ("generate", "a dog barks", "--out", "run", "--model", LONG),
    ("generate", "a dog barks", "--out", "run", "--model", ""),
    ("generate", "a dog barks", "--out", "run", "--guidance", "nan"),
    ("generate", "a dog barks", "--out", "run", "--steps", "1000000000"),
    ("generate", "a dog barks", "--out", "run", "--seed", "-1"),
    ("generate", "a dog barks", "--out", "run", "--precision", "float8"),
    ("generate", "a dog barks", "--out", "run", "--duration", "inf"),
    ("generate", "a dog barks", "--out", "run", "--duration", "nan"),
    ("generate", "a dog barks", "--out", "run", "--readout", "nosuch"),
    ("generate", "a dog barks", "--out", "run", "--keep", "nosuch"),
    ("generate", "a dog barks", "--out", "run", "--nosuch"),
    ("listen", LONG), ("listen", ""), ("listen", "."), ("listen", "~nosuch/x"), ("listen", "nosuch.wav"),
    ("align", LONG), ("align", ""), ("align", "."), ("align", ".", "--events", LONG), ("align", ".", "--listen"),
    ("explain", LONG, "a dog", "--out", "run"), ("explain", "nosuch.wav", "", "--out", "run"),
    ("explain", "nosuch.wav", "a dog", "--out", "run", "--draws", "1000000000"),
    ("report", LONG), ("report", "."), ("report", ""), ("report", ".", "."),
    ("figures", LONG), ("figures", "."), ("figures", ""),
    ("diagnose", LONG), ("diagnose", "."), ("diagnose", ""),
    ("doctor", "--device", "cpu:9"), ("doctor", "--model", LONG),
    ("edit", "swap", "a dog", "", "--out", "run"),
    ("edit", "swap", LONG, "a cat", "--out", "run", "--device", "cpu:9"),
    ("edit", "swap", "a dog", "a cat", "--out", "run", "--weight", "cat"),
    ("edit", "swap", "a dog", "a cat", "--out", "run", "--clip", LONG),
    ("train", "vae", "--data", ".", "--out", "run", "--config", ""),
    ("train", "vae", "--data", ".", "--out", "run", "--config", LONG),
    ("train", "vae", "--data", LONG, "--out", "run"), ("train", "vae", "--data", ".", "--out", LONG),
    ("train", "vae", "--data", ".", "--out", "run", "--threads", "1000000000"), ("train", "nosuch"),
    ("evaluate", LONG), ("evaluate", ""), ("evaluate", "."), ("evaluate", ".", "--embedder", LONG),
    ("evaluate", ".", "--reference", "~nosuch/x"), ("evaluate", ".", "--resamples", "1000000000"),
    ("evaluate", ".", "--out", LONG), ("evaluate", ".", "--cache", LONG), ("evaluate",),
    ("bundle", LONG), ("clean", LONG), ("clean", "~nosuch/x"), ("data", "esc10", LONG, "--nosuch"),
    (LONG,), ("",), ("generate",),
]  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda one: " ".join(part[:12] for part in one))
def test_odd_commands_end_in_a_message(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answers = []
    failed = outcome(lambda: answers.append(CliRunner().invoke(app, arguments)))
    assert failed is None
    (answer,) = answers
    assert isinstance(answer.exception, SystemExit), answer.exception
    assert answer.exit_code in (1, 2), answer.output
    assert "Traceback" not in answer.output
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_on_the_pipeline(pipe):
    with pytest.raises(AttnVizError):
        swap(pipe, *PROMPTS, num_inference_steps=10**9)
    assert torch.is_grad_enabled()
    assert not attnviz.capture.is_traced(pipe.unet)
