"""HiFi-GAN: its formula written out, the published files, and the authors' waveform."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from attnviz.audio import MelConfig, to_int16
from attnviz.errors import AudioError, CheckpointError, OutputError
from attnviz.models.vocoder import HifiGan, HifiGanConfig
from attnviz.models.vocoder.files import fold_weight_norm, split_weight_norm

# Odd and even surpluses (7 - 5 = 2, 7 - 2 = 5, 3 - 3 = 0), and more dilations than kind "2" uses.
TINY: dict[str, Any] = {
    "resblock": "1",
    "upsample_rates": [5, 2, 3],
    "upsample_kernel_sizes": [7, 7, 3],
    "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 4]],
    "num_mels": 12,
    "n_fft": 256,
    "hop_size": 30,
    "win_size": 120,
    "sampling_rate": 8000,
    "fmin": 0,
    "fmax": 4000,
    "a_training_setting": 0.5,
}


def published_state(config: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors with the names and pairs of the published file, made without the class under test."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}

    def add(name: str, *shape: int, bias: int) -> None:
        state[name + ".bias"] = torch.randn(bias, generator=generator) * 0.1
        state[name + ".weight_g"] = torch.rand(shape[0], 1, 1, generator=generator) * 0.8 + 0.6
        state[name + ".weight_v"] = torch.randn(*shape, generator=generator)

    channels = config["upsample_initial_channel"]
    add("conv_pre", channels, config["num_mels"], 7, bias=channels)
    block = 0
    for stage, kernel in enumerate(config["upsample_kernel_sizes"]):
        add(f"ups.{stage}", channels, channels // 2, kernel, bias=channels // 2)
        channels //= 2
        for size in config["resblock_kernel_sizes"]:
            names = ("convs1", "convs2") if str(config["resblock"]) == "1" else ("convs",)
            for name in names:
                for i in range(3 if str(config["resblock"]) == "1" else 2):
                    add(f"resblocks.{block}.{name}.{i}", channels, channels, size, bias=channels)
            block += 1
    add("conv_post", 1, channels, 7, bias=1)
    return state


def write_published(folder: Path, config: dict[str, Any] = TINY, **replaced: torch.Tensor) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save({"generator": {**published_state(config), **replaced}}, folder / "vocoder.pt")
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_published(tmp_path / "vocoder")


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- the formula, written out in float64 without torch's layers


def leaky(x: np.ndarray, slope: float) -> np.ndarray:
    return np.where(x > 0, x, slope * x)


def correlate(x: np.ndarray, w: np.ndarray, b: np.ndarray, dilation: int = 1) -> np.ndarray:
    """Convolution that keeps the length: out[o, t] = b[o] + sum x[i, t + (k - middle) * dilation] w[o, i, k]."""
    out = np.repeat(b[:, None], x.shape[1], axis=1)
    middle = w.shape[2] // 2
    for k in range(w.shape[2]):
        shift = (k - middle) * dilation
        for t in range(x.shape[1]):
            if 0 <= t + shift < x.shape[1]:
                out[:, t] += w[:, :, k] @ x[:, t + shift]
    return out


def upsample(x: np.ndarray, w: np.ndarray, b: np.ndarray, rate: int) -> np.ndarray:
    """Every input sample adds its kernel at rate * t; then the surplus is cut off at the front and the back."""
    kernel = w.shape[2]
    wide = np.zeros((w.shape[1], (x.shape[1] - 1) * rate + kernel + 1))
    for t in range(x.shape[1]):
        for k in range(kernel):
            wide[:, t * rate + k] += x[:, t] @ w[:, :, k]
    surplus = kernel - rate
    front = surplus // 2 if surplus % 2 == 0 else surplus // 2 + 1
    return wide[:, front : front + x.shape[1] * rate] + b[:, None]


def written_out(config: dict[str, Any], state: dict[str, torch.Tensor], mel: np.ndarray) -> np.ndarray:
    tensors = {name: value.double().numpy() for name, value in state.items()}

    def layer(name: str) -> tuple[np.ndarray, np.ndarray]:
        g, v = tensors[name + ".weight_g"], tensors[name + ".weight_v"]
        weight = np.stack([g[i] * v[i] / np.sqrt((v[i] * v[i]).sum()) for i in range(len(v))])
        return weight, tensors[name + ".bias"]

    x = correlate(mel.astype(np.float64), *layer("conv_pre"))
    block = 0
    for stage, rate in enumerate(config["upsample_rates"]):
        x = upsample(leaky(x, 0.1), *layer(f"ups.{stage}"), rate)
        total = np.zeros_like(x)
        for dilations in config["resblock_dilation_sizes"]:
            y = x
            if str(config["resblock"]) == "1":
                for i, dilation in enumerate(dilations[:3]):
                    z = correlate(leaky(y, 0.1), *layer(f"resblocks.{block}.convs1.{i}"), dilation)
                    y = y + correlate(leaky(z, 0.1), *layer(f"resblocks.{block}.convs2.{i}"))
            else:
                for i, dilation in enumerate(dilations[:2]):
                    y = y + correlate(leaky(y, 0.1), *layer(f"resblocks.{block}.convs.{i}"), dilation)
            total += y
            block += 1
        x = total / len(config["resblock_dilation_sizes"])
    return np.tanh(correlate(leaky(x, 0.01), *layer("conv_post")))[0]


@pytest.mark.parametrize("resblock", ["1", 1, "2", 2])
def test_the_waveform_vs_the_formula_written_out(tmp_path: Path, resblock: object) -> None:
    config = {**TINY, "resblock": resblock}
    model = HifiGan.from_pretrained(write_published(tmp_path / "v", config))
    mel = np.random.default_rng(1).normal(size=(2, 12, 6)).astype(np.float32)
    with torch.no_grad():
        audio = model(torch.from_numpy(mel))
    assert audio.dtype == torch.float32
    assert audio.shape == (2, 6 * 30)
    for item in range(2):
        expected = written_out(config, published_state(config), mel[item])
        np.testing.assert_allclose(audio[item].numpy(), expected, atol=2e-5)
        assert 0.05 < np.abs(expected).mean() < 0.9  # loud enough to differ, and the tanh hides nothing


@pytest.mark.golden
def test_the_waveform_vs_the_authors(golden_dir: Path, one_thread: None) -> None:
    golden = np.load(golden_dir / "gold.npz")
    model = HifiGan.from_pretrained(golden_dir / "adapter1" / "vocoder")
    with torch.no_grad():
        audio = model(torch.from_numpy(golden["adapter1/short|spectrogram"]))[0].numpy()
    assert audio.shape == (1024 * 160,)
    cut = audio[:160_000]
    expected = golden["adapter1/short|audio"][0].astype(int)
    # A stated difference: the original's +1.0 wraps around to -32768, ours is clipped to 32767.
    ours = np.where(cut >= 1.0, -32768, to_int16(cut).astype(int))
    difference = np.abs(ours - expected)
    # Equal to the bit with the authors' convolutions; these random weights amplify another order of summation.
    assert difference.max() <= 256
    assert (difference > 0).mean() < 0.01


# --- files


def test_saved_and_read_again_it_is_the_same_to_the_bit(tiny: Path, tmp_path: Path) -> None:
    model = HifiGan.from_pretrained(tiny)
    model.save_pretrained(tmp_path / "new" / "vocoder")
    again = HifiGan.from_pretrained(tmp_path / "new" / "vocoder")
    assert sorted(path.name for path in (tmp_path / "new" / "vocoder").iterdir()) == [
        "config.json",
        "vocoder.safetensors",
    ]
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    mel = torch.randn(1, 12, 5)
    with torch.no_grad():
        assert torch.equal(model(mel), again(mel))
    written = json.loads((tmp_path / "new" / "vocoder" / "config.json").read_text())
    assert written == TINY
    assert again.config == model.config


def test_a_module_in_training_with_weight_norm_is_saved_folded(tiny: Path, tmp_path: Path) -> None:
    model = HifiGan.from_pretrained(tiny)
    mel = torch.randn(1, 12, 5)
    expected = model(mel)
    torch.nn.utils.parametrizations.weight_norm(model.conv_pre)
    torch.nn.utils.parametrizations.weight_norm(model.ups[0])
    model.save_pretrained(tmp_path / "trained")
    assert not any("original" in name for name in load_file(tmp_path / "trained" / "vocoder.safetensors"))
    torch.testing.assert_close(HifiGan.from_pretrained(tmp_path / "trained")(mel), expected)


def test_pairs_fold_and_split(tiny: Path) -> None:
    state = published_state(TINY)
    folded = fold_weight_norm(state)
    v = state["ups.0.weight_v"].double()
    expected = state["ups.0.weight_g"] * v / v.pow(2).sum((1, 2), keepdim=True).sqrt()
    torch.testing.assert_close(folded["ups.0.weight"].double(), expected.double(), rtol=1e-6, atol=1e-7)
    split = split_weight_norm(folded)
    assert split.keys() == state.keys()
    assert all(split[name].shape == state[name].shape for name in state)
    for name, tensor in fold_weight_norm(split).items():
        torch.testing.assert_close(tensor, folded[name], rtol=1e-6, atol=1e-7)


def test_plain_weights_in_the_published_file_are_read(tiny: Path) -> None:
    mel = torch.randn(1, 12, 5)
    expected = HifiGan.from_pretrained(tiny)(mel)
    torch.save({"generator": fold_weight_norm(published_state(TINY))}, tiny / "vocoder.pt")
    assert torch.equal(HifiGan.from_pretrained(tiny)(mel), expected)


def test_it_fits_into_a_pipeline(tiny: Path) -> None:
    model = HifiGan.from_pretrained(tiny)
    assert not model.training
    assert (model.dtype, model.device) == (torch.float32, torch.device("cpu"))
    assert (model.num_mels, model.hop_size, model.sampling_rate) == (12, 30, 8000)
    assert model.mel == MelConfig(8000, 256, 120, 30, 12, 0.0, 4000.0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    mel = torch.randn(2, 12, 5)
    expected = model(mel)
    half = model.to(torch.bfloat16)
    assert half.dtype == torch.bfloat16
    audio = half(mel)
    assert audio.dtype == torch.float32
    assert (audio - expected).abs().max() < 0.1
    read = HifiGan.from_pretrained(tiny, torch_dtype=torch.bfloat16)
    assert read.dtype == torch.bfloat16
    assert torch.equal(read(mel), audio)


def test_batches_do_not_mix(tiny: Path) -> None:
    model = HifiGan.from_pretrained(tiny)
    mel = torch.randn(3, 12, 5)
    with torch.no_grad():
        torch.testing.assert_close(model(mel)[1:2], model(mel[1:2]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(12, 5), (1, 5, 12), (1, 12, 0), (1, 256, 5), (5, 12), (1, 12, 5, 1)])
def test_a_spectrogram_of_another_shape_is_refused(tiny: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(AudioError, match=r"\(n, 12, frames\)"):
        HifiGan.from_pretrained(tiny)(torch.zeros(shape))


# --- bad files


class _Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("plain_pickle", [True, False])
def test_a_pickle_with_code_in_it_is_refused_and_runs_nothing(tiny: Path, plain_pickle: bool) -> None:
    sprung = tiny / "sprung"
    content = {"generator": published_state(TINY), "trap": _Trap(sprung)}
    if plain_pickle:
        (tiny / "vocoder.pt").write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, tiny / "vocoder.pt")
    with pytest.raises(CheckpointError, match=r"vocoder.pt .*never loaded"):
        HifiGan.from_pretrained(tiny)
    assert not sprung.exists()
    torch.load(tiny / "vocoder.pt", weights_only=False) if not plain_pickle else pickle.loads(
        (tiny / "vocoder.pt").read_bytes()
    )
    assert sprung.exists()  # the trap was live


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"model": {}}, "\\['model'\\]; .*'generator'"),
        ([1, 2], "contains list"),
        ({"generator": {}}, "generator"),
        ({"generator": {"conv_pre.bias": 3}}, "not a state dict"),
        ({"generator": {3: torch.zeros(2)}}, "not a state dict"),
    ],
)
def test_weights_laid_out_otherwise_are_refused(tiny: Path, content: object, reason: str) -> None:
    torch.save(content, tiny / "vocoder.pt")
    with pytest.raises(CheckpointError, match=f"vocoder.pt.*{reason}"):
        HifiGan.from_pretrained(tiny)


@pytest.mark.parametrize("name", ["vocoder.pt", "vocoder.safetensors"])
def test_damaged_weights_are_refused_by_name(tiny: Path, tmp_path: Path, name: str) -> None:
    HifiGan.from_pretrained(tiny).save_pretrained(tmp_path / "new")
    folder = tiny if name == "vocoder.pt" else tmp_path / "new"
    good = (folder / name).read_bytes()
    for damaged in (
        b"",
        b"{}",
        b"abc",
        good[:100],
        good[: len(good) // 2],
        b"\x00" * 64,
        b"<html>Not Found</html>",
    ):
        (folder / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=name):
            HifiGan.from_pretrained(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(CheckpointError, match=name):
        HifiGan.from_pretrained(folder)


def test_bytes_changed_at_random_raise_nothing_else(tiny: Path) -> None:
    good = (tiny / "vocoder.pt").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(good)
        for place in random.integers(0, len(good), 20):
            damaged[place] = random.integers(256)
        (tiny / "vocoder.pt").write_bytes(bytes(damaged))
        try:
            HifiGan.from_pretrained(tiny)
        except CheckpointError as error:
            assert "vocoder.pt" in str(error)


def test_missing_files_are_named(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere.*config.json.*vocoder.safetensors"):
        HifiGan.from_pretrained(tmp_path / "nowhere")
    (tiny / "vocoder.pt").unlink()
    with pytest.raises(CheckpointError, match=r"neither vocoder.safetensors nor vocoder.pt"):
        HifiGan.from_pretrained(tiny)
    (tiny / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config.json is missing"):
        HifiGan.from_pretrained(tiny)


def test_weights_for_other_mel_bands_are_refused(tiny: Path) -> None:
    (tiny / "config.json").write_text(json.dumps({**TINY, "num_mels": 80}))
    with pytest.raises(CheckpointError, match=r"vocoder.pt.*weights for 12 mel bands, num_mels is 80"):
        HifiGan.from_pretrained(tiny)


@pytest.mark.parametrize(
    ("name", "tensor", "reason"),
    [
        ("ups.1.bias", torch.zeros(3), r"ups.1.bias has the shape \(3,\), expected \(4,\)"),
        ("ups.1.weight_v", torch.ones(8, 4, 9), r"expected \(8, 4, 7\)"),
        ("ups.1.weight_g", torch.ones(1, 4, 1), r"length \(g\) of ups.1.weight .*\(8, 1, 1\)"),
        ("ups.9.bias", torch.zeros(3), "ups.9.bias is not expected"),
        ("conv_new.weight_g", torch.ones(1, 1, 1), "conv_new.weight_g has no"),
        ("conv_new.weight_v", torch.ones(1, 1, 1), "conv_new.weight is missing"),
        ("ups.1.bias", torch.full((4,), torch.nan), "NaN"),
        ("ups.1.weight_v", torch.zeros(8, 4, 7), "NaN"),
        ("ups.1.bias", torch.zeros(4, dtype=torch.int64), "int64"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, name: str, tensor: torch.Tensor, reason: str) -> None:
    folder = write_published(tmp_path / "v", TINY, **{name: tensor})
    with pytest.raises(CheckpointError, match=f"vocoder.pt.*{reason}"):
        HifiGan.from_pretrained(folder)


def test_a_missing_tensor_is_named(tiny: Path) -> None:
    state = fold_weight_norm(published_state(TINY))
    del state["resblocks.2.convs2.1.bias"]
    save_file(state, tiny / "vocoder.safetensors")
    with pytest.raises(CheckpointError, match=r"vocoder.safetensors.*resblocks.2.convs2.1.bias is missing"):
        HifiGan.from_pretrained(tiny)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"resblock": "3"}, "resblock"),
        ({"resblock": True}, "resblock"),
        ({"resblock": None}, "resblock"),
        ({"upsample_rates": [5, 2]}, "2 upsample_rates but 3"),
        ({"upsample_rates": [5, 2, 4]}, "smaller than its rate"),
        ({"upsample_rates": "523"}, "upsample_rates"),
        ({"upsample_rates": [5, 2, 3.0]}, "upsample_rates"),
        ({"upsample_kernel_sizes": [7, 7, -3]}, "upsample_kernel_sizes"),
        ({"upsample_initial_channel": 20}, "halved 3 times"),
        ({"hop_size": 160}, "multiply to 30 .*hop_size is 160"),
        ({"num_mels": "12"}, "num_mels"),
        ({"num_mels": 0}, "num_mels"),
        ({"num_mels": True}, "num_mels is True"),
        ({"resblock_kernel_sizes": [3, 4]}, "odd"),
        ({"resblock_kernel_sizes": [3]}, "1 resblock_kernel_sizes but 2"),
        ({"resblock_dilation_sizes": [1, 3]}, "resblock_dilation_sizes"),
        ({"resblock_dilation_sizes": 3}, "resblock_dilation_sizes"),
        ({"sampling_rate": 4000}, "half the sampling rate"),
        ({"n_fft": 64}, "win_length"),
        ({"fmin": "low"}, "fmin"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(tiny: Path, change: dict[str, Any], reason: str) -> None:
    (tiny / "config.json").write_text(json.dumps({**TINY, **change}))
    with pytest.raises(CheckpointError, match=f"config.json.*{reason}"):
        HifiGan.from_pretrained(tiny)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\udcff", "[" * 100_000])
def test_a_configuration_that_is_no_json_object_is_refused(tiny: Path, text: str) -> None:
    (tiny / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=r"config.json"):
        HifiGan.from_pretrained(tiny)


@pytest.mark.parametrize("name", ["resblock", "upsample_rates", "num_mels", "resblock_dilation_sizes"])
def test_a_missing_setting_is_named(tiny: Path, name: str) -> None:
    (tiny / "config.json").write_text(json.dumps({key: TINY[key] for key in TINY if key != name}))
    with pytest.raises(CheckpointError, match=f"missing: \\['{name}'\\]"):
        HifiGan.from_pretrained(tiny)


def test_settings_left_out_are_the_published_ones() -> None:
    small = {key: TINY[key] for key in list(TINY)[:6]}
    config = HifiGanConfig.from_dict(
        {**small, "num_mels": 256, "upsample_rates": [5, 4, 8], "upsample_kernel_sizes": [7, 8, 9]}
    )
    assert config.mel == MelConfig()
    assert HifiGanConfig.from_dict({**TINY, "fmax": None}).fmax == 4000


def test_a_place_that_cannot_be_written_to(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(OutputError, match="file"):
        HifiGan.from_pretrained(tiny).save_pretrained(tmp_path / "file")
