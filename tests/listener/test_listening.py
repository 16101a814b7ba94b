from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from listener.small_listeners import Loudness, certain_listener, small_listener

import attnviz
from attnviz.audio import fit_width, log_mel, mel_to_image
from attnviz.errors import AttnVizWarning, AudioError, CheckpointError, EventsError
from attnviz.events import event_table, read_tsv, write_tsv
from attnviz.listener import Decoding, Hearing
from attnviz.listener import folder as listener_folder
from attnviz.listener.listening import _image, _windows
from attnviz.scenes import CLASSES

RATE = 16_000
QUALITY = {"fold": 4, "frame_map": 0.812, "psds1": 0.43, "ap": {"Rain": 0.9, "Dog bark": 0.72}}


def tones(*where, seconds=2.0, rate=RATE):
    """Bursts of (Hz, onset, offset)."""
    time = np.arange(round(seconds * rate)) / rate
    audio = np.zeros(time.size)
    for frequency, onset, offset in where:
        audio += 0.3 * np.sin(2 * np.pi * frequency * time) * ((time >= onset) & (time < offset))
    return audio.astype(np.float32)


def noise(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def image_of(audio):
    return mel_to_image(log_mel(audio))


def told(listener, image):
    with torch.no_grad():
        return listener(torch.from_numpy(image)[None]).sigmoid()[0].numpy()


CLIP = ((300, 0.4, 1.2), (300, 1.48, 1.8), (5000, 0.8, 1.6))


def check_clip(events):
    """The events are those of CLIP, give or take a frame: the spectrogram's window reaches 32 ms past a tone."""
    assert events["label"].tolist() == ["low", "high", "low"]
    np.testing.assert_allclose(events["onset"], [0.4, 0.8, 1.48], atol=0.041)
    np.testing.assert_allclose(events["offset"], [1.2, 1.6, 1.8], atol=0.041)


def test_events_are_where_the_sounds_are():
    hearing = attnviz.listen(tones(*CLIP), model=Loudness())
    check_clip(hearing.events)
    assert set(hearing.events["clip"]) == {hearing.clip} == {"audio"}
    assert hearing.probabilities.dims == ("sound", "time")
    assert hearing.probabilities.dtype == np.float32
    np.testing.assert_allclose(hearing.probabilities["time"], np.arange(50) * 0.04 + 0.02)
    assert hearing.onset("high") == hearing.events["onset"][1]
    assert (hearing.seconds, hearing.frame_seconds) == (2.0, 0.04)


@pytest.mark.parametrize(
    ("ending", "rate", "channels"), [("wav", 8000, 1), ("flac", 44_100, 2), ("ogg", 16_000, 2)]
)
def test_files_of_any_rate_and_channels(ending, rate, channels, tmp_path):
    clip = [part for part in CLIP if part[0] < rate / 2]
    mono = tones(*clip, rate=rate)
    path = tmp_path / f"a clip.{ending}"
    soundfile.write(path, np.stack([mono] * channels, axis=1), rate)
    hearing = attnviz.listen(path, model=Loudness())
    assert hearing.clip == f"a clip.{ending}"
    assert set(hearing.events["clip"]) == {hearing.clip}
    if len(clip) == len(CLIP):
        check_clip(hearing.events)
    else:
        np.testing.assert_allclose(hearing.events[["onset", "offset"]], [(0.4, 1.2), (1.48, 1.8)], atol=0.041)
    assert attnviz.listen(str(path), model=Loudness()).events.equals(hearing.events)


def test_arrays_say_their_rate():
    audio = tones(*CLIP, rate=32_000)
    check_clip(attnviz.listen(audio, sampling_rate=32_000, model=Loudness()).events)
    check_clip(attnviz.listen(torch.from_numpy(audio), sampling_rate=32_000, model=Loudness()).events)
    integers = (tones(*CLIP)[:, None] * [32767, 32767]).astype(np.int16)
    check_clip(attnviz.listen(integers, model=Loudness()).events)


def test_the_level_is_left_alone():
    listener = Loudness()
    for gain in (1, 0.1):
        attnviz.listen(gain * tones(*CLIP), model=listener)
    loud, quiet = listener.images
    assert quiet.max() < loud.max() - 0.1


@pytest.mark.parametrize("listener", [Loudness(), small_listener()])
def test_silence(listener):
    hearing = attnviz.listen(np.zeros(20_000, np.float32), model=listener)
    assert np.isfinite(hearing.probabilities).all()
    if isinstance(listener, Loudness):
        assert not listener.images[-1].any()
        assert hearing.events.empty
        assert list(hearing.events) == ["clip", "label", "onset", "offset", "origin"]
        assert repr(hearing).splitlines()[0] == "Hearing of audio: 1.25 s, no events"


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(0, np.float32), "0 samples"),
        (np.zeros((0, 2), np.float32), "0 samples"),
        (np.full(16_000, np.nan, np.float32), "NaN"),
        (np.append(np.zeros(16_000, np.float32), np.inf), "infinite"),
        (np.zeros(944, np.float32), "944 samples at 16000 Hz; at least 945"),
        (np.zeros((2, 16_000), np.float32), "transpose"),
        ([0.0] * 16_000, "list"),
        ("no such file.wav", "no such file.wav"),
        (b"clip.wav", "bytes"),
    ],
)
def test_audio_that_cannot_be_heard(audio, message):
    with pytest.raises(AudioError, match=message):
        attnviz.listen(audio, model=Loudness())


def test_files_that_cannot_be_heard(tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    (tmp_path / "text.wav").write_text("not audio")
    for name, message in (("empty.wav", "0 samples"), ("text.wav", "not audio"), (".", "cannot be opened")):
        with pytest.raises(AudioError, match=message):
            attnviz.listen(tmp_path / name, model=Loudness())
    with pytest.raises(AudioError, match="sampling_rate is 16000, but the file .* has its own"):
        attnviz.listen(tmp_path / "empty.wav", sampling_rate=RATE, model=Loudness())


@pytest.mark.parametrize(
    ("samples", "frames"),
    [
        (945, 1),  # 5 columns: the second frame's centre, at 60 ms, is beyond 59 ms of audio
        (960, 2),
        (9 * 160, 2),
        (10 * 160, 3),  # the third frame's centre is where the audio ends
        (12 * 160 + 159, 3),
        (1024 * 160, 256),
        (1025 * 160, 256),
        (1026 * 160, 257),
    ],
)
def test_padding_is_silent_and_not_reported(samples, frames):
    listener = Loudness()
    hearing = attnviz.listen(noise(samples), model=listener)
    assert hearing.probabilities.sizes["time"] == frames
    assert (hearing.probabilities["time"] <= samples / RATE).all()
    columns = samples // 160
    seen = listener.images[-1]
    assert seen.shape[1] == min(1024, -(-columns // 4) * 4)
    inside = seen.shape[1] - -columns % 4
    assert (seen[:, :inside].amax(0) > 0).all()
    assert not seen[:, inside:].any()


def test_a_short_clip_is_what_the_network_says_of_its_image():
    audio, listener = noise(3 * RATE + 777), small_listener()
    hearing = attnviz.listen(audio, model=listener)
    expected = told(listener, fit_width(image_of(audio), 304))
    np.testing.assert_array_equal(hearing.probabilities["sound"], CLASSES)
    np.testing.assert_allclose(hearing.probabilities, expected, atol=1e-6)


def test_windows_of_long_audio_vs_each_alone():
    audio, listener = noise(25 * RATE), small_listener()
    heard = attnviz.listen(audio, model=listener).probabilities.values
    image = image_of(audio)
    windows = [(0, 256), (192, 448), (369, 625)]
    alone = [told(listener, image[:, 4 * first : 4 * last]) for first, last in windows]
    for (first, last), (start, _), expected in zip(
        [(0, 192), (256, 369), (448, 625)], windows, alone, strict=True
    ):
        np.testing.assert_allclose(heard[:, first:last], expected[:, first - start : last - start], atol=1e-5)
    before, after = alone[0][:, 192:256], alone[1][:, :64]
    fade = np.arange(1, 65) / 65
    assert np.abs(before - after).max() > 1e-3  # else a cross-fade could not be told from a cut
    np.testing.assert_allclose(heard[:, 192:256], (1 - fade) * before + fade * after, atol=1e-5)
    assert np.isfinite(heard).all()


def test_seams_are_not_heard():
    where = [(300, onset, onset + 0.8) for onset in np.arange(0.2, 24, 1.6)]
    hearing = attnviz.listen(tones(*where, seconds=25), model=Loudness())
    np.testing.assert_allclose(hearing.events["onset"], [onset for _, onset, _ in where], atol=0.041)
    np.testing.assert_allclose(hearing.events["offset"], [offset for *_, offset in where], atol=0.041)


@given(st.integers(1, 2000), st.integers(1, 300), st.data())
def test_windows_cover_every_frame(frames, window, data):
    overlap = data.draw(st.integers(0, window - 1))
    windows = _windows(frames, window, overlap)
    assert windows[0][0] == 0
    assert windows[-1][1] == frames
    assert {last - first for first, last in windows} == {min(window, frames)}
    assert all(b[0] > a[0] and b[0] <= a[1] - overlap for a, b in pairwise(windows))


def test_columns_of_a_piece_vs_the_whole_image():
    audio = noise(40_000 + 33)
    whole = image_of(audio)
    for start, stop in [(0, 250), (0, 20), (3, 11), (100, 180), (240, 250), (190, 250)]:
        np.testing.assert_allclose(_image(audio, start, stop), whole[:, start:stop], atol=1e-5)
    np.testing.assert_allclose(_image(audio, 200, 256)[:, :50], whole[:, 200:], atol=1e-5)
    assert not _image(audio, 200, 256)[:, 50:].any()


@settings(deadline=None, max_examples=30)
@given(
    samples=st.integers(945, 60_000),
    seed=st.integers(0, 9),
    loud=st.integers(0, 60_000),
    step=st.sampled_from([1, 2, 3, 5]),
    threshold=st.floats(0.01, 1),
)
def test_events_are_inside_the_clip_and_apart(samples, seed, loud, step, threshold):
    audio = noise(samples, seed)
    audio[loud : loud + 3000] = 0
    decoding = Decoding(threshold, 1, 0.04, 0)
    hearing = attnviz.listen(audio, model=Loudness(columns_averaged=step), decoding=decoding)
    events = hearing.events
    assert hearing.frame_seconds == pytest.approx(0.02 * step)
    assert (events["onset"] < events["offset"]).all()
    assert (events["offset"] <= samples / RATE).all()
    assert events["onset"].is_monotonic_increasing
    for _, own in events.groupby("label"):
        assert all(later > earlier for earlier, later in zip(own["offset"][:-1], own["onset"][1:], strict=True))


def test_frames_longer_than_the_audio():
    listener = Loudness(columns_averaged=100)  # 2 s
    hearing = attnviz.listen(tones((300, 0, 1), seconds=0.5), model=listener, decoding=Decoding(0.01))
    assert hearing.probabilities.sizes["time"] == 1
    assert (hearing.events["offset"] <= 0.5).all()
    assert hearing.strongest() == ["low"]


def test_a_listener_in_training_listens_without_dropout():
    listener = small_listener(dropout=0.9).train()
    first, second = (attnviz.listen(noise(RATE), model=listener).probabilities for _ in range(2))
    assert first.equals(second)
    assert listener.training


@pytest.fixture
def folder(tmp_path):
    certain_listener("Rain").save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_brings_its_decoding_and_quality(folder):
    audio = noise(2 * RATE)
    hearing = attnviz.listen(audio, model=folder)
    (event,) = hearing.events.to_dict("records")
    assert event == {"clip": "audio", "label": "Rain", "onset": 0.0, "offset": 2.0, "origin": "listener"}
    assert hearing.quality is None
    assert "quality not measured" in repr(hearing)
    (folder / "quality.json").write_text(json.dumps(QUALITY))
    Decoding(0.99).save(folder)
    hearing = attnviz.listen(audio, model=str(folder))
    assert hearing.events.empty
    assert hearing.quality == QUALITY
    line = "listener: frame mAP 0.81 on unseen recordings (fold 4), 40 ms frames"
    assert repr(hearing).endswith(line)
    assert line in hearing._repr_html_()
    assert len(attnviz.listen(audio, model=folder, decoding=Decoding()).events) == 1


@pytest.mark.parametrize(
    "quality",
    [
        "{",
        "[]",
        "null",
        "{}",
        json.dumps(QUALITY | {"frame_map": 81}),
        json.dumps(QUALITY | {"ap": {"Rain": "0.9"}}),
        json.dumps(QUALITY | {"psds1": float("nan")}),
        json.dumps(QUALITY | {"fold": "4"}),
    ],
)
def test_damaged_quality_is_refused(quality, folder):
    (folder / "quality.json").write_text(quality)
    with pytest.raises(CheckpointError, match=r"quality\.json"):
        attnviz.listen(noise(RATE), model=folder)


@pytest.mark.parametrize("model", ["nosuch", "~nobodyx/listener", 3, "a\0b"])
def test_models_that_are_none(model):
    with pytest.raises(CheckpointError):
        attnviz.listen(noise(RATE), model=model)


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    monkeypatch.setattr(listener_folder, "BUNDLED", tmp_path / "bundled" / "listener")
    listener_folder._bundled.cache_clear()
    yield listener_folder.BUNDLED
    listener_folder._bundled.cache_clear()


def test_the_bundled_listener_is_read_once(bundled):
    with pytest.raises(CheckpointError, match="has no listener"):
        attnviz.listen(noise(RATE))
    certain_listener("Chainsaw").save_pretrained(bundled)
    assert attnviz.listen(noise(RATE)).strongest() == ["Chainsaw"]
    (bundled / "config.json").unlink()
    assert attnviz.listen(noise(RATE)).strongest() == ["Chainsaw"]


def hearing_of(rows, events=(), quality=None, **values):
    probabilities = xr.DataArray(
        np.array(list(rows.values()), np.float32),
        {"sound": list(rows), "time": np.arange(len(next(iter(rows.values())))) * 0.04 + 0.02},
        ("sound", "time"),
    )
    table = pd.DataFrame([{"clip": "c.wav", "label": a, "onset": b, "offset": c} for a, b, c in events])
    table = table if len(table) else pd.DataFrame({"clip": [], "label": [], "onset": [], "offset": []})
    return Hearing(**{"clip": "c.wav", "seconds": 2.0, "frame_seconds": 0.04} | values,
                   probabilities=probabilities, events=table, quality=quality)  # fmt: skip


def test_the_strongest_class_is_the_one_of_the_clearest_half_second():
    brief, long, steady = np.zeros(50), np.zeros(50), np.full(50, 0.45)
    brief[3:6] = 1  # 0.25 of 12 frames
    long[20:29] = 0.8  # 0.6
    hearing = hearing_of({"brief": brief, "steady": steady, "long": long})
    np.testing.assert_allclose(hearing.peaks, [3 / 12, 0.45, 0.6], atol=1e-6)
    assert hearing.peaks.dims == ("sound",)
    assert hearing.strongest() == ["long"]
    assert hearing.strongest(2) == ["long", "steady"]
    assert hearing.strongest(9) == ["long", "steady", "brief"]
    with pytest.raises(AudioError, match="n is 0"):
        hearing.strongest(0)


def test_the_strongest_class_of_a_clip_below_half_a_second():
    hearing = hearing_of({"a": [0.2, 0.4, 0.3], "b": [1.0, 0.0, 0.2]})
    np.testing.assert_allclose(hearing.peaks, [0.3, 0.4], atol=1e-6)


def test_first_onsets():
    events = [("a", 0.8, 1.2), ("a", 0.4, 0.6), ("b", 0.2, 0.3)]
    hearing = hearing_of({"a": [0.2], "b": [0.1], "c": [0.3]}, events)
    assert [hearing.onset(name) for name in "abc"] == [0.4, 0.2, None]
    with pytest.raises(EventsError, match=r"does not detect 'd'; it detects a, b, c"):
        hearing.onset("d")


def test_what_is_shown():
    events = [("Rain", 0.4, 1.2), ("<b>", 1.0, 2.0)]
    hearing = hearing_of({"Rain": [0.2], "<b>": [0.1]}, events, QUALITY)
    assert repr(hearing).splitlines() == [
        "Hearing of c.wav: 2.00 s, 2 events",
        "  Rain  0.40 to 1.20 s",
        "  <b>   1.00 to 2.00 s",
        "listener: frame mAP 0.81 on unseen recordings (fold 4), 40 ms frames",
    ]
    html = hearing._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    many = hearing_of({"a": [0.2]}, [("a", i, i + 0.5) for i in range(25)])
    assert repr(many).splitlines()[-2].strip() == "and 5 more"
    assert len(repr(many).splitlines()) == 23


def test_events_of_a_file_whose_name_is_not_unicode(folder, tmp_path):
    path = tmp_path / "clip\udcff.wav"
    soundfile.write(str(tmp_path / "clip.wav"), noise(RATE), RATE)
    (tmp_path / "clip.wav").rename(path)
    events = attnviz.listen(path, model=folder).events
    write_tsv(events, tmp_path / "events.tsv")
    assert read_tsv(tmp_path / "events.tsv").equals(events)


def heard(*rows, classes=("Dog bark", "Rain", "Sea waves")):
    probabilities = xr.DataArray(
        np.zeros((len(classes), 4), np.float32),
        {"sound": list(classes), "time": np.arange(4.0)},
        ("sound", "time"),
    )
    events = event_table([{"clip": "x", "label": a, "onset": b, "offset": c} for a, b, c in rows])
    return Hearing("x", 4.0, probabilities, events, 1.0)


def test_what_was_heard_finds_its_place_in_a_caption():
    hearing = heard(("Dog bark", 0.5, 1.0), ("Sea waves", 1.0, 2.0))
    with pytest.warns(AttnVizWarning, match=r"does not name \(omitted\): Sea waves 1\.00-2\.00 s"):
        table = hearing.of_caption("rain falls while a dog barks")
    assert table[["label", "span"]].to_numpy().tolist() == [["Dog bark", (17, 28)], ["Rain", (0, 4)]]
    assert table["onset"].tolist()[0] == 0.5
    assert np.isnan(table["onset"].tolist()[1])  # named, and not heard
    with pytest.raises(EventsError, match="none of the sounds that the listener detects: Dog bark, Rain, Sea"):
        hearing.of_caption("a violin plays")
    with pytest.raises(EventsError, match="2 times in .*, at 0:11, 21:30"):
        heard(("Dog bark", 0.5, 1.0)).of_caption("a dog barks, another dog barks")


def test_nothing_is_heard_in_what_is_inaudible_and_it_is_said_how_quiet_it_is():
    """A sure listener, too: at -65 dBFS it reported "Baby cry 0.99"."""
    loud = np.random.default_rng(0).standard_normal(6 * 16_000).astype(np.float32)
    loud *= 0.1 / loud.std()
    heard = attnviz.listen(loud)
    quiet = attnviz.listen(10 ** (-45 / 20) * loud)
    assert float(heard.probabilities.max()) > 0
    assert float(quiet.probabilities.max()) == 0
    assert len(quiet.events) == 0
    assert float(quiet.levels.max()) == pytest.approx(-65, abs=0.5)
    assert {quiet.level(str(name)) for name in quiet.probabilities["sound"].values} == {-120.0}
    half = np.concatenate([loud, 10 ** (-45 / 20) * loud])
    found = attnviz.listen(half).probabilities
    assert float(found.sel(time=slice(0, 5)).max()) > 0 == float(found.sel(time=slice(6.5, None)).max())


def _heard(events, level=-20.0, seconds=10.0):
    frames = round(seconds / 0.1)
    times = (np.arange(frames) + 0.5) * 0.1
    probabilities = xr.DataArray(
        np.full((2, frames), 0.9), {"sound": ["Rain", "Rooster"], "time": times}, ("sound", "time")
    )
    rows = [{"clip": "x", "label": "Rain", "onset": onset, "offset": offset} for onset, offset in events]
    levels = xr.DataArray(np.full(frames, level), {"time": times}, ("time",))
    return Hearing("x", seconds, probabilities, event_table(rows), 0.1, None, levels)


def test_the_listener_says_that_it_knows_few_sounds_where_it_likely_hears_another():
    everything = _heard([(0.1, 10.0)])
    assert everything.doubt.startswith("events cover 99% of the clip")
    assert "detects only these 2 sounds: Rain, Rooster" in repr(everything)
    assert _heard([(0.0, 4.0), (6.0, 9.0)]).doubt is None
    assert _heard([]).doubt.startswith("100% of the audible audio is outside all events")
    assert _heard([], level=-60.0).doubt is None  # silence is no other sound
    assert _heard([(0.0, 3.0)], seconds=3.0).doubt is None


def test_the_level_of_a_sound_counts_frames_as_far_as_it_is_heard_there():
    hearing = _heard([(1.0, 2.0)])
    assert hearing.level("Rain") == pytest.approx(-20 + 10 * np.log10(0.9))
    assert hearing.level("Rooster") == -120.0
    with pytest.raises(EventsError, match="does not detect 'Dog'"):
        hearing.level("Dog")


def test_scenes_of_known_sounds_are_not_doubted_and_real_clips_of_others_are(data_dir):
    clips = sorted((data_dir / "audiocaps").glob("*.wav"))
    assert clips
    assert all("events cover" in (attnviz.listen(clip).doubt or "") for clip in clips)


def test_autocast_around_it_changes_nothing():
    listener = small_listener()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attnviz.listen(noise(16_000), model=listener)
    xr.testing.assert_equal(found.probabilities, attnviz.listen(noise(16_000), model=listener).probabilities)
