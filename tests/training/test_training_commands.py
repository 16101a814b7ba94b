"""``attnviz train`` and ``attnviz data`` on recordings made by formula and models of a few weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from diffusers import AutoencoderKL
from scenes.synthetic_scenes import write_layout
from typer.testing import CliRunner

from attnviz.cli.app import app
from attnviz.listener.model import Listener
from attnviz.models.conditioning import TextConditioner
from attnviz.training import loop
from attnviz.training.checkpoints import list_checkpoints
from attnviz.training.vae import VaePart

COMMON = """
steps = 3
batch_size = 2
learning_rate = 1e-3
checkpoint_every = 2
sample_every = 2
log_every = 1

[data]
folds = [1]
scenes = 2
validation_folds = [2]
validation_scenes = 1
"""  # scenes are 256 x 1024, as ever

VAE = f"""
part = "vae"
{COMMON}
[model]
block_out_channels = [4, 4, 4]
down_block_types = ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"]
up_block_types = ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]
layers_per_block = 1
norm_num_groups = 2
mid_block_add_attention = false
[objective]
columns = 64
"""

LISTENER = f"""
part = "listener"
{COMMON}
[model]
channels = [4, 4]
hidden = 4
"""


@pytest.fixture(scope="module")
def esc10(tmp_path_factory) -> Path:
    return write_layout(tmp_path_factory.mktemp("esc10") / "ten", classes=range(1, 11), folds=(1, 2), per_fold=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def train(tmp_path, esc10, cache):
    for name, text in (("vae", VAE), ("listener", LISTENER)):
        (tmp_path / f"{name}.toml").write_text(text)

    def run(part: str, *arguments, config=None, out="run"):
        config = tmp_path / f"{config or part}.toml"
        places = ["--data", esc10, "--out", tmp_path / out, "--config", config, "--cache", cache]
        return CliRunner().invoke(app, [str(item) for item in ("train", part, *places, *arguments)])

    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(next(folder.rglob("*.safetensors")))


@pytest.mark.parametrize(("part", "kind"), [("vae", AutoencoderKL), ("listener", Listener)])
def test_train_and_resume(train, tmp_path, part, kind):
    result = train(part)
    assert result.exit_code == 0, result.output
    assert "Written to" in result.output
    run = tmp_path / "run"
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints", "config.json", "metrics.csv", "model", "samples",
    ]  # fmt: skip
    assert [path.name for path in sorted((run / "samples").iterdir())] == ["step-0000002", "step-0000003"]
    assert "validation_" in (run / "metrics.csv").read_text()
    assert sum(tensor.numel() for tensor in kind.from_pretrained(run / "model" / part).state_dict().values())

    # As if it had been killed in step 3.
    again = tmp_path / "again"
    shutil.copytree(run, again)
    shutil.rmtree(again / "model")
    shutil.rmtree(list_checkpoints(again)[-1])
    result = train(part, "--resume", out="again")
    assert result.exit_code == 0, result.output
    before, after = weights(run / "model"), weights(again / "model")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)

    # As if it had been killed before it was exported, when nothing had been sampled since.
    shutil.rmtree(again / "model")
    assert train(part, "--resume", out="again").exit_code == 0
    after = weights(again / "model")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert weights(list_checkpoints(run)[-1]).keys() == weights(list_checkpoints(again)[-1]).keys()


def test_refusals(train, tmp_path):
    result = train("vae", config="listener")
    assert result.exit_code == 1
    assert "trains the listener, not the vae" in result.stderr
    # A shipped configuration goes by its name.
    places = ["--data", tmp_path, "--out", tmp_path / "run", "--config", "auffusion"]
    result = CliRunner().invoke(app, [str(item) for item in ("train", "vae", *places)])
    assert "auffusion trains the unet, not the vae" in " ".join(result.stderr.split())
    wrong = (("none", "is missing"), ("x" * 5000, "too long"), ("~nosuch/a", "unknown user"), ("", "is empty"))
    for config, message in wrong:  # an empty one is not that which ships
        result = CliRunner().invoke(app, [str(item) for item in ("train", "vae", *places[:-1], config)])
        assert (result.exit_code, message in " ".join(result.stderr.split())) == (1, True)
    assert train("drums").exit_code == 2
    assert train("vae", "--threads", 0).exit_code == 2
    assert not (tmp_path / "run").exists()


TEXT = f"""
part = "text"
{COMMON}
[model]
vocabulary = 560
hidden_size = 8
layers = 1
heads = 2
[objective]
kind = "bert"
"""


def test_text_encoder(train, tmp_path):
    (tmp_path / "text.toml").write_text(TEXT)
    (tmp_path / "captions.txt").write_text("\n".join(f"a dog barks {i} times" for i in range(30)))
    result = train("text", "--objective", "bert", "--captions", tmp_path / "captions.txt", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["validation"].keys() == {"perplexity_scenes", "perplexity_files"}
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["objective"]["captions"] == [str(tmp_path / "captions.txt")]
    assert TextConditioner.from_pretrained(told["model"]).num_keys == 77
    # Resumed without the captions, it would be another training.
    refused = train("text", "--resume")
    assert (refused.exit_code, "objective.captions was" in refused.stderr) == (1, True)
    assert "has the objective bert, not t5" in " ".join(train("text", "--objective", "t5").stderr.split())
    assert "part text only" in train("vae", "--objective", "t5").stderr
    bare = CliRunner().invoke(app, ["train", "text", "--data", str(tmp_path), "--out", str(tmp_path / "other")])
    assert "give the --objective" in bare.stderr


def test_bundle(train, tmp_path):
    assert train("vae").exit_code == 0
    result = CliRunner().invoke(app, ["bundle", str(tmp_path / "out"), "--vae", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert "training/vae.csv, training/vae.json, vae" in " ".join(result.output.split())
    assert all(tensor.dtype == torch.float16 for tensor in weights(tmp_path / "out" / "vae").values())
    result = CliRunner().invoke(app, ["bundle", str(tmp_path / "out")])
    assert (result.exit_code, "no run is given" in result.stderr) == (1, True)


def test_interrupted(train, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    threads = torch.get_num_threads()
    monkeypatch.setattr(loop, "train", stop)
    result = train("vae", "--threads", threads)
    assert result.exit_code == 130
    assert "No checkpoint has been saved" in result.stderr
    monkeypatch.undo()
    batch, calls = VaePart.batch, []

    def batch_or_stop(self, *arguments):
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return batch(self, *arguments)

    monkeypatch.setattr(VaePart, "batch", batch_or_stop)
    result = train("vae")
    assert result.exit_code == 130
    assert f"The last checkpoint is at step 2; resume {tmp_path / 'run'}" in result.stderr
    assert train("vae", "--resume").exit_code == 0


def test_data(esc10, tmp_path):
    """A copy that is not as published is refused, and leaves nothing."""
    result = CliRunner().invoke(app, ["data", "esc10", str(tmp_path / "out"), "--from", str(esc10)])
    assert result.exit_code == 1
    assert "is not ESC-10 as published" in result.stderr
    assert not (tmp_path / "out").exists()


def test_data_from_a_whole_copy(tmp_path):
    source = write_layout(tmp_path / "source", classes=range(1, 11), folds=range(1, 6), per_fold=8, seconds=0.5)
    command = ["data", "esc10", str(tmp_path / "out"), "--from", str(source)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out").glob("*/*.ogg"))) == 400
    assert "exists already" in CliRunner().invoke(app, command).stderr
    assert CliRunner().invoke(app, [*command, "--overwrite"]).exit_code == 0


# A process of its own: accelerate keeps one precision for as long as a process lives.
HALF_PRECISION = """
import sys
from pathlib import Path
from training.training_toys import ToyPart, toy_config, toy_scenes
from attnviz.errors import TrainingError
from attnviz.training import loop

stops_at, out = 0, Path(sys.argv[1])

def make_part(config, *_):
    part = ToyPart(config)
    def before_batch(number):
        if number == stops_at:
            raise KeyboardInterrupt
    part.before_batch = before_batch
    return part

def train(config, name, **options):
    loop.train(config, esc10=".", out=out / name, cache=".", **options)

loop.make_part, loop.open_scenes = make_part, lambda *_: (toy_scenes(), None)
config = toy_config(mixed_precision="bf16")
train(config, "whole")
stops_at = 6
try:
    train(config, "run")
except KeyboardInterrupt:
    stops_at = 0
train(config, "run", resume=True)
try:
    train(toy_config(), "other")
except TrainingError as error:
    print(error)
"""


@pytest.mark.slow
def test_half_precision_resumes_exactly(run_script, tmp_path):
    said = run_script(HALF_PRECISION, tmp_path)
    before, after = weights(tmp_path / "whole" / "model"), weights(tmp_path / "run" / "model")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "already been initialized" in said
