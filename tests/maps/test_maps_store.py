"""Saving and loading: bit-identical, whole or not at all, and no damage passes."""

from __future__ import annotations

import json
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from maps.grouped_layout import save_grouped
from maps.maps_synthetic import PROMPT, SMALL, captured, inside, make, sd_grids, table

from attnviz.errors import MapsError, OutputError
from attnviz.maps import AttentionMaps, packed

FINEST = "down_blocks.0.attentions.0"
TINY = {FINEST: (2, 3), "down_blocks.1.attentions.0": (1, 2)}


def small(seed: int = 0) -> AttentionMaps:
    return make(captured(TINY, seed=seed, latents=(5, 9)))


def everything() -> AttentionMaps:
    """Maps with every optional part: two ragged prompts, all axes, a spectrogram, awkward text."""
    layers = captured(SMALL, prompts=2, images=2, steps=3, heads=4, both=True, tokens=32)
    return make(
        layers,
        tokens=[table(PROMPT, encoders=2), table('a "dog" 🐕 & <b>wind</b>\n$x_1$ 雨', encoders=2)],
        positions=range(32),
        timesteps=[981.0, 981.0, 0.1 + 0.2],
        spectrogram=np.random.default_rng(1).normal(size=(2, 2, 40, 72)),
        provenance={"model": "ünïcode 🐕", "seed": 3, "nested": {"versions": {"torch": "2"}}, "none": None},
        complete=False,
    )


def assert_same(a: AttentionMaps, b: AttentionMaps) -> None:
    xr.testing.assert_identical(a.tree, b.tree)
    assert a.layers == b.layers
    for name in a.layers:
        assert a[name].dtype == b[name].dtype == np.float32
        assert a[name].to_numpy().tobytes() == b[name].to_numpy().tobytes()
    assert a.tokens == b.tokens
    assert (a.grid, a.provenance, a.timesteps) == (b.grid, b.provenance, b.timesteps)
    assert (a.complete, a.branch, a.encoder) == (b.complete, b.branch, b.encoder)


@pytest.mark.parametrize(
    "maps",
    [
        small(),
        everything(),
        everything().select(layers="up.1.0", steps=[0, 2], heads=1, encoder=1, branch="unconditional"),
        AttentionMaps.merge([small(), small()]),
    ],
    ids=["small", "everything", "selected", "merged"],
)
def test_a_round_trip_is_bit_identical(maps, tmp_path):
    maps.save(tmp_path / "maps.zarr")
    loaded = AttentionMaps.load(tmp_path / "maps.zarr")
    assert_same(maps, loaded)
    assert inside(tmp_path) == ["maps.zarr"]
    assert not any(coord.encoding for coord in loaded[loaded.layers[0]].coords.values())
    # What was loaded can be narrowed and saved again.
    kept = "step" in loaded[loaded.layers[-1]].dims
    narrowed = loaded.select(layers=loaded.layers[-1], steps=0 if kept else None, encoder=loaded.encoder or 0)
    narrowed.save(tmp_path / "again.zarr")
    assert_same(narrowed, AttentionMaps.load(tmp_path / "again.zarr"))


def test_negative_zero_and_tiny_values_survive(tmp_path):
    layers = captured(TINY, latents=(5, 9))
    for layer in layers.values():
        layer.attention[:] = -0.0
        layer.attention[0, 0, 1] = np.float32(1e-45)
    maps = make(layers)
    maps.save(tmp_path / "maps.zarr")
    assert_same(maps, AttentionMaps.load(tmp_path / "maps.zarr"))


@pytest.mark.filterwarnings("error")
def test_xarray_opens_the_file_by_itself_and_no_one_warns(tmp_path):
    maps = everything()
    maps.save(tmp_path / "maps.zarr")
    AttentionMaps.load(tmp_path / "maps.zarr")
    with xr.open_zarr(tmp_path / "maps.zarr") as opened:
        layer = opened["attention"].sel(layer="down_blocks.1.attentions.0")
        own = maps["down_blocks.1.attentions.0"]
        rows, columns = own.shape[-2:]
        np.testing.assert_array_equal(layer[..., :rows, :columns], own)
        assert np.isnan(layer[..., rows:, :]).all()
        assert np.isnan(layer[..., columns:]).all()
        assert layer["time"].dtype == np.float64  # not taken for durations
        np.testing.assert_array_equal(layer["time"][:columns], own["time"])
        np.testing.assert_array_equal(layer["freq"][:rows], own["freq"])
        assert layer["token_text"].to_numpy().tolist() == own["token_text"].to_numpy().tolist()
    assert zarr.open_group(tmp_path / "maps.zarr", mode="r").metadata.zarr_format == 3


def test_files_do_not_grow_with_layers(tmp_path):
    small().save(tmp_path / "two.zarr")
    many = make(captured(sd_grids(5, 9)), spectrogram=np.zeros((1, 1, 40, 72)))
    many.save(tmp_path / "sixteen.zarr")
    assert len(stored(tmp_path / "sixteen.zarr")) <= 15
    assert len(stored(tmp_path / "sixteen.zarr")) - len(stored(tmp_path / "two.zarr")) == 2  # of the spectrogram
    assert_same(many, AttentionMaps.load(tmp_path / "sixteen.zarr"))


@pytest.mark.parametrize("shard_bytes", [1_500, 20_000])
def test_large_maps_are_cut_into_shards_and_a_layer_is_read_alone(shard_bytes, tmp_path, monkeypatch):
    """Layers of other sizes and numbers of heads, in shards of a part of a layer, and of several layers."""
    monkeypatch.setattr(packed, "_SHARD_BYTES", shard_bytes)
    monkeypatch.setattr(packed, "_CHUNK_BYTES", shard_bytes // 2)
    layers = captured(SMALL, prompts=2, steps=3, heads=4, tokens=5)
    layers |= captured({"mid_block.attentions.0": (2, 3)}, prompts=2, steps=3, heads=7, tokens=5, latents=(5, 9))
    maps = make(layers, tokens=[table(PROMPT), table("wind")], positions=range(5))
    maps.save(tmp_path / "maps.zarr")
    assert_same(maps, AttentionMaps.load(tmp_path / "maps.zarr"))
    array = zarr.open_array(tmp_path / "maps.zarr" / "attention", mode="r")
    assert array.chunks[0] == 1
    assert len(stored(tmp_path / "maps.zarr" / "attention")) > 2
    assert array.shape[array.metadata.dimension_names.index("head")] == 7


# ---- older layouts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "maps",
    [small(), everything(), everything().select(layers="up.1.0", steps=[0, 2], heads=1, encoder=1)],
    ids=["small", "everything", "selected"],
)
def test_maps_of_version_2_are_read_bit_for_bit(maps, tmp_path):
    save_grouped(maps, tmp_path / "maps.zarr")
    assert len(stored(tmp_path / "maps.zarr")) > 30
    assert_same(maps, AttentionMaps.load(tmp_path / "maps.zarr"))


def test_maps_replace_those_of_version_2(tmp_path):
    save_grouped(small(), tmp_path / "maps.zarr")
    other = small(1)
    other.save(tmp_path / "maps.zarr", overwrite=True)
    assert_same(other, AttentionMaps.load(tmp_path / "maps.zarr"))
    assert len(stored(tmp_path / "maps.zarr")) <= 13


def test_no_damaged_file_of_version_2_passes(tmp_path):
    path = tmp_path / "maps.zarr"
    maps = small().select(layers="down.0.0")
    save_grouped(maps, path)
    for file in stored(path):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        try:
            loaded = AttentionMaps.load(path)
        except MapsError as error:
            assert str(path) in str(error)
        else:
            assert "/c/" not in str(file)
            assert_same(loaded, maps)
        file.write_bytes(content)


def stored(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


# ---- refusals when writing -------------------------------------------------------------------------------


def test_an_existing_path_is_refused_unless_overwritten(tmp_path):
    path = tmp_path / "maps.zarr"
    small().save(path)
    other = small(1)
    with pytest.raises(OutputError, match="exists already"):
        other.save(path)
    assert_same(AttentionMaps.load(path), small())
    other.save(path, overwrite=True)
    assert_same(AttentionMaps.load(path), other)
    assert inside(tmp_path) == ["maps.zarr"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_not_a_store_is_never_replaced(kind, tmp_path):
    path = tmp_path / "precious"
    if kind == "folder":
        path.mkdir()
        (path / "thesis.txt").write_text("years of work")
    else:
        path.write_text("years of work")
    with pytest.raises(OutputError, match="not replaced"):
        small().save(path, overwrite=True)
    assert (path if kind == "file" else path / "thesis.txt").read_text() == "years of work"
    assert inside(tmp_path) == ["precious"]


def test_overwriting_through_a_link_replaces_what_it_points_to(tmp_path):
    (tmp_path / "disk").mkdir()
    small().save(tmp_path / "disk" / "maps.zarr")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "disk" / "maps.zarr")
    other = small(1)
    other.save(tmp_path / "link.zarr", overwrite=True)
    assert (tmp_path / "link.zarr").is_symlink()
    assert_same(AttentionMaps.load(tmp_path / "disk" / "maps.zarr"), other)


def test_a_missing_parent_is_refused(tmp_path):
    with pytest.raises(OutputError, match="no folder"):
        small().save(tmp_path / "runs" / "maps.zarr")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="no folder"):
        small().save(tmp_path / "file" / "maps.zarr")


def test_no_permission_leaves_nothing(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind the superuser")
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match=r"[Pp]ermission"):
        small().save(tmp_path / "locked" / "maps.zarr")
    assert inside(tmp_path / "locked") == []


@pytest.fixture
def full_disk():
    """Every file may grow to 600 bytes only, so that a write fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_leaves_what_there_was(overwrite, tmp_path, request):
    path = tmp_path / "maps.zarr"
    before = small()
    if overwrite:
        before.save(path)
    request.getfixturevalue("full_disk")
    with pytest.raises(OutputError, match=r"Cannot write.*Nothing was left"):
        small(1).save(path, overwrite=overwrite)
    assert inside(tmp_path) == (["maps.zarr"] if overwrite else [])
    if overwrite:
        assert_same(AttentionMaps.load(path), before)


@pytest.mark.parametrize(
    ("fault", "raised", "words"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (PermissionError(13, "Permission denied"), OutputError, "Permission denied"),
        (OSError(28, "No space left on device"), OutputError, "No space left on device"),
    ],
)
def test_a_fault_while_writing_leaves_nothing(fault, raised, words, tmp_path, monkeypatch):
    create, made = zarr.Group.create_array, []

    def interrupted(self, name, **settings):
        if made:
            raise fault
        made.append(name)
        return create(self, name, **settings)

    monkeypatch.setattr(zarr.Group, "create_array", interrupted)
    with pytest.raises(raised, match=words):
        small().save(tmp_path / "maps.zarr")
    assert made
    assert inside(tmp_path) == []


def test_a_swap_that_fails_puts_the_old_maps_back(tmp_path, monkeypatch):
    path = tmp_path / "maps.zarr"
    small().save(path)
    rename = Path.rename

    def failing(self, target):
        if self.name.endswith(".partial"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match="Input/output error"):
        small(1).save(path, overwrite=True)
    assert inside(tmp_path) == ["maps.zarr"]
    assert_same(AttentionMaps.load(path), small())


# ---- damage ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "maps.zarr"
    everything().select(layers=["down.0.0", "up.1.0"], steps=0, heads=0).save(path)
    return path


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "copy.zarr"))


def refused(path: Path, match: str = "") -> None:
    with pytest.raises(MapsError, match=match) as caught:
        AttentionMaps.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_chunk_is_damage_not_fill_values(copy):
    for array in ("attention", "time", "token_text", "log_mel"):
        (chunk,) = [file for file in (copy / array / "c").rglob("*") if file.is_file()]
        content = chunk.read_bytes()
        chunk.unlink()
        layer = f" of {FINEST}" if array == "attention" else ""
        refused(copy, f"{array}{layer} differs from its checksum")
        chunk.write_bytes(content)


def test_a_missing_array_or_root_is_named(copy, tmp_path):
    """Without consolidated metadata, as a copy by another program may be."""
    root = json.loads((copy / "zarr.json").read_text())
    del root["consolidated_metadata"]
    (copy / "zarr.json").write_text(json.dumps(root))
    AttentionMaps.load(copy)
    shutil.rmtree(copy / "token_text")
    refused(copy, "token_text is missing")
    shutil.rmtree(copy / "attention")
    refused(copy, "damaged")
    (copy / "zarr.json").unlink()
    refused(copy, r"zarr\.json is missing")
    shutil.rmtree(copy)
    refused(copy, "does not exist")
    copy.write_text("a file")
    refused(copy, "is a file")


def test_nan_written_into_a_map_is_damage(copy):
    array = zarr.open_array(copy / "attention", mode="r+")
    array[1, ..., 0, 0] = np.nan
    refused(copy, r"attention of up_blocks\.1\.attentions\.0 differs from its checksum")


def test_a_changed_axis_or_attribute_is_damage(copy):
    zarr.open_array(copy / "time", mode="r+")[0, 0] = 99.0
    refused(copy, "time differs from its checksum")


@pytest.mark.parametrize(
    "key", ["tokens", "grid", "provenance", "timesteps", "complete", "levels", "layers", "axes", "facts"]
)
def test_a_changed_or_missing_root_attribute_is_damage(key, copy):
    root = json.loads((copy / "zarr.json").read_text())
    root["attributes"][key] = [] if isinstance(root["attributes"][key], list) else "{}"
    (copy / "zarr.json").write_text(json.dumps(root))
    refused(copy, "attributes")
    del root["attributes"][key]
    (copy / "zarr.json").write_text(json.dumps(root))
    refused(copy, f"lacks {key}|attributes differs")


def test_a_truncated_root_is_damage(copy):
    text = (copy / "zarr.json").read_text()
    (copy / "zarr.json").write_text(text[: len(text) // 2])
    refused(copy, r"zarr\.json cannot be read")


def test_other_stores_and_newer_versions_are_told_from_damage(tmp_path):
    xr.Dataset({"x": ("a", [1.0])}).to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    refused(tmp_path / "other.zarr", "without maps")
    small().save(tmp_path / "maps.zarr")
    root = json.loads((tmp_path / "maps.zarr" / "zarr.json").read_text())
    root["attributes"]["version"] = 4
    (tmp_path / "maps.zarr" / "zarr.json").write_text(json.dumps(root))
    refused(tmp_path / "maps.zarr", "newer")


def test_a_spectrogram_that_is_lost_is_damage(copy):
    shutil.rmtree(copy / "log_mel")
    refused(copy, "log_mel differs from its checksum")


def test_no_damaged_file_passes(tmp_path):
    """Each file deleted, emptied, cut in half, one byte flipped: an error, or (no data in it) the same maps."""
    path = tmp_path / "maps.zarr"
    maps = small().select(layers="down.0.0")
    maps.save(path)
    files = stored(path)
    harmless = []
    for file in files:
        content = file.read_bytes()
        at = len(content) * 2 // 3
        flipped = content[:at] + bytes([content[at] ^ 0x15]) + content[at + 1 :]
        for damage in (None, b"", content[: len(content) // 2], flipped):
            if damage is None:
                file.unlink()
            else:
                file.write_bytes(damage)
            try:
                loaded = AttentionMaps.load(path)
            except MapsError as error:
                assert str(path) in str(error)
            else:
                assert_same(loaded, maps)
                harmless.append((str(file.relative_to(path)), damage))
            file.write_bytes(content)
    chunks = [name for name, _ in harmless if "/c/" in name]
    assert not chunks
    # What describes an array is in the root, too.
    arrays = {str(file.relative_to(path)) for file in files if file.name == "zarr.json" and file.parent != path}
    assert {name for name, damage in harmless if damage is None or len(damage) < 10} == arrays
    assert_same(AttentionMaps.load(path), maps)
