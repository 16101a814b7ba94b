"""``attnviz solo``: write the audio of what each phrase made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnviz.cli.commands.options import Readout
from attnviz.cli.terminal import announce, check_out, command, say
from attnviz.io.choices import check_run

if TYPE_CHECKING:
    import numpy as np

_LONGEST = 60  # characters of a phrase in a file name


@command
def solo(
    run: Annotated[Path, typer.Argument(help="Run folder of generate, explain or edit.")],
    phrases: Annotated[
        list[str] | None,
        typer.Argument(
            help="Phrases of the prompt, such as 'dog barks'; default: all that may name a sound.",
            metavar="PHRASE",
        ),
    ] = None,
    readout: Readout = "mean",
    exponent: Annotated[
        float | None,
        typer.Option(help="Power of the maps: higher values give each cell of the clip to fewer phrases."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing solos.")] = False,
) -> dict[str, Any]:
    """Write the audio of what each phrase of the prompt made.

    RUN/solo-PHRASE.wav is the clip, filtered by the map of the phrase. Every cell of the clip is shared out among
    the phrases of the prompt, so the solos of all phrases sum to the clip. No model is loaded.
    """
    check_run(run)
    for name in _files(phrases or []):
        check_out(run / name, overwrite=overwrite)
    announce("Reading the run")
    from attnviz.audio import write_wav
    from attnviz.audio.files import is_wav
    from attnviz.audio.levels import loudest_level, warn_if_inaudible
    from attnviz.io.storage import whole_or_nothing
    from attnviz.report.saved_run import read_saved_run
    from attnviz.separation import separate
    from attnviz.separation.separating import EXPONENT, with_others

    saved = read_saved_run(run)
    spans, asked = with_others(saved.maps, phrases or None)
    audio = run / "audio.wav"
    found = separate(
        saved.maps,
        audio if audio.exists() else None,
        phrases=spans,
        readout=readout,
        exponent=EXPONENT if exponent is None else exponent,
    )
    named = found.phrases[:asked]
    files = _files(named)
    sounds: dict[str, np.ndarray] = dict(zip(files, found.audios, strict=False))
    for file in sounds:  # all are free before the first is written
        check_out(run / file, overwrite=overwrite)
    levels = {file: loudest_level(sound, found.sampling_rate) for file, sound in sounds.items()}
    for file, sound in sounds.items():
        with whole_or_nothing(run / file, overwrite=overwrite, replaceable=is_wav) as partial:
            write_wav(partial, sound, found.sampling_rate)
        say(f"{file}: {levels[file]:.1f} dBFS in the loudest 0.4 s")
    for phrase, file in zip(named, files, strict=True):
        warn_if_inaudible(levels[file], f"The solo of {phrase!r}")
    if found.estimated:
        say(f"{run} has no audio.wav: the clip was estimated from its spectrogram.")
    say(f"Written to {run}")
    return {
        "run": run,
        "files": list(sounds),
        "solos": [
            {"phrase": phrase, "file": file, "level_dbfs": levels[file]}
            for phrase, file in zip(named, files, strict=True)
        ],
        "shared_with": list(found.phrases[asked:]),
        "readout": found.readout,
        "estimated": found.estimated,
        "sampling_rate": found.sampling_rate,
    }


def _files(phrases: Sequence[str]) -> list[str]:
    """Return the names of the files of phrases: their letters and digits, joined by hyphens, numbered if equal."""
    names: list[str] = []
    for phrase in phrases:
        letters = "-".join(re.findall(r"\w+", phrase.lower()))[:_LONGEST] or "phrase"
        endings = ("", *(f"-{number}" for number in range(2, len(phrases) + 1)))
        names.append(next(name for end in endings if (name := f"solo-{letters}{end}.wav") not in names))
    return names
