"""Configurations: read strictly, and nothing but TrainingError comes out."""

from __future__ import annotations

import copy
import json
from typing import get_args

import pytest
import torch
from diffusers import AutoencoderKL
from hypothesis import given
from hypothesis import strategies as st

from attnviz.errors import TrainingError
from attnviz.training.config import CONFIGS, PARTS, TrainingConfig, read_config
from attnviz.training.models import make_model
from attnviz.training.part import Player
from attnviz.training.run_folder import differences
from attnviz.training.settings import read_settings
from attnviz.training.setup import make_accelerator
from attnviz.training.state import _learner
from attnviz.training.text_tokenizers import EncoderKind
from attnviz.training.unet import UnetModel, UnetObjective

GOOD = {
    "part": "vae",
    "steps": 10,
    "batch_size": 2,
    "learning_rate": 1,
    "data": {"folds": [1, 2], "scenes": 5, "composer": {"events": [1, 3]}},
    "model": {"block_out_channels": [16, 32], "nested": {"deep": [1.5, "a"]}},
}


class OneWeight(Player):
    """A player with one weight."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))


def changed(path: str, value) -> dict:
    settings = copy.deepcopy(GOOD)
    *tables, name = path.split(".")
    place = settings
    for table in tables:
        place = place.setdefault(table, {})
    place[name] = value
    return settings


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_configurations(path):
    config = read_config(path)
    assert config.part == ("unet" if path.stem == "auffusion" else path.stem.split("-")[0])
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_every_part_has_a_shipped_configuration():
    names = {path.name for path in CONFIGS.glob("*.toml")}
    assert {f"{part}.toml" for part in PARTS if part != "text"} <= names
    assert {f"text-{kind}.toml" for kind in get_args(EncoderKind)} <= names


def test_the_paper_s_recipe_is_shipped():
    config = read_config(CONFIGS / "auffusion.toml")
    assert (config.part, config.steps, config.batch_size, config.learning_rate) == ("unet", 100_000, 20, 3e-5)
    model, objective = (
        read_settings(kind, values, "")
        for kind, values in ((UnetModel, config.model), (UnetObjective, config.objective))
    )
    assert model.checkpoint
    assert objective.condition_dropout == 0.1


def test_values_as_json_holds_them():
    config = TrainingConfig.from_dict(GOOD)
    assert config.to_dict()["data"]["folds"] == [1, 2]
    assert isinstance(config.learning_rate, float)
    assert config.data.folds == (1, 2)
    assert config.data.composition().events == (1, 3)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("learning_rte", 1e-3, "learning_rte is not a setting. Is learning_rate meant?"),
        ("data.fold", [1], "data.fold is not a setting. Is data.folds meant?"),
        ("data.composer.event", [1, 2], r"\[data.composer\]: .*'event'"),
        ("steps", 0, "steps is 0; it must be between 1 and"),
        ("steps", True, "steps is True; it must be a whole number"),
        ("steps", 10.0, "steps is 10.0; it must be a whole number"),
        ("steps", 10**400, "steps is a whole number of more than 64 bits"),
        ("learning_rate", 10**400, "learning_rate is a whole number of more"),
        ("learning_rate", float("nan"), "learning_rate is nan; it must be finite"),
        ("learning_rate", 0, "learning_rate is 0.0; it must be above 0"),
        ("beta2", 1, "beta2 is 1.0; it must be at least 0 and below 1"),
        ("seed", 2**32, "seed is 4294967296; it must be between 0 and 4294967295"),
        ("seed", -1, "seed is -1; it must be between 0 and"),
        ("schedule", "cosin", "schedule is 'cosin'; it must be one of 'constant'"),
        ("warmup_steps", 2, "'constant_with_warmup'"),
        ("part", ["vae"], r"part is \['vae'\]; it must be one of"),
        ("data", [], r"data is \[\]; it must be a table"),
        ("data.folds", [], "data.folds is empty"),
        ("data.folds", [6], r"data.folds contains \[6\]; ESC-10 has the folds 1, 2, 3, 4, 5"),
        ("data.folds", [1.0], r"data.folds\[0\] is 1.0; it must be a whole number"),
        ("data.folds", 1, "data.folds is 1; it must be a list"),
        ("data.validation_folds", [2, 3], r"share \[2\]"),
        ("data.composer.seconds", 10**400, "more than 64 bits"),
        ("model", "vae", "model is 'vae'; it must be a table"),
        ("model.width", float("inf"), "model.width is inf; it must be finite"),
        ("model.nested.deep", [object()], r"model.nested.deep\[0\] is <object"),
    ],
)
def test_refused(path, value, told):
    with pytest.raises(TrainingError, match=told):
        TrainingConfig.from_dict(changed(path, value))


def test_warmup_longer_than_the_training():
    with pytest.raises(TrainingError, match="warmup_steps is 11, more than the 10"):
        TrainingConfig.from_dict({**GOOD, "schedule": "cosine", "warmup_steps": 11})


def test_cycles_of_a_schedule_without_restarts():
    with pytest.raises(TrainingError, match="'cosine' has no cycles; use 'cosine_with_restarts'"):
        TrainingConfig.from_dict({**GOOD, "schedule": "cosine", "cycles": 2})


def test_the_first_of_two_cycles_is_the_training_that_ends_there():
    rates = {}
    for steps, schedule in ((7, {"schedule": "cosine"}), (12, {"schedule": "cosine_with_restarts", "cycles": 2})):
        config = TrainingConfig.from_dict(
            {**GOOD, "steps": steps, "warmup_steps": 2, "learning_rate": 0.5, **schedule}
        )
        learner = _learner(OneWeight(), config, make_accelerator(config))
        rates[steps] = []
        for _ in range(steps):
            rates[steps].append(learner.rate)
            learner.optimizer.step()
            learner.scheduler.step()
    assert rates[12][:7] == rates[7]
    assert rates[12][7:] == pytest.approx(rates[7][2:])  # the second cycle has no warmup


def test_missing():
    with pytest.raises(TrainingError, match=r"missing: part, steps.*data, model"):
        TrainingConfig.from_dict({})
    with pytest.raises(TrainingError, match="missing: data.scenes"):
        TrainingConfig.from_dict({**GOOD, "data": {"folds": [1]}})


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-5, 9)
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=2)
    | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)
COMPOSER = ["events", "seconds", "lengths", "levels", "semitones", "background", "sequences", "min_gap"]
KEYS = st.sampled_from(
    [*TrainingConfig.__dataclass_fields__, "data.folds", "data.scenes", "data.seed", "data.validation_folds"]
    + [f"data.composer.{name}" for name in COMPOSER]
)


@given(
    values=st.dictionaries(KEYS, VALUES, max_size=4),
    stray=st.dictionaries(st.text(max_size=4), VALUES, max_size=1),
)
def test_any_dictionary_is_read_or_refused(values, stray):
    settings = {**GOOD, **stray}
    for path, value in values.items():
        settings = _set(settings, path.split("."), value)
    try:
        config = TrainingConfig.from_dict(settings)
    except TrainingError:
        return
    text = json.dumps(config.to_dict(), allow_nan=False)
    assert TrainingConfig.from_dict(json.loads(text)).to_dict() == config.to_dict()


def _set(settings: dict, path: list[str], value) -> dict:
    if len(path) == 1:
        return {**settings, path[0]: value}
    inner = settings.get(path[0])
    return {**settings, path[0]: _set(inner if isinstance(inner, dict) else {}, path[1:], value)}


@given(values=VALUES)
def test_anything_is_no_configuration(values):
    with pytest.raises(TrainingError):
        TrainingConfig.from_dict(values)


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"steps = ", "is not TOML"), (b"\xff", "is not TOML"), (b"stps = 1", "c.toml: stps is not a setting")],
)
def test_files_that_are_refused(tmp_path, content, told):
    path = tmp_path / "c.toml"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=told):
        read_config(path)
    with pytest.raises(TrainingError, match="none.toml is missing"):
        read_config(tmp_path / "none.toml")


def test_differences_by_dotted_name():
    before, now = {"a": 1, "b": {"c": [1], "d": None}}, {"a": 1, "b": {"c": [2]}, "e": "x"}
    assert differences(before, before) == ""
    assert differences(before, now) == "b.c was [1] and is [2]; e was not set and is 'x'"


# Models

VAE = {"block_out_channels": [8, 8], "norm_num_groups": 2, "layers_per_block": 1}
VAE |= {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}


def test_model_of_settings_or_of_a_folder(tmp_path):
    model = make_model(AutoencoderKL, VAE, "vae")
    model.save_pretrained(tmp_path / "vae")
    again = make_model(AutoencoderKL, {"pretrained": str(tmp_path / "vae")}, "vae")
    assert again.config.block_out_channels == [8, 8]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({**VAE, "block_out_chanels": [8]}, "Is model.block_out_channels meant?"),
        ({**VAE, "block_out_channels": []}, "cannot create"),
        ({**VAE, "norm_num_groups": 0}, "cannot create"),
        ({**VAE, "norm_num_groups": 3}, "cannot create"),
        ({**VAE, "layers_per_block": "two"}, "cannot create"),
        ({**VAE, "down_block_types": ["Nothing", "Nothing"]}, "cannot create"),
        ({"pretrained": 3}, "model.pretrained is 3"),
        ({"pretrained": "x", "norm_num_groups": 2}, "remove norm_num_groups"),
    ],
)
def test_models_that_cannot_be_made(settings, told):
    with pytest.raises(TrainingError, match=told):
        make_model(AutoencoderKL, settings, "vae")
