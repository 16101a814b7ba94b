from __future__ import annotations

import json
import wave

import numpy as np
import pytest
import soundfile

from attnviz.audio import load_audio
from attnviz.errors import AudioError, OutputError
from attnviz.events import read_jams, read_tsv
from attnviz.scenes import ComposerConfig, Scene, compose, scene_files


@pytest.fixture(scope="module")
def scene(recordings):
    return compose(recordings, (1, 2), ComposerConfig(events=(3, 3)))


@pytest.fixture
def saved(scene, tmp_path):
    return scene.save(tmp_path / "scene", stems=True)


def test_without_stems(scene, tmp_path):
    folder = scene.save(tmp_path / "in" / "scene")
    assert sorted(path.name for path in folder.iterdir()) == [
        "attnviz.json", "events.jams", "events.tsv", "scene-1-2.wav", "scene.json",
    ]  # fmt: skip
    again = Scene.load(folder)
    assert (again.caption, again.sounds, again.seed, again.config, again.name) == (
        scene.caption,
        scene.sounds,
        scene.seed,
        scene.config,
        scene.name,
    )
    assert again.events.equals(scene.events)
    assert np.abs(again.mixture - scene.mixture).max() <= 1 / 32768
    assert again.activity(128).equals(scene.activity(128))
    assert again.stems is None
    with pytest.raises(AudioError, match="saved without stems"):
        again.masks()
    with pytest.raises(AudioError, match="no stems to save"):
        again.save(tmp_path / "again", stems=True)
    assert not (tmp_path / "again").exists()


def test_with_stems_everything_is_exact(scene, saved):
    again = Scene.load(saved)
    np.testing.assert_array_equal(again.mixture, scene.mixture)
    np.testing.assert_array_equal(again.stems, scene.stems)
    assert again.masks(32, 128).equals(scene.masks(32, 128))


def test_the_files_others_read(scene, saved):
    assert read_tsv(saved / "events.tsv").equals(scene.events)
    assert read_jams(saved / "events.jams").equals(scene.events)
    header = (saved / "events.tsv").read_text().splitlines()[0].split("\t")
    assert header[:4] == ["filename", "onset", "offset", "event_label"]
    with wave.open(str(saved / scene.name)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
    content = json.loads((saved / "scene.json").read_text())
    for sound in content["sounds"]:
        assert content["caption"][slice(*sound["span"])] == sound["label"]


def edit(path, **changes):
    content = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            del content[key]
        else:
            content[key] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "a scene of format 2"),
        ({"caption": None}, "is damaged: KeyError: 'caption'"),
        ({"caption": "another one"}, "the span of"),
        ({"config": {"event": 1}}, "no settings"),
        ({"sounds": [{"label": "x"}]}, "is damaged"),
        ({"name": "other.wav"}, "other.wav does not exist"),
    ],
)
def test_a_damaged_description_is_refused(saved, changes, message):
    edit(saved / "scene.json", **changes)
    with pytest.raises(AudioError, match=message):
        Scene.load(saved)


def test_damaged_files_are_refused(scene, saved, tmp_path):
    with pytest.raises(AudioError, match="does not contain a scene"):
        Scene.load(tmp_path)
    soundfile.write(saved / "stems" / "1.wav", 0.5 * scene.stems[1], 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="do not add up"):
        Scene.load(saved)
    (saved / "stems" / "1.wav").unlink()
    with pytest.raises(AudioError, match=r"1\.wav"):
        Scene.load(saved)
    soundfile.write(saved / scene.name, load_audio(saved / scene.name)[:-1], 16_000)
    with pytest.raises(AudioError, match="163839 samples"):
        Scene.load(saved)
    (saved / "scene.json").write_text("{")
    with pytest.raises(AudioError, match="does not contain a scene"):
        Scene.load(saved)


def test_what_is_there_is_replaced_only_when_asked_and_only_a_scene(scene, saved, tmp_path):
    with pytest.raises(OutputError, match="exists"):
        scene.save(saved)
    scene.save(saved, overwrite=True)
    assert Scene.load(saved).stems is None
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("keep")
    with pytest.raises(OutputError):
        scene.save(mine, overwrite=True)
    assert (mine / "thesis.txt").exists()


def test_a_full_disk_leaves_the_old_scene(scene, saved, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scene_files, "write_jams", full)
    with pytest.raises(OutputError, match="No space left"):
        scene.save(saved, overwrite=True)
    assert Scene.load(saved).stems is not None
    assert [path.name for path in saved.parent.iterdir()] == ["scene"]
