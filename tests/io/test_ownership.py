"""A folder is ours where a file of ours says so, and is replaced only where all in it is ours."""

from __future__ import annotations

import json

import pytest

from attnviz.errors import OutputError
from attnviz.io.ownership import MANIFEST, Kind
from attnviz.io.storage import check_free, whole_folder
from attnviz.testing import example_maps

FIGURES = Kind("figures")


def write(folder, *names, kind=FIGURES, overwrite=True):
    with whole_folder(folder, overwrite=overwrite, kind=kind) as place:
        for name in names:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(name)
    return folder


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_says_what_is_in_it_and_is_replaced(tmp_path):
    folder = write(tmp_path / "figures", "words.png", "run/layers.pdf")
    assert json.loads((folder / MANIFEST).read_text()) == {
        "attnviz": 1, "kind": "figures", "files": ["words.png", "run/layers.pdf"],
    }  # fmt: skip
    write(folder, "steps.png")
    assert files(folder) == [MANIFEST, "steps.png"]


@pytest.mark.parametrize("name", ["holiday.png", "run/thesis.pdf", "deep/er/words.png", ".hidden"])
def test_a_stranger_anywhere_keeps_all(name, tmp_path):
    folder = write(tmp_path / "figures", "words.png", "run/layers.pdf")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("mine")
    before = files(folder)
    with pytest.raises(OutputError, match=f"holds {name}, which attnviz did not write"):
        write(folder, "steps.png")
    with pytest.raises(OutputError, match=name):
        check_free(folder, overwrite=True, kind=FIGURES)
    assert files(folder) == before


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.png").touch()
    folder = write(tmp_path / "figures", "words.png")
    (folder / "photos").symlink_to(tmp_path / "photos")
    with pytest.raises(OutputError, match="holds photos,"):
        write(folder, "steps.png")
    assert (tmp_path / "photos" / "holiday.png").exists()


@pytest.mark.parametrize(
    "content",
    [None, "", "{", "[]", '{"attnviz": 1}', '{"attnviz": 2, "kind": "figures", "files": []}', "[" * 99],
)
def test_what_does_not_say_so_is_not_ours(content, tmp_path):
    folder = tmp_path / "figures"
    folder.mkdir()
    (folder / "words.png").write_text("mine")
    if content is not None:
        (folder / MANIFEST).write_text(content)
    with pytest.raises(OutputError, match="no file that shows"):
        write(folder, "words.png")
    assert (folder / "words.png").read_text() == "mine"


def test_another_kind_is_not_replaced_and_nothing_is_needed_of_an_empty_folder(tmp_path):
    folder = write(tmp_path / "scene", "a.wav", kind=Kind("scene"))
    with pytest.raises(OutputError, match="'scene', and this is 'figures'"):
        write(folder, "words.png")
    (tmp_path / "empty").mkdir()
    assert files(write(tmp_path / "empty", "words.png")) == [MANIFEST, "words.png"]
    (tmp_path / "empty" / ".DS_Store").touch()
    write(tmp_path / "empty", "words.png")


def test_folders_within_speak_for_themselves(tmp_path):
    """Maps that were saved again, and figures drawn later, do not make their run somebody else's."""
    kind = Kind("run", signed=lambda folder: (folder / "run.json").is_file(), names="run.json", manifest=False)
    run = write(tmp_path / "run", "run.json", kind=kind)
    write(run / "figures", "words.png")
    example_maps().save(run / "maps.zarr")
    write(run, "run.json", kind=kind)
    assert files(run) == ["run.json"]
    example_maps().save(run / "maps.zarr")
    (run / "maps.zarr" / "notes.txt").touch()
    with pytest.raises(OutputError, match=r"holds maps\.zarr/notes\.txt"):
        write(run, "run.json", kind=kind)


def test_maps_replace_maps_and_no_other_store(tmp_path):
    import xarray as xr

    maps = example_maps()
    xr.Dataset({"thesis": ("x", [1.0])}).to_zarr(tmp_path / "foreign.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(OutputError, match="not replaced"):
        maps.save(tmp_path / "foreign.zarr", overwrite=True)
    assert float(xr.open_zarr(tmp_path / "foreign.zarr", consolidated=False)["thesis"][0]) == 1
    maps.save(tmp_path / "maps.zarr")
    maps.save(tmp_path / "maps.zarr", overwrite=True)
    xr.Dataset({"thesis": ("x", [1.0])}).to_zarr(
        tmp_path / "maps.zarr", group="mine", mode="a", consolidated=False
    )
    with pytest.raises(OutputError, match="not replaced"):
        maps.save(tmp_path / "maps.zarr", overwrite=True)
