"""Samples whose scale is not known are refused, and so are files that break off."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnviz.audio import load_audio
from attnviz.audio.truncation import missing_bytes
from attnviz.errors import AudioError

WAVE = np.round(9000 * np.sin(np.arange(3000) * 0.1)).astype(np.int16)
FORMATS = {
    "WAV": "PCM_16", "AIFF": "PCM_16", "AU": "PCM_16", "RF64": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS",
}  # fmt: skip


def encoded(kind, subtype, samples=WAVE):
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize("wide", [np.int32, np.int64])
def test_a_list_of_16_bit_samples_is_not_read_as_silence(wide):
    samples = np.array(WAVE.tolist(), dtype=wide)
    for source in (samples, torch.from_numpy(samples), np.where(samples > 0, 2**23, 0)):
        with pytest.raises(AudioError, match="does not determine its full scale"):
            load_audio(source)
    assert load_audio(samples.astype(np.int16)) == pytest.approx(WAVE / 32768)
    assert load_audio(samples / 32768) == pytest.approx(WAVE / 32768)
    assert not load_audio(np.zeros(100, dtype=wide)).any()


@pytest.mark.parametrize("wide", [np.int32, np.int64])
def test_values_of_32_bits_tell_so_themselves(wide):
    samples = WAVE.astype(wide) * 65536
    assert load_audio(samples) == pytest.approx(WAVE / 32768)
    assert load_audio(np.array([-(2**31), 2**31 - 1], dtype=wide)) == pytest.approx([-1, 1])


def test_no_32_bits_and_no_floats_of_16_bits():
    with pytest.raises(AudioError, match="full scale"):
        load_audio(np.array([2**40, 0]))
    for source in (WAVE.astype(np.float32), torch.from_numpy(WAVE).double()):
        with pytest.raises(AudioError, match="peak of 9000; floating-point samples are in"):
            load_audio(source)
    assert load_audio(np.array([-3.0, 2.0])).tolist() == [-3, 2]  # clips somewhat too loud are kept


@pytest.mark.parametrize("content", [b"", b"not audio", bytes(2000)])
def test_what_is_no_audio_is_named_in_words(content, tmp_path):
    path = tmp_path / "clip.m4a"
    path.write_bytes(content)
    with pytest.raises(AudioError) as raised:
        load_audio(path)
    assert "object at 0x" not in str(raised.value)
    assert ("is empty" if not content else "ffmpeg") in str(raised.value)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_half_a_file_is_refused(kind, share, tmp_path):
    whole = encoded(kind, FORMATS[kind], np.tile(WAVE, 10))
    path = tmp_path / f"clip.{kind.lower()}"
    path.write_bytes(whole)
    assert load_audio(path).size == 30_000
    assert missing_bytes(whole) is None
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(AudioError, match="breaks off: .*copied|is not audio that can be read"):
        load_audio(path)
    assert kind == "FLAC" or missing_bytes(path.read_bytes()) is not None


@pytest.mark.skipif("MP3" not in soundfile.available_formats(), reason="this libsndfile has no MP3")
def test_half_an_mp3_is_refused_where_it_states_its_length(tmp_path):
    whole = encoded("MP3", "MPEG_LAYER_III", np.tile(WAVE, 20))
    path = tmp_path / "clip.mp3"
    path.write_bytes(whole)
    assert load_audio(path).size == 60_000
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AudioError, match="states 60000 samples, and"):
        load_audio(path)


def test_a_length_that_was_not_known_is_no_break(tmp_path):
    """Written to a pipe, as ffmpeg does: the sizes are the largest there are, or 0."""
    whole = bytearray(encoded("WAV", "PCM_16"))
    at = whole.index(b"data") + 4
    for size in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x80"):
        whole[at : at + 4] = size
        (tmp_path / "clip.wav").write_bytes(whole)
        assert missing_bytes(bytes(whole)) is None
        assert load_audio(tmp_path / "clip.wav").size == WAVE.size


@given(
    st.binary(max_size=80),
    st.sampled_from([b"RIFF____WAVE", b"RF64____WAVE", b"FORM____AIFF", b".snd", b"OggS", b""]),
)
def test_whatever_a_header_says_it_is_looked_at_without_a_crash(rest, begin):
    missing_bytes(begin + rest)


@pytest.mark.parametrize("path", ["x" * 5000, "~nosuch/x.wav", "a\0b", ""])
def test_paths_that_are_none(path):
    with pytest.raises(AudioError, match="the path of an audio file"):
        load_audio(path)
