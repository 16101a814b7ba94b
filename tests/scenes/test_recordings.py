from __future__ import annotations

import pickle
import re
import shutil
from collections import Counter

import numpy as np
import pytest
from scenes.synthetic_scenes import ogg, write_layout

from attnviz.audio.ogg import ogg_damage
from attnviz.errors import AttnVizWarning, AudioError
from attnviz.scenes import CLASSES, RECORDING_RATE, attributions, read_esc10
from attnviz.scenes.recordings import list_recordings

THREE = CLASSES[:3]


@pytest.fixture
def folder(three_classes, tmp_path):
    return shutil.copytree(three_classes, tmp_path / "copy")


def readme(*names: str) -> str:
    lines = ["**002 - Rain**:"]
    for name in names:
        lines.append(
            f"- **[{name}.ogg](https://example.org/002%20-%20Rain/{name}.ogg)**:     clip derived from "
            f"[rain (2) [take].wav](http://www.freesound.org/people/a/sounds/1/) by *a_b* "
            "([CC-BY](http://creativecommons.org/licenses/by/3.0/))"
        )
    return "\n".join(lines)


def test_names_are_read(three_classes):
    found = read_esc10(three_classes, classes=THREE)
    assert len(found) == 3 * 2 * 2
    first = found[0]
    assert (first.sound, first.class_id, first.fold, first.freesound_id, first.take) == (
        "Dog bark",
        1,
        1,
        1100,
        "A",
    )
    assert first.name == "1-1100-A"
    assert first.audio.dtype == np.float32
    assert first.audio.shape == (RECORDING_RATE,)
    assert not first.audio.flags.writeable
    assert first.audio is first.audio
    start, end = first.loudest
    assert 0.09 * RECORDING_RATE <= start < end <= 0.41 * RECORDING_RATE


def test_folds_and_classes_filter(three_classes):
    found = read_esc10(three_classes, folds=[2], classes=["Rain", "Dog bark"])
    assert {(r.sound, r.fold) for r in found} == {("Dog bark", 2), ("Rain", 2)}
    assert found == [r for r in read_esc10(three_classes, classes=THREE) if r.fold == 2 and r.class_id < 3]


def test_damaged_files_are_named_and_counted(folder):
    dog, rain, sea = (folder / f"00{i} - {name}" for i, name in enumerate(THREE, start=1))
    whole = (dog / "1-1100-A.ogg").read_bytes()
    (dog / "1-1100-A.ogg").write_bytes(whole[: len(whole) // 2])
    (rain / "1-2100-A.ogg").write_bytes(ogg(np.zeros(RECORDING_RATE)))
    (sea / "2-3200-A.ogg").write_bytes(b"")
    (sea / "2-3201-A.ogg").write_text("a note")
    (sea / "rain take one.ogg").write_bytes(whole)
    (sea / ".hidden.ogg").write_bytes(b"")
    with pytest.warns(AttnVizWarning, match="5 of 13 recordings were skipped") as caught:
        found = read_esc10(folder, classes=THREE)
    message = str(caught[0].message)
    for part in (
        r"1-1100-A\.ogg \(truncated",
        r"1-2100-A\.ogg \(silent\)",
        r"2-3200-A\.ogg \(an empty file\)",
        r"2-3201-A\.ogg \(not an Ogg file\)",
        r"rain take one\.ogg \(no name",
    ):
        assert re.search(part, message), part
    assert len(found) == 8


def test_missing_recordings_are_known_from_the_readme(folder):
    (folder / "README.md").write_text(readme("1-2100-A", "1-999-B", "5-2500-A"))
    with pytest.warns(AttnVizWarning, match=r"1 of 13 .*1-999-B\.ogg \(missing\)\."):
        read_esc10(folder, classes=THREE)  # fold 5 is left out as a whole: nothing of it is missing
    assert read_esc10(folder, classes=THREE, folds=[2])


def test_truncated_to_no_class_left_is_refused(folder):
    for path in (folder / "002 - Rain").glob("1-*.ogg"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AudioError, match=r"no usable recording of \['Rain'\] in folds \[1\].*truncated"):
        read_esc10(folder, classes=THREE, folds=[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": [3], "classes": THREE}, r"folds \[3\].*there are folds \[1, 2\]"),
        ({"folds": [], "classes": THREE}, "no recordings of folds"),
        ({"classes": ["Dog barks"]}, r"\['Dog barks'\] are not in ESC-10; its classes are \['Dog bark'"),
        ({"classes": []}, "are not in ESC-10"),
        ({}, r"no usable recording of \['Baby cry'"),
    ],
)
def test_what_is_not_there_is_refused(three_classes, settings, message):
    with pytest.raises(AudioError, match=message):
        read_esc10(three_classes, **settings)


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(AudioError, match="there is no folder"):
        read_esc10(tmp_path / "nothing")


def test_a_source_in_two_folds_is_refused(folder):
    dog = folder / "001 - Dog bark"
    shutil.copy(dog / "1-1100-A.ogg", dog / "2-1100-B.ogg")
    with pytest.raises(AudioError, match=r"\{1100: \[1, 2\]\}"):
        read_esc10(folder, classes=THREE)


def test_every_prefix_of_an_ogg_file_is_damaged(three_classes):
    whole = next(three_classes.glob("*/*.ogg")).read_bytes()
    assert ogg_damage(whole) is None
    assert all(ogg_damage(whole[:length]) is not None for length in range(len(whole)))
    assert ogg_damage(whole + b"tail") is not None


def test_a_pickle_holds_no_audio(three_classes):
    recording = read_esc10(three_classes, classes=["Rain"], folds=[1])[0]
    content = pickle.dumps(recording)
    assert len(content) < 2000
    again = pickle.loads(content)
    assert again == recording
    np.testing.assert_array_equal(again.audio, recording.audio)


def test_reading_a_file_that_went_away_is_an_error(tmp_path):
    recordings = read_esc10(write_layout(tmp_path / "x", classes=(1,), folds=(1,)), classes=["Dog bark"])
    again = pickle.loads(pickle.dumps(recordings[0]))
    again.path.unlink()
    with pytest.raises(AudioError, match=r"1-1100-A\.ogg: cannot be read"):
        _ = again.audio


def test_attributions(tmp_path):
    (tmp_path / "README.md").write_text(readme("1-2100-A", "5-2500-A"))
    table = attributions(tmp_path)
    assert table.loc[0].to_dict() == {
        "recording": "1-2100-A",
        "sound": "Rain",
        "fold": 1,
        "title": "rain (2) [take].wav",
        "url": "http://www.freesound.org/people/a/sounds/1/",
        "author": "a_b",
        "licence": "CC-BY",
        "licence_url": "http://creativecommons.org/licenses/by/3.0/",
    }
    with pytest.raises(AudioError, match="cannot be read"):
        attributions(tmp_path / "nothing")
    (tmp_path / "README.md").write_text("# Something else")
    with pytest.raises(AudioError, match="lists no recording"):
        attributions(tmp_path)
    assert attributions(tmp_path, required=False).empty


def test_the_published_recordings(data_dir):
    listed, strange = list_recordings(data_dir / "esc10")
    assert strange == []
    assert set(Counter((r.class_id, r.fold) for r in listed).values()) == {8}
    folds = {}
    for recording in listed:
        assert folds.setdefault(recording.freesound_id, recording.fold) == recording.fold
    table = attributions(data_dir / "esc10")
    assert table["licence"].value_counts().to_dict() == {"CC0": 233, "CC-BY": 165, "CC-Sampling+": 2}
    assert set(table["sound"]) == set(CLASSES)
    assert {r.name for r in listed} == set(table.loc[table["fold"] < 5, "recording"])


def test_published_recordings_decode_without_a_warning(data_dir):
    found = read_esc10(data_dir / "esc10", folds=[1], classes=["Rooster", "Clock tick"])
    assert len(found) == 16
    assert all(abs(r.audio.size / RECORDING_RATE - 5) < 0.2 for r in found)
