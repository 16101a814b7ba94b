"""What a pipeline returns can be written and played without knowing its rate by heart."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from attnviz import AuffusionOutput
from attnviz.errors import AudioError, OutputError


def test_audio_is_written_at_its_rate(tmp_path):
    first, second = (np.sin(np.linspace(0, 99, 8_000) * pitch).astype(np.float32) for pitch in (1, 2))
    out = AuffusionOutput(audios=[first, second])
    assert out.save(tmp_path / "dog.wav", 1) == tmp_path / "dog.wav"
    audio, rate = soundfile.read(tmp_path / "dog.wav")
    assert rate == out.sampling_rate == 16_000
    np.testing.assert_allclose(audio, second, atol=1e-4)
    assert out.save(str(tmp_path / "dog.wav")).exists()
    np.testing.assert_allclose(soundfile.read(tmp_path / "dog.wav")[0], first, atol=1e-4)


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(AudioError, match="no waveform 1; there are 1"):
        AuffusionOutput(audios=[np.zeros(9, dtype=np.float32)]).save(tmp_path / "a.wav", 1)
    with pytest.raises(AudioError, match="output_type"):
        AuffusionOutput().save(tmp_path / "a.wav")
    with pytest.raises(OutputError, match="no folder"):
        AuffusionOutput(audios=[np.zeros(9, dtype=np.float32)]).save(tmp_path / "none" / "a.wav")
    assert not list(tmp_path.iterdir())
