"""Audio in and out of files."""

from __future__ import annotations

import errno
import io
import os
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnviz.audio import load_audio, to_int16, write_wav
from attnviz.errors import AudioError, OutputError
from attnviz.io.storage import write_whole


def tone(hz: float, seconds: float, rate: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


# --- to_int16


@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=40))
def test_to_int16_vs_plain_integers(values: list[float]) -> None:
    expected = [max(-32768, min(32767, int(value * 32768))) for value in values]
    for dtype in (np.float32, np.float64):
        result = to_int16(np.array(values, dtype))
        assert result.dtype == np.int16
        assert result.tolist() == expected


def test_to_int16_truncates_and_does_not_wrap() -> None:
    values = np.array([1.0, -1.0, 1.5, -1.5, 0.9 / 32768, -0.9 / 32768, 32766.9 / 32768, 3e38], np.float32)
    assert to_int16(values).tolist() == [32767, -32768, 32767, -32768, 0, 0, 32766, 32767]
    assert to_int16(np.array([1.0, -1.0, 0.5], np.float16)).tolist() == [32767, -32768, 16384]


@pytest.mark.parametrize(
    "bad", [np.array([np.nan]), np.zeros((1, 2)), np.zeros(3, np.int16), np.zeros(0)], ids=str
)
def test_to_int16_refuses_what_is_no_audio(bad: np.ndarray) -> None:
    with pytest.raises(AudioError):
        to_int16(bad)


# --- write_wav


def test_write_wav_gives_a_file_others_can_read(tmp_path: Path) -> None:
    audio = tone(440, 0.123, 16_000) * 2.5
    target = tmp_path / "with spaces é.wav"
    write_wav(target, audio)
    with wave.open(str(target)) as file:
        assert file.getparams()[:4] == (1, 2, 16_000, len(audio))
    samples, rate = soundfile.read(target, dtype="int16")
    assert rate == 16_000
    np.testing.assert_array_equal(samples, to_int16(audio))
    np.testing.assert_array_equal(load_audio(target), to_int16(audio) / np.float32(32768))
    write_wav(str(target), audio[:100], 44_100)
    assert soundfile.info(target).samplerate == 44_100
    assert soundfile.info(target).frames == 100
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_write_wav_keeps_channels_apart(tmp_path: Path) -> None:
    audio = np.stack([tone(440, 0.1, 16_000), -0.5 * tone(220, 0.1, 16_000)], axis=1)
    write_wav(tmp_path / "a.wav", audio)
    samples, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    np.testing.assert_array_equal(samples, np.stack([to_int16(channel) for channel in audio.T], axis=1))
    for wrong in (audio.T, np.zeros((3, 0), np.float32), np.zeros((2, 2, 2), np.float32)):
        with pytest.raises(AudioError, match="shape"):
            write_wav(tmp_path / "b.wav", wrong)


def test_the_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_wav(tmp_path / "a.wav", np.zeros(4, np.float32))
    assert (tmp_path / "a.wav").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    audio = np.zeros(10, np.float32)
    wrong = [tmp_path / "none" / "a.wav", tmp_path / "file" / "a.wav", tmp_path / "folder"]
    for target in wrong:
        with pytest.raises(OutputError, match="annot write|not replaced"):
            write_wav(target, audio)
    with pytest.raises(OutputError, match="is empty"):
        write_wav("", audio)
    with pytest.raises(OutputError, match="null character"):
        write_wav(tmp_path / "a\0b.wav", audio)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert not list((tmp_path / "folder").iterdir())


class _FullDisk(io.FileIO):
    """A file on a disk that fills up after a few bytes."""

    failure: BaseException = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, data: bytes) -> int:  # type: ignore[override]
        super().write(data[:5])
        raise self.failure


@pytest.mark.parametrize(
    ("failure", "seen"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OutputError),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), OutputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=["no space", "no permission", "interrupt"],
)
def test_a_failure_half_way_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, seen: type[BaseException]
) -> None:
    target = tmp_path / "a.wav"
    write_wav(target, tone(100, 0.1, 16_000))
    before = target.read_bytes()
    monkeypatch.setattr(_FullDisk, "failure", failure)
    monkeypatch.setattr(Path, "open", lambda self, mode: _FullDisk(self, mode.replace("b", "")))
    with pytest.raises(seen) as caught:
        write_wav(target, tone(200, 0.1, 16_000))
    monkeypatch.undo()
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
    if isinstance(failure, OSError):
        assert failure.strerror in str(caught.value)
        assert "a.wav" in str(caught.value)


def test_a_rename_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match="Operation not permitted"):
        write_whole(tmp_path / "a.bin", b"abc")
    assert not list(tmp_path.iterdir())


def test_audio_that_is_none_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for audio, rate in ((np.array([0.0, np.nan]), 16_000), (np.zeros(3), 0), (np.zeros((3, 2, 2)), 16_000)):
        with pytest.raises(AudioError):
            write_wav(tmp_path / "a.wav", audio, rate)
    assert not list(tmp_path.iterdir())


# --- load_audio


@pytest.mark.parametrize(
    ("ending", "subtype"), [("wav", "PCM_16"), ("wav", "FLOAT"), ("flac", "PCM_24"), ("ogg", "VORBIS")]
)
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 48_000])
def test_any_format_and_rate_becomes_the_same_tone(tmp_path: Path, ending: str, subtype: str, rate: int) -> None:
    path = tmp_path / f"tone.{ending}"
    soundfile.write(path, tone(440, 0.5, rate), rate, subtype=subtype)
    audio = load_audio(path)
    assert audio.dtype == np.float32
    assert audio.shape == (8_000,)
    middle = slice(500, -500)  # a resampler rings at the ends
    np.testing.assert_allclose(
        audio[middle], tone(440, 0.5, 16_000)[middle], atol=0.03 if ending == "ogg" else 2e-3
    )


def test_channels_are_averaged(tmp_path: Path) -> None:
    channels = np.stack([tone(300, 0.1, 16_000), -0.5 * tone(300, 0.1, 16_000), tone(700, 0.1, 16_000)], 1)
    soundfile.write(tmp_path / "three.wav", channels, 16_000, subtype="FLOAT")
    expected = channels.sum(1) / 3
    np.testing.assert_allclose(load_audio(tmp_path / "three.wav"), expected, atol=1e-7)
    np.testing.assert_allclose(load_audio(channels), expected, atol=1e-7)


def test_a_16_bit_file_keeps_its_bits(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 500).astype(np.int16)
    soundfile.write(tmp_path / "bits.wav", samples, 16_000)
    np.testing.assert_array_equal(load_audio(str(tmp_path / "bits.wav")), samples / np.float32(32768))
    np.testing.assert_array_equal(load_audio(samples), samples / np.float32(32768))
    np.testing.assert_array_equal(load_audio(torch.from_numpy(samples)), samples / np.float32(32768))
    np.testing.assert_array_equal(load_audio(np.array([0, 128, 255], np.uint8)), [-1, 0, 127 / 128])


def test_an_array_is_taken_as_it_is_and_copied() -> None:
    audio = tone(440, 0.1, 16_000)
    loaded = load_audio(audio)
    np.testing.assert_array_equal(loaded, audio)
    loaded[:] = 0
    assert audio.any()
    tensor = torch.from_numpy(audio.copy()).requires_grad_()
    np.testing.assert_array_equal(load_audio(tensor), audio)


def test_an_array_of_another_rate_is_resampled() -> None:
    audio = load_audio(tone(440, 0.5, 48_000), source_rate=48_000)
    np.testing.assert_allclose(audio[500:-500], tone(440, 0.5, 16_000)[500:-500], atol=2e-3)
    assert len(load_audio(tone(440, 0.5, 16_000), 32_000, source_rate=16_000)) == 16_000


def test_a_name_without_or_with_a_wrong_ending_is_read_by_its_content(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440, 0.1, 16_000), 16_000)
    for name in ("sound", "sound.raw", "sound.mp3"):
        (tmp_path / name).write_bytes((tmp_path / "a.wav").read_bytes())
        assert load_audio(tmp_path / name).shape == (1_600,)


def _wav(tmp_path: Path, samples: np.ndarray) -> Path:
    soundfile.write(tmp_path / "bad.wav", samples, 16_000, subtype="FLOAT")
    return tmp_path / "bad.wav"


def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    text = tmp_path / "notes.wav"
    text.write_text("not audio at all")
    empty = tmp_path / "empty.wav"
    empty.write_bytes(b"")
    raw = tmp_path / "noise.raw"
    raw.write_bytes(bytes(range(256)))
    cases = [
        (tmp_path / "missing.wav", "missing.wav does not exist"),
        (tmp_path, "cannot be opened"),
        (text, "notes.wav is not audio"),
        (empty, "empty.wav is empty"),
        (raw, "noise.raw is not audio"),
        (_wav(tmp_path, np.zeros(0)), "bad.wav has 0 samples"),
    ]
    for path, reason in cases:
        with pytest.raises(AudioError, match=reason):
            load_audio(path)
    for value in (np.nan, np.inf):
        with pytest.raises(AudioError, match=r"bad.wav has samples that are NaN"):
            load_audio(_wav(tmp_path, np.array([0.0, value, 0.5])))
    with pytest.raises(AudioError, match="null character"):
        load_audio("a\0b.wav")


@given(st.binary(max_size=200), st.booleans())
def test_damaged_files_raise_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, head: bool
) -> None:
    path = tmp_path_factory.mktemp("junk") / "junk.wav"
    path.write_bytes((b"RIFF\x24\x00\x00\x00WAVEfmt " if head else b"") + junk)
    try:
        audio = load_audio(path)
    except AudioError as error:
        assert "junk.wav" in str(error)
    else:
        assert audio.ndim == 1


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros(0, np.float32), "0 samples"),
        (np.zeros((2, 16_000), np.float32), "transpose"),
        (np.zeros((1, 2, 3), np.float32), "shape"),
        (np.array([np.nan], np.float32), "NaN"),
        (np.array(["a"]), "type"),
        (np.zeros(4, np.complex64), "type"),
    ],
)
def test_an_array_that_is_none_is_refused(array: np.ndarray, reason: str) -> None:
    with pytest.raises(AudioError, match=reason):
        load_audio(array)


def test_arguments_that_contradict_are_refused(tmp_path: Path) -> None:
    path = _wav(tmp_path, tone(440, 0.1, 16_000))
    with pytest.raises(AudioError, match="states its own sampling rate"):
        load_audio(path, source_rate=8_000)
    with pytest.raises(AudioError, match="sampling_rate"):
        load_audio(path, 0)
    with pytest.raises(AudioError, match="list"):
        load_audio([0.0, 1.0])  # type: ignore[arg-type]
