"""Save and load scenes as folders of WAV, TSV, JAMS and JSON files."""

from __future__ import annotations

import io
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from attnviz.audio import MEL, load_audio, write_wav
from attnviz.errors import AudioError, OutputError
from attnviz.events import write_jams, write_tsv
from attnviz.io.json_files import as_json, read_json
from attnviz.io.ownership import Kind
from attnviz.io.paths import checked_path
from attnviz.io.storage import whole_folder
from attnviz.scenes.config import ComposerConfig
from attnviz.scenes.scene import BACKGROUND, Scene, SceneSound, add_up

_FORMAT = 1
_LSB = 1 / 32768

SCENE = Kind("scene")


def save_scene(scene: Scene, folder: str | os.PathLike[str], *, stems: bool, overwrite: bool) -> Path:
    """Write a scene; see :meth:`Scene.save`."""
    if stems and scene.stems is None:
        raise AudioError(f"scene {scene.name} has no stems to save; it was loaded without stems.")
    target = checked_path(folder, "the folder of a scene", OutputError).absolute()
    with whole_folder(target, overwrite=overwrite, kind=SCENE) as place:
        write_wav(place / scene.name, scene.mixture)
        write_tsv(scene.events, place / "events.tsv")
        write_jams(scene.events, place / "events.jams", seconds=scene.config.seconds)
        (place / "scene.json").write_bytes(as_json(_content(scene, stems), "scene.json", indent=1))
        if stems and scene.stems is not None:
            (place / "stems").mkdir()
            for name, stem in zip(_stem_names(len(scene.sounds)), scene.stems, strict=True):
                buffer = io.BytesIO()  # so that a full disk raises OSError instead of an error of libsndfile
                soundfile.write(buffer, stem, MEL.sampling_rate, subtype="FLOAT", format="WAV")
                (place / "stems" / name).write_bytes(buffer.getvalue())
    return target


def load_scene(folder: str | os.PathLike[str]) -> Scene:
    """Read a scene; see :meth:`Scene.load`."""
    place = checked_path(folder, "the folder of a scene", AudioError)
    content = read_json(place / "scene.json", error=AudioError, hint=f"{place} does not contain a scene.")
    try:
        if content["format"] != _FORMAT:
            raise AudioError(
                f"{place} contains a scene of format {content['format']!r}; this attnviz reads format {_FORMAT}."
            )
        config = ComposerConfig.from_dict(content["config"])
        caption = str(content["caption"])
        sounds = tuple(_sound(fields, caption) for fields in content["sounds"])
        name, seed, has_stems = str(content["name"]), tuple(content["seed"]), bool(content["stems"])
    except (KeyError, TypeError, ValueError) as error:
        raise AudioError(f"{place / 'scene.json'} is damaged: {type(error).__name__}: {error}.") from error
    mixture = _samples(place / name, config)
    stems = None
    if has_stems:
        stems = np.stack([_samples(place / "stems" / stem, config) for stem in _stem_names(len(sounds))])
        exact = add_up(stems)
        if np.abs(exact - mixture).max() > 1.5 * _LSB:
            raise AudioError(f"the stems in {place} do not add up to {name}; was one of them replaced?")
        mixture = exact
    return Scene(name, mixture, caption, sounds, seed, config, stems)


def _content(scene: Scene, stems: bool) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "name": scene.name,
        "caption": scene.caption,
        "sounds": [asdict(sound) for sound in scene.sounds],
        "seed": list(scene.seed),
        "config": scene.config.to_dict(),
        "stems": stems,
    }


def _sound(fields: dict[str, Any], caption: str) -> SceneSound:
    start, end = fields["span"]
    intervals = tuple((float(onset), float(offset)) for onset, offset in fields["intervals"])
    sound = SceneSound(**{**fields, "span": (start, end), "intervals": intervals})
    if caption[start:end] != sound.label:
        raise ValueError(f"the span of {sound.label!r} is {caption[start:end]!r} in the caption")
    return sound


def _samples(path: Path, config: ComposerConfig) -> np.ndarray:
    samples = load_audio(path, MEL.sampling_rate)
    expected = config.frames * MEL.hop_length
    if samples.size != expected:
        raise AudioError(f"{path} has {samples.size} samples at {MEL.sampling_rate} Hz; expected {expected}.")
    return samples


def _stem_names(sounds: int) -> list[str]:
    return [*(f"{number}.wav" for number in range(sounds)), f"{BACKGROUND}.wav"]
