"""Every planted fault is found, and that alone; healthy maps have none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from diagnosis_planted import PLANTED, changed, flatten, healthy, ignore_the_dog
from maps.maps_synthetic import GRID, SMALL, captured, make, table
from plots.plots_checks import text_faults

import attnviz
from attnviz import plots
from attnviz.audio import write_wav
from attnviz.diagnosis import THRESHOLDS, diagnose
from attnviz.errors import AudioError, MapsError
from attnviz.testing import example_maps

RNG = np.random.default_rng(0)
PREDICTION = RNG.normal(size=(2, 4, 8, 16))
TONE = np.sin(np.arange(16_000) * 0.3)
SOUND = healthy().spectrogram.to_numpy()[0, 0]


def finding(result, name):
    return next(one for one in result.findings if one.name == name)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kept", [{}, {"steps": 3}, {"heads": 2}])
def test_healthy_maps_have_no_fault(seed, kept):
    result = diagnose(
        example_maps(both=True, seed=seed, **kept),
        predictions=(PREDICTION, 0.9 * PREDICTION),
        reconstruction=(SOUND, SOUND + 0.1),
        audio=0.99 * TONE,
    )
    assert result.found == []
    assert [one.name for one in result.findings] == list(THRESHOLDS)
    assert not any(one.unjudged for one in result.findings)


@pytest.mark.parametrize("name", list(PLANTED))
def test_a_planted_fault_is_found_and_nothing_else(name):
    assert diagnose(PLANTED[name]()).found == [name]


def test_faults_of_given_arrays():
    same = diagnose(healthy(), predictions=(PREDICTION, PREDICTION + 1e-4), reconstruction=(SOUND, SOUND[::-1]))
    assert same.found == ["prediction without guidance", "reconstruction artefacts"]
    shifted = diagnose(healthy(), reconstruction=(SOUND, SOUND + 1.0))
    assert finding(shifted, "reconstruction artefacts").value == pytest.approx(20 * np.log10(np.e))
    scaled = diagnose(healthy(), predictions=(1.25 * PREDICTION, PREDICTION))
    assert finding(scaled, "prediction without guidance").value == pytest.approx(0.25)
    zero = diagnose(healthy(), predictions=(PREDICTION, 0 * PREDICTION))
    assert finding(zero, "prediction without guidance").unjudged == "the unguided prediction is zero"


def test_clipped_audio_is_found_where_the_audio_is_given(tmp_path):
    clipped = np.clip(1.5 * TONE, -1, 1).astype(np.float32)
    write_wav(tmp_path / "clipped.wav", clipped)  # 16 bits: the largest sample is 32767 / 32768
    for audio in (clipped, tmp_path / "clipped.wav"):
        result = diagnose(healthy(), audio=audio)
        assert result.found == ["clipped audio"]
        # A sine above 1/1.5 for acos(1/1.5)/(pi/2) of the second.
        expected = 1000 * np.arccos(1 / 1.5) / (np.pi / 2)
        assert finding(result, "clipped audio").value == pytest.approx(expected, abs=1)
    assert diagnose(healthy(), audio=0.99 * clipped).found == []
    with pytest.raises(AudioError):
        diagnose(healthy(), audio=np.zeros(0))


def test_the_word_at_fault_is_named():
    result = diagnose(PLANTED["word ignored"]())
    assert finding(result, "word ignored").detail == "dog"
    assert finding(diagnose(PLANTED["uniform attention"]()), "uniform attention").detail.startswith("flat: a, dog")


def test_two_faults_are_both_found():
    both = changed(ignore_the_dog, sound=lambda log_mel: np.minimum(log_mel, -1.0))
    assert diagnose(both).found == ["word ignored", "clipped spectrogram"]


def test_padding_takes_no_part():
    grid = healthy().grid

    def spoil(values):
        columns = grid.padding(values.shape[-1])
        values[..., 1:8, :, columns] = np.random.default_rng(1).random(values[..., 1:8, :, columns].shape) / 8

    # One layer: of several, the coarser ones' wider columns of padding reach into the finer ones' audio.
    before, after = (diagnose(maps.select(layers="up.2.0")) for maps in (changed(), changed(spoil)))
    for one, other in zip(after.findings, before.findings, strict=True):
        assert one.value == pytest.approx(other.value, nan_ok=True), one.name


def test_a_scale_of_the_spectrogram_is_no_fault():
    quiet = diagnose(changed(sound=lambda log_mel: log_mel - 3.0))
    assert quiet.found == []


def test_what_cannot_be_judged_says_why():
    bare = make(captured(SMALL, tokens=16))
    result = diagnose(bare)
    reasons = {one.name: one.unjudged for one in result.findings if one.unjudged}
    assert "branch='both'" in reasons["conditioning without effect"]
    assert "no spectrogram" in reasons["clipped spectrogram"]
    assert "not given" in reasons["reconstruction artefacts"]
    assert "not given" in reasons["clipped audio"]
    one = make(captured(SMALL, tokens=4), tokens=[table("dog", keys=4)], positions=range(4))
    reasons = {found.name: found.unjudged for found in diagnose(one).findings}
    assert "fewer than two words" in reasons["word ignored"]
    assert "fewer than two" in reasons["all words alike"]
    narrowed = make(captured(SMALL, tokens=32), tokens=[table("dog barks", encoders=2)], positions=range(32))
    assert "narrowed" in finding(diagnose(narrowed.select(encoder=1)), "attention sink").unjudged
    flat = diagnose(changed(flatten))
    assert "flat" in finding(flat, "noisy attention").unjudged
    assert finding(flat, "noisy attention").found is False


def test_no_word_at_all():
    maps = make(captured(SMALL, tokens=2), positions=[0, 10])  # start and end alone
    result = diagnose(maps)
    assert result.found == []
    assert finding(result, "uniform attention").unjudged == "no word was stored in full"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"prompt_index": 1}, "no prompt 1"),
        ({"sample": 1}, "no sample 1"),
        ({"readout": "best"}, "Unknown readout"),
        ({"predictions": (np.zeros(3), np.zeros(4))}, r"predictions has arrays of the shapes \(3,\) and \(4,\)"),
        ({"reconstruction": (np.zeros(3), np.full(3, np.nan))}, "reconstruction contains NaN"),
        ({"predictions": ("a", "b")}, "pair of numeric arrays"),
        ({"predictions": (np.zeros(3),)}, "pair of numeric arrays"),
    ],
)
def test_bad_questions_are_refused(ask, message):
    with pytest.raises(MapsError, match=message):
        diagnose(healthy(), **ask)


def test_other_bad_maps():
    with pytest.raises(MapsError, match="unconditional"):
        diagnose(healthy().select(branch="unconditional"))
    with pytest.raises(MapsError, match="No column"):
        diagnose(make(grid=type(GRID)(height=40, width=72, audio_seconds=0.001)))


def test_table_and_summary_have_every_number():
    result = diagnose(PLANTED["attention sink"]())
    assert result.table["found"].sum() == 1
    assert result.table["found"].isna().sum() == 3
    assert list(result.table["finding"]) == list(THRESHOLDS)
    assert result.table["value"].dtype == float
    assert pd.api.types.is_string_dtype(result.table["source"])
    text = result.summary()
    assert "1 fault found in the run" in text
    assert "8 of 11 kinds were judged" in text
    assert "- ATTENTION SINK: Nearly all attention" in text
    assert len(text.splitlines()) == 14
    unjudged = result.table.loc[result.table["unjudged"] != "", "finding"]
    assert repr(result) == f"<Diagnosis: attention sink; not judged: {', '.join(unjudged)}>"


def test_it_is_at_the_front_door():
    assert attnviz.diagnose is diagnose


def test_thresholds_lie_within_their_scales():
    for limit in THRESHOLDS.values():
        assert min(limit.best, limit.worst) < limit.value < max(limit.best, limit.worst)
        assert not limit.passed(limit.value)
        assert not limit.passed(limit.best)
        assert limit.passed(limit.worst)
        assert not limit.passed(float("nan"))
        assert [limit.position(one) for one in (limit.best, limit.value, limit.worst)] == [-1, 0, 1]
        assert limit.source
        assert limit.meaning.endswith((".", "?"))


@pytest.mark.parametrize("name", list(PLANTED))
def test_a_fault_stands_right_of_the_line(name):
    ax = plots.failures(diagnose(PLANTED[name]()))
    marks = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert name in marks
    for own, mark in marks.items():
        assert (mark.get_xdata()[0] > 0) == (own == name)
    assert "1 fault found" in ax.get_title(loc="left")
    assert text_faults(ax.figure) == []


def test_nothing_judged_is_no_figure():
    maps = make(captured(SMALL, tokens=2), positions=[0, 10])
    with pytest.raises(MapsError, match="No sign could be judged: .*no word was stored"):
        plots.failures(diagnose(maps))
