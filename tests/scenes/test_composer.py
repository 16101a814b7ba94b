from __future__ import annotations

from itertools import combinations, islice, pairwise

import numpy as np
import pytest
from scenes.synthetic_scenes import PITCHES, bursts, recording_of

from attnviz.audio import MEL, log_mel
from attnviz.errors import AudioError
from attnviz.scenes import BACKGROUND, CLASSES, RECORDING_RATE, ComposerConfig, compose, read_esc10, scenes
from attnviz.scenes.audibility import frame_levels
from attnviz.scenes.placing import coloured_noise, cut_sound, heard
from attnviz.scenes.shares import _overlaps, energy_shares

FRAME = 0.01


@pytest.fixture(scope="module")
def some(recordings):
    return list(scenes(recordings, 40, 7))


def same(a, b) -> bool:
    return (
        np.array_equal(a.mixture, b.mixture)
        and np.array_equal(a.stems, b.stems)
        and (a.caption, a.sounds, a.seed, a.config) == (b.caption, b.sounds, b.seed, b.config)
    )


def test_the_same_seed_is_the_same_scene_in_any_order(recordings):
    shuffled = [recordings[i] for i in np.random.default_rng(0).permutation(len(recordings))]
    for seed in (0, 5, (3, 1)):
        assert same(compose(recordings, seed), compose(shuffled, seed))
    assert not np.array_equal(compose(recordings, 0).mixture, compose(recordings, 1).mixture)


def test_a_stream_is_its_scenes(recordings):
    stream = list(scenes(recordings, 3, 11))
    assert all(same(scene, compose(recordings, (11, i))) for i, scene in enumerate(stream))
    assert same(next(scenes(recordings, 1, 11, start=2)), stream[2])
    assert same(next(islice(scenes(recordings, None, 11), 1, 2)), stream[1])


def test_a_scene_is_as_stated(some):
    counts = set()
    for scene in some:
        assert scene.mixture.shape == (163_840,)
        assert scene.mixture.dtype == scene.stems.dtype == np.float32
        assert np.abs(scene.mixture).max() <= 0.9501
        sounds = scene.sounds
        counts.add(len(sounds))
        assert len({sound.sound for sound in sounds}) == len(sounds) == len(scene.stems) - 1
        assert sounds == tuple(sorted(sounds, key=lambda sound: sound.intervals[0][0]))
        for sound in sounds:
            assert scene.caption[slice(*sound.span)] == sound.label
            assert -2 <= sound.semitones <= 2
            assert sound.intervals[0][0] >= sound.start
            assert sound.intervals[-1][1] <= sound.start + sound.seconds + 1e-9 <= 10.24 + 1e-9
            assert all(onset < offset for onset, offset in sound.intervals)
            assert all(right[0] - left[1] >= 0.15 - 1e-9 for left, right in pairwise(sound.intervals))
    assert counts == {1, 2, 3, 4}


def test_stems_add_up_exactly(some):
    for scene in some:
        total = np.zeros_like(scene.mixture)
        for stem in scene.stems:
            total += stem
        np.testing.assert_array_equal(total, scene.mixture)


def test_intervals_vs_a_loop_over_frames(some):
    """Planted silences of the recordings are silent in the scene, by a slow measure of its own."""
    for scene in some:
        for sound, stem in zip(scene.sounds, scene.stems, strict=False):
            power = np.array([float(np.mean(stem[i : i + 160] ** 2)) for i in range(0, stem.size, 160)])
            # 3 dB apart from the threshold: these tones are not bass, the weighting changes them by less.
            loud, faint = (power > power.max() * 10 ** (-below / 10) for below in (27, 33))
            said = np.zeros(loud.size, bool)
            for onset, offset in sound.intervals:
                said[round(onset / FRAME) : round(offset / FRAME)] = True
            assert not (loud & ~said).any()
            # Else a frame is said to be audible only in a gap of less than 150 ms, or one frame late.
            for frame in np.flatnonzero(said & ~faint):
                assert faint[max(0, frame - 15) : frame].any(), (scene, sound, frame)
        covered = sum(off - on for on, off in sound.intervals)
        assert covered <= min(sound.seconds, 0.4 + 0.6 + 0.4 + 0.2) * 2 ** (2 / 12)


def test_sounds_of_a_sequence_do_not_overlap(recordings):
    for scene in scenes(recordings, 20, 3, ComposerConfig(sequences=1, events=(2, 4))):
        for left, right in pairwise(scene.sounds):
            assert left.start + left.seconds <= right.start + 1e-9
            assert left.intervals[-1][1] <= right.intervals[0][0]
    assert all(
        not any(w in s.caption for w in ("while",)) for s in scenes(recordings, 20, 3, ComposerConfig(sequences=1))
    )


def test_sounds_placed_freely_overlap_now_and_then(recordings):
    overlapping = 0
    for scene in scenes(recordings, 30, 3, ComposerConfig(sequences=0, events=(3, 4))):
        curves = scene.activity().values
        overlapping += any((a * b).any() for a, b in combinations(curves, 2))
    assert overlapping > 10


def test_events_are_a_table_of_the_intervals(some):
    for scene in some:
        table = scene.events
        assert list(table.columns) == [
            "clip", "label", "onset", "offset", "span", "class", "recording", "source",
        ]  # fmt: skip
        assert len(table) == sum(len(sound.intervals) for sound in scene.sounds)
        assert table["onset"].is_monotonic_increasing
        assert set(table["clip"]) == {scene.name}
        for _, row in table.iterrows():
            assert scene.caption[slice(*row["span"])] == row["label"]
            assert row["source"] == row["recording"].split("-")[1]


@pytest.mark.parametrize("columns", [1024, 128, 100, 7])
def test_activity_holds_the_seconds_of_the_events(some, columns):
    for scene in some[:10]:
        curve = scene.activity(columns)
        assert curve.dims == ("source", "time")
        assert ((curve >= 0) & (curve <= 1)).all()
        seconds = curve.sum("time") * 10.24 / columns
        expected = [sum(off - on for on, off in sound.intervals) for sound in scene.sounds]
        np.testing.assert_allclose(seconds, expected, atol=1e-9)
    assert set(np.unique(scene.activity().values.round(9))) <= {0.0, 1.0}  # intervals are whole columns


def test_masks_sum_to_one(some):
    for scene in some[:2]:
        for rows, columns in ((256, 1024), (32, 128), (30, 100)):
            masks = scene.masks(rows, columns)
            assert masks.dims == ("source", "freq", "time")
            assert masks.shape == (len(scene.sounds) + 1, rows, columns)
            assert masks.source.values[-1] == BACKGROUND
            assert ((masks >= 0) & (masks <= 1)).all()
            np.testing.assert_allclose(masks.sum("source"), 1, atol=1e-5)


def test_masks_are_where_the_sounds_are(recordings):
    """A tone of one recording fills the band of its pitch while it sounds; elsewhere all is background."""
    config = ComposerConfig(events=(2, 3), semitones=(0, 0), background=(-70, -60), seconds=6.0)
    checked = 0
    for scene in scenes(recordings, 6, 21, config):
        masks = scene.masks()
        activity = scene.activity().values > 0.5
        alone = activity.sum(0) == 1
        for i, sound in enumerate(scene.sounds):
            pitch = PITCHES[CLASSES.index(sound.sound)]
            band = masks[i].sel(freq=pitch, method="nearest").values
            onset, offset = (round(x / FRAME) for x in sound.intervals[0])
            inside = np.zeros(alone.size, bool)
            inside[onset + 2 : offset - 3] = True
            if (inside & alone).any():
                assert band[inside & alone].min() > 0.95
                checked += 1
        silent = ~np.convolve(activity.any(0), np.ones(31), "same").astype(bool)
        if silent.any():
            assert float(masks[-1].values[:, silent].mean()) > 0.8
    assert checked > 8


def test_shares_of_coarse_cells_vs_summed_energies():
    rng = np.random.default_rng(0)
    stems = (rng.standard_normal((3, 16_000)) * np.array([[0.1], [0.01], [0.001]])).astype(np.float32)
    fine = np.stack([np.exp(2 * log_mel(stem)) for stem in stems])  # squared magnitudes summed: near the energy
    pooled = fine.reshape(3, 32, 8, 20, 5).sum((2, 4))
    np.testing.assert_allclose(energy_shares(stems, 32, 20), pooled / pooled.sum(0), atol=0.01)
    assert (energy_shares(np.zeros((2, 16_000), np.float32), 256, 100) == 0).all()
    only = np.stack([stems[0], np.zeros(16_000, np.float32)])
    np.testing.assert_allclose(energy_shares(only, 256, 100)[0], 1)


@pytest.mark.parametrize(("cells", "parts"), [(32, 256), (30, 256), (1000, 256), (256, 256)])
def test_cells_share_out_every_part_once(cells, parts):
    overlaps = _overlaps(cells, parts)
    np.testing.assert_allclose(overlaps.sum(axis=0), 1, atol=1e-9)
    np.testing.assert_allclose(overlaps.sum(axis=1), parts / cells, atol=1e-9)
    np.testing.assert_allclose(
        overlaps @ (np.arange(parts) + 0.5) * cells / parts, (np.arange(cells) + 0.5) * parts / cells, atol=1.0
    )


def test_gain_of_a_recording_changes_no_event(recordings):
    """The level is set by the composer, so a quieter recording gives the same scene but for rounding."""
    quiet = [
        recording_of(0.25 * r.audio, r.class_id, r.freesound_id, r.fold, r.take) for r in recordings
    ]  # a power of two: exact
    a, b = compose(recordings, 4), compose(quiet, 4)
    assert a.sounds == b.sounds
    np.testing.assert_allclose(a.mixture, b.mixture, atol=1e-6)


def test_pitch_and_length():
    audio = bursts(1000, where=((1.0, 3.0),))
    recording = recording_of(audio)
    for semitones in (-3, 0, 2):
        piece = cut_sound(recording, seconds=4, semitones=semitones, level=-20, where=0.5, config=ComposerConfig())
        factor = 2 ** (semitones / 12)
        spectrum = np.abs(np.fft.rfft(piece))
        assert spectrum.argmax() * 16_000 / piece.size == pytest.approx(1000 * factor, rel=0.002)
        assert heard(piece, ComposerConfig()).sum() * FRAME == pytest.approx(2 / factor, abs=0.03)
        assert frame_levels(piece, weighted=False).max() == pytest.approx(-20, abs=0.05)
        assert piece.size % MEL.hop_length == 0


@pytest.mark.parametrize("where", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seconds", [0.2, 0.5, 2.0, 60.0])
def test_a_piece_holds_the_loudest_moment(where, seconds):
    audio = 0.05 * bursts(1000) + bursts(3000, where=((2.05, 2.1),))
    piece = cut_sound(
        recording_of(audio), seconds=seconds, semitones=0, level=-12, where=where, config=ComposerConfig()
    )
    assert piece.size / 16_000 <= seconds + 1e-9
    loud = frame_levels(piece, weighted=False) > -14
    assert loud.sum() >= 3  # 10 ms and the margin of 20 ms around it
    loudest = piece.reshape(-1, 160)[loud].ravel()
    spectrum = np.abs(np.fft.rfft(loudest))
    assert spectrum.argmax() * 16_000 / loudest.size == pytest.approx(3000, rel=0.05)


def test_levels_and_background_are_kept(recordings):
    config = ComposerConfig(levels=(-30, -25), background=(-60, -60), lengths=(2, 2), events=(2, 2))
    for scene in scenes(recordings, 10, 0, config):
        for sound, stem in zip(scene.sounds, scene.stems, strict=False):
            assert -30.1 < sound.level < -24.9
            assert sound.level == pytest.approx(frame_levels(stem, weighted=False).max())
            assert sound.seconds <= 2
        assert 20 * np.log10(np.sqrt(np.mean(scene.stems[-1] ** 2))) == pytest.approx(-60, abs=1e-3)


def test_a_loud_mixture_is_turned_down_as_a_whole(recordings):
    soft = ComposerConfig(levels=(-20, -20), events=(4, 4), sequences=0)
    loud = ComposerConfig(levels=(0, 0), events=(4, 4), sequences=0, background=(-55, -25))
    a, b = compose(recordings, 2, soft), compose(recordings, 2, loud)
    assert np.abs(b.mixture).max() == pytest.approx(0.95, abs=1e-4)
    ratio = [np.abs(y).max() / np.abs(x).max() for x, y in zip(a.stems, b.stems, strict=True)]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)
    assert [s.intervals for s in a.sounds] == [s.intervals for s in b.sounds]


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_noise_has_the_slope_asked_for(slope):
    noise = coloured_noise(163_840, -40, slope, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(noise)) ** 2
    freq = np.fft.rfftfreq(noise.size, 1 / 16_000)
    octaves = [np.log2(power[(freq >= f) & (freq < 2 * f)].mean()) for f in (250, 500, 1000, 2000, 4000)]
    np.testing.assert_allclose(np.diff(octaves), -slope, atol=0.1)


@pytest.mark.parametrize(
    ("seed", "name", "message"),
    [
        (-1, None, "seed is -1"),
        ((), None, "seed is"),
        ((1, 2.0), None, "seed is"),
        (True, None, "seed is True"),
        (1, "a/b.wav", "a file name"),
        (1, "scene.mp3", "a file name"),
    ],
)
def test_bad_seeds_and_names(recordings, seed, name, message):
    with pytest.raises(AudioError, match=message):
        compose(recordings, seed, name=name)


def test_too_few_classes(recordings):
    dogs = [r for r in recordings if r.class_id == 1]
    assert len(compose(dogs, 0).sounds) == 1
    with pytest.raises(AudioError, match="contain 1 classes"):
        compose(dogs, 0, ComposerConfig(events=(2, 3)))
    with pytest.raises(AudioError, match="contain 0 classes"):
        compose([], 0)


def test_a_recording_that_would_not_be_heard_is_named():
    rumble = recording_of(0.3 * np.sin(2 * np.pi * 15 * np.arange(60_000) / RECORDING_RATE))
    with pytest.raises(AudioError, match=r"1-1-A\.ogg stays below the audible_floor"):
        compose([rumble], 0, ComposerConfig(levels=(-40, -30)))


@pytest.mark.parametrize(
    "settings",
    [
        {"events": (0, 2)},
        {"events": (3, 2)},
        {"events": (1, 11)},
        {"events": (1.5, 2)},
        {"events": 2},
        {"seconds": 0.5},
        {"seconds": 10.245},
        {"seconds": float("nan")},
        {"seconds": "10"},
        {"lengths": (0.1, 5)},
        {"levels": (-20, 3)},
        {"levels": (-60, -50), "audible_floor": -55},
        {"semitones": (-4, 0)},
        {"background": (-20, -60)},
        {"sequences": 1.5},
        {"audible_range": 90},
        {"min_gap": -0.1},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(AudioError):
        ComposerConfig(**settings)


def test_settings_as_a_dictionary():
    config = ComposerConfig(events=(2, 3), seconds=6)
    assert ComposerConfig.from_dict(config.to_dict()) == config
    with pytest.raises(AudioError, match=r"no settings \['event'\]"):
        ComposerConfig.from_dict({"event": (1, 2)})


def test_many_sounds_in_a_short_scene(recordings):
    for scene in scenes(recordings, 5, 0, ComposerConfig(events=(10, 10), seconds=1.0, sequences=0.5)):
        assert len(scene.sounds) == 10
        assert scene.mixture.shape == (16_000,)
        assert scene.masks().shape == (11, 256, 100)


def test_real_scenes(data_dir):
    recordings = read_esc10(data_dir / "esc10", folds=[1], classes=["Clock tick", "Rain", "Person sneeze"])
    found = list(scenes(recordings, 20, 0, ComposerConfig(events=(2, 3))))
    silent = {sound: [] for sound in ("Clock tick", "Rain", "Person sneeze")}
    for scene in found:
        assert np.isfinite(scene.mixture).all()
        for sound in scene.sounds:
            assert sound.fold == 1
            audible = sum(off - on for on, off in sound.intervals)
            silent[sound.sound].append(1 - audible / sound.seconds)
    assert np.median(silent["Rain"]) < 0.05  # rain lasts, a clock is silent between its ticks
    assert np.median(silent["Clock tick"]) > 0.2
