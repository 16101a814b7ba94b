from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnviz.errors import AttnVizWarning, EventsError
from attnviz.events import clip_seconds, event_table, match_clips, read_audiogrounding

IDS = st.text("abcXYZ019_-", min_size=11, max_size=11)


def forms(recording: str, start: int) -> list[str]:
    """The names that data sets give one part of a recording."""
    return [
        f"Y{recording}_{start}.000_{start + 10}.000",
        f"{recording}_{start}.000_{start + 10}.000",
        f"{recording}_{start}",
        f"Y{recording}_{start}",
        f"{recording}_{start}000",
        f"Y{recording}",
    ]


def folder_of(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@given(
    recording=IDS, start=st.integers(0, 5000), suffixes=st.tuples(*[st.sampled_from(["", ".wav", ".FLAC"])] * 2)
)
def test_every_form_finds_every_other(tmp_path_factory, recording, start, suffixes):
    for audio in forms(recording, start):
        root = folder_of(tmp_path_factory.mktemp("audio"), f"sub/{audio}{suffixes[0] or '.ogg'}")
        for name in forms(recording, start):
            clip = name + suffixes[1]
            found = match_clips([clip], root)
            assert list(found.files) == [clip]
            assert not (found.unmatched or found.ambiguous or found.unused)


@given(recording=IDS, other=IDS, start=st.integers(2, 499), later=st.integers(1, 499))
def test_other_parts_and_recordings_are_not_taken(tmp_path_factory, recording, other, start, later):
    root = folder_of(tmp_path_factory.mktemp("audio"), f"{recording}_{start}.wav")
    wrong = forms(recording, start + later)[:5] + (forms(other, start) if other != recording else [])
    with pytest.warns(AttnVizWarning, match=f"{len(set(wrong))} of {len(set(wrong))} clips have no audio"):
        found = match_clips(wrong, root)
    assert not found.files
    assert set(found.unmatched) == set(wrong)
    assert [path.name for path in found.unused] == [f"{recording}_{start}.wav"]


def test_the_same_name_comes_before_the_same_part(tmp_path):
    folder_of(tmp_path, "Yabcdefghijk_30.000_40.000.wav", "abcdefghijk_30.wav", "abcdefghijk_30.flac")
    found = match_clips(["Yabcdefghijk_30.000_40.000", "abcdefghijk_30.wav"], tmp_path)
    assert {clip: path.name for clip, path in found.files.items()} == {
        "Yabcdefghijk_30.000_40.000": "Yabcdefghijk_30.000_40.000.wav",
        "abcdefghijk_30.wav": "abcdefghijk_30.wav",
    }
    assert [path.name for path in found.unused] == ["abcdefghijk_30.flac"]


def test_several_files_for_a_clip_are_listed(tmp_path):
    folder_of(tmp_path, "train/abcdefghijk_30.wav", "test/abcdefghijk_30.wav", "mine.wav", "notes.txt")
    table = event_table(
        [
            {"clip": clip, "label": "dog", "onset": 0, "offset": 1}
            for clip in ("abcdefghijk_30.wav", "mine", "no.wav")
        ]
    )
    with pytest.warns(
        AttnVizWarning, match=r"1 of 3 clips have no audio.*\['no.wav'\]; 1 of 3 clips match several"
    ):
        found = match_clips(table, tmp_path)
    assert found.files == {"mine": tmp_path / "mine.wav"}
    assert found.unmatched == ("no.wav",)
    assert found.ambiguous == {
        "abcdefghijk_30.wav": (tmp_path / "test/abcdefghijk_30.wav", tmp_path / "train/abcdefghijk_30.wav")
    }


@pytest.mark.parametrize(("name", "clip"), [
    ("abcdefghijk_30.wav", "abcdefghijk_0.030_10.030"),
    ("abcdefghijk_1500.wav", "abcdefghijk_1.500_11.500"),
    ("abcdefghijk_30001.wav", "abcdefghijk_30.001_40.001"),
])  # fmt: skip
def test_a_number_is_milliseconds_at_whole_seconds_alone(tmp_path, name, clip):
    """AudioSet-strong's parts begin at whole seconds; any other number is of seconds."""
    folder_of(tmp_path, name)
    with pytest.warns(AttnVizWarning, match="1 of 1 clips have no audio file"):
        assert match_clips([clip], tmp_path).unmatched == (clip,)
    seconds = name.removesuffix(".wav").rpartition("_")[2]
    assert match_clips([f"abcdefghijk_{seconds}.000_{int(seconds) + 10}.000"], tmp_path).unmatched == ()


def test_one_file_is_not_two_parts(tmp_path):
    folder_of(tmp_path, "Yabcdefghijk.wav")
    with pytest.warns(AttnVizWarning, match="2 of 2 clips match several files"):
        found = match_clips(["abcdefghijk_30.wav", "abcdefghijk_60.wav"], tmp_path)
    assert not found.files
    assert set(found.ambiguous) == {"abcdefghijk_30.wav", "abcdefghijk_60.wav"}


def test_names_of_ones_own_are_not_taken_for_parts(tmp_path):
    """'recording_1' has the 11 characters of an id; nothing says that recording_1_2 is a part of it."""
    folder_of(tmp_path, "recording_1_2.wav")
    with pytest.warns(AttnVizWarning, match="1 of 1 clips have no audio file"):
        assert match_clips(["recording_1.wav"], tmp_path).unmatched == ("recording_1.wav",)
    assert clip_seconds("kitchen_day_2_3.wav") is None


def test_lengths_are_told_by_start_and_end_alone():
    assert clip_seconds("Yabcdefghijk_440.000_450.000.wav") == 10
    assert clip_seconds("audio/abcdefghijk_1.500_8.250.flac") == 6.75
    for name in ("abcdefghijk_30.wav", "abcdefghijk_30000", "Yabcdefghijk.wav", "mine_30.000_40.000.wav", ""):
        assert clip_seconds(name) is None
    assert clip_seconds("abcdefghijk_40.000_30.000.wav") is None
    assert clip_seconds(f"abcdefghijk_{'9' * 5000}.000_40.000.wav") is None


def test_a_folder_without_audio_is_an_error(tmp_path):
    with pytest.raises(EventsError, match="contains no audio file"):
        match_clips(["a.wav"], tmp_path)
    with pytest.raises(EventsError, match="audio folder .* does not exist"):
        match_clips(["a.wav"], tmp_path / "nowhere")


def test_real_clips_are_joined_to_their_audio(data_dir):
    table = read_audiogrounding(data_dir / "audiogrounding" / "test.json")
    with pytest.warns(AttnVizWarning, match="68 of 70 clips have no audio file"):
        found = match_clips(table, data_dir / "audiocaps")
    assert {clip: path.name for clip, path in found.files.items()} == {
        "_GI7meqlYZk_30.000_40.000.wav": "_GI7meqlYZk_30.wav",
        "IvfaKPDWC00_160.000_170.000.wav": "IvfaKPDWC00_160.wav",
    }
    assert [path.name for path in found.unused] == ["14ekd4nkpwc_28.wav"]
    assert not found.ambiguous
    assert len(found.unmatched) == 68
