"""Solos: shares sum to one, sounds sum to the clip, and a word planted in a band is heard alone."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from maps.maps_synthetic import PROMPT, table

import attnviz
from attnviz.audio import SpectrogramGrid, log_mel
from attnviz.errors import AttnVizError, AudioError, InaudibleWarning, MapsError, PromptError
from attnviz.maps import AttentionMaps, LayerAttention
from attnviz.maps.sharing import relative_logarithms, shares
from attnviz.separation import separate, si_sdr

RATE, SECONDS = 16_000, 2.0
GRID = SpectrogramGrid(height=256, width=208, audio_seconds=SECONDS)
TIME = np.arange(int(RATE * SECONDS)) / RATE
#: The dog has a high tone in the first second, the rain a low one in the second; both ring through the middle.
DOG = (0.3 * np.sin(2 * np.pi * 2000 * TIME) * (TIME < 1.2)).astype(np.float32)
RAIN = (0.2 * np.sin(2 * np.pi * 300 * TIME) * (TIME > 0.8)).astype(np.float32)
MIX = DOG + RAIN


def planted(prompt: str = PROMPT, *, sign: float = 1.0, spectrogram: bool = True, has_freq: bool = True):
    """Maps in which "dog barks" is above 1 kHz and "rain falls" below, or in the first and the second half."""
    tokens = table(prompt)
    rows = 8 if has_freq else 1
    heat = np.full((16, rows, 26), 0.01, np.float32)
    for phrase, low, high in (("dog barks", 3, 8), ("rain falls", 0, 3)):
        if phrase in prompt:
            cells = (
                (slice(low, high),) if has_freq else (0, slice(0, 13) if phrase == "dog barks" else slice(13, 26))
            )
            heat[(tokens.find(phrase), *cells)] = 0.5 * sign
            if has_freq:
                heat[tokens.find(phrase), low:high] = 0.5 * sign
    dims = ("prompt", "image", "token", *(("row",) if has_freq else ()), "column")
    # rows of captured layers count from the top of the image
    values = heat[None, None, :, ::-1] if has_freq else heat[None, None, :, 0]
    grid = GRID if has_freq else SpectrogramGrid(height=None, width=208, audio_seconds=SECONDS)
    return AttentionMaps.from_layers(
        {"up_blocks.1.attentions.0": LayerAttention(np.ascontiguousarray(values), dims, 2)},
        tokens=[tokens],
        positions=range(16),
        timesteps=[1.0],
        grid=grid,
        spectrogram=_log_mel()[None, None] if spectrogram and has_freq else None,
    )


def _log_mel() -> np.ndarray:
    found = log_mel(MIX)
    return np.pad(found, ((0, 0), (0, GRID.width - found.shape[1])), constant_values=np.log(1e-5))


@given(
    arrays(np.float64, (3, 2, 5), elements=st.floats(-1, 1)),
    st.floats(0.1, 64),
)
def test_shares_sum_to_one_or_to_nothing(heats, exponent):
    found = shares(relative_logarithms(heats), exponent)
    assert ((found >= 0) & (found <= 1)).all()
    total = found.sum(axis=0)
    assert np.allclose(total, 1.0 if (heats > 0).any() else 0.0)
    for heat, share in zip(heats, found, strict=True):  # a map that is nowhere above 0 gets nothing
        assert (heat > 0).any() or not share.any()


def test_a_share_is_the_ratio_of_the_powers():
    heats = np.array([[[1.0, 0.5]], [[2.0, 4.0]]])  # relative: 1, 0.5 and 0.5, 1
    assert shares(relative_logarithms(heats), 2.0) == pytest.approx(np.array([[[0.8, 0.2]], [[0.2, 0.8]]]))
    assert shares(relative_logarithms(7 * heats), 2.0) == pytest.approx(shares(relative_logarithms(heats), 2.0))


def test_each_word_is_heard_alone():
    found = separate(planted(), MIX)
    assert found.phrases == ("dog barks", "rain falls")
    for sound, stem in zip(found.audios, (DOG, RAIN), strict=True):
        assert si_sdr(sound, stem) > si_sdr(MIX, stem) + 20
    assert np.abs(found.audios.sum(axis=0) + found.rest - MIX).max() < 1e-6
    assert float(found.masks.sum("phrase").max()) <= 1 + 1e-6
    assert np.abs(found.rest).max() < 1e-5


def test_a_phrase_left_out_is_in_the_rest():
    found = separate(planted(), MIX, phrases=["dog barks"])
    assert np.abs(found.audios[0] - MIX).max() < 1e-5  # the only one gets all
    assert np.abs(found.rest).max() < 1e-5
    both = separate(planted(), MIX, phrases=["dog", "rain falls"])
    assert both.phrases == ("dog", "rain falls")


def test_a_solo_is_the_same_sound():
    one, all_of_them = attnviz.solo(planted(), "rain falls", MIX), separate(planted(), MIX)
    assert np.abs(one.audio - all_of_them.audios[1]).max() < 1e-6
    assert one.others == ("dog barks",)
    assert one.sampling_rate == RATE
    assert one.level == pytest.approx(20 * np.log10(0.2) - 3.01, abs=0.5)
    assert not one.estimated


def test_one_word_is_the_whole_clip():
    prompt = "rain"
    maps = planted(prompt)
    assert np.abs(attnviz.solo(maps, "rain", MIX).audio - MIX).max() < 1e-5


def test_words_of_hearing_share_nothing():
    assert separate(planted("the sound of rain falls"), MIX).phrases == ("rain falls",)


def test_without_frequencies_a_word_is_faded_in_and_out():
    maps = planted(has_freq=False)
    found = separate(maps, MIX)
    assert found.masks.dims == ("phrase", "time")
    dog, rain = found.audios
    assert np.abs(dog[: RATE // 2] - MIX[: RATE // 2]).max() < 1e-3  # all frequencies
    assert np.abs(rain[: RATE // 2]).max() < 1e-3
    with pytest.raises(MapsError, match="no spectrogram"):
        separate(maps)


def test_a_word_that_is_pushed_away_gets_nothing():
    tokens = table(PROMPT)
    maps = planted()
    name = maps.layers[0]
    values = maps[name].to_numpy()[..., ::-1, :].copy()
    values[:, :, tokens.find("dog barks")] *= -1
    signed = AttentionMaps.from_layers(
        {name: LayerAttention(values, ("prompt", "image", "token", "row", "column"), 2)},
        tokens=[tokens], positions=range(16), timesteps=[1.0], grid=GRID, spectrogram=_log_mel()[None, None],
        content={"signed": 1},
    )  # fmt: skip
    with pytest.warns(InaudibleWarning, match="dog barks"):
        assert not attnviz.solo(signed, "dog barks", MIX).audio.any()
    assert np.abs(attnviz.solo(signed, "rain falls", MIX).audio - MIX).max() < 1e-5


def test_files_rates_and_lengths(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.repeat(MIX, 3), 48_000)
    from_file = attnviz.solo(planted(), "dog barks", path)
    from_array = attnviz.solo(planted(), "dog barks", np.repeat(MIX, 3), sampling_rate=48_000)
    assert len(from_file.audio) == len(MIX)
    assert np.abs(from_file.audio - from_array.audio).max() < 1e-3
    saved = from_file.save(tmp_path / "dog.wav")
    samples, rate = soundfile.read(saved)
    assert (rate, len(samples)) == (RATE, len(MIX))
    with pytest.raises(AttnVizError, match="exists already"):
        from_file.save(saved)
    with pytest.raises(AudioError, match="sampling rate"):
        attnviz.solo(planted(), "dog barks", np.repeat(MIX, 3))


def test_without_audio_the_clip_is_estimated():
    found = attnviz.solo(planted(), "rain falls")
    assert found.estimated
    assert len(found.audio) == len(MIX)
    low = np.abs(np.fft.rfft(found.audio))
    assert abs(np.argmax(low) / SECONDS - 300) < 60
    with pytest.raises(MapsError, match="no spectrogram"):
        attnviz.solo(planted(spectrogram=False), "rain falls")


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"phrases": ["cat"]}, PromptError, "not in the prompt"),
        ({"phrases": ["dog barks", "barks"]}, PromptError, "overlap"),
        ({"phrases": []}, PromptError, "separates nothing"),
        ({"phrases": "dog"}, PromptError, "sequence"),
        ({"exponent": 0}, MapsError, "above 0"),
        ({"sample": 3}, MapsError, "sample 3"),
        ({"prompt_index": 2}, MapsError, "prompt 2"),
        ({"readout": "cosine"}, MapsError, "readout"),
    ],
)
def test_it_refuses(settings, error, said):
    with pytest.raises(error, match=said):
        separate(planted(), MIX, **settings)


def test_a_prompt_without_sounds():
    with pytest.raises(PromptError, match="no phrase"):
        separate(planted("and then"), MIX)
