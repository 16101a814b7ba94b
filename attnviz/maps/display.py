"""Text and HTML representations of `AttentionMaps`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from attnviz.maps.layer import level_of, short_name

if TYPE_CHECKING:
    from attnviz.maps.attention_maps import AttentionMaps

_LONGEST = 96


def text(maps: AttentionMaps) -> str:
    """Return a plain-text summary of maps."""
    rows = facts(maps)
    width = max(len(name) for name, _ in rows)
    return "\n".join([_title(maps), *(f"  {name:<{width}}  {value}" for name, value in rows)])


def html(maps: AttentionMaps) -> str:
    """Return a summary of maps as an HTML table with escaped text."""
    cell = "text-align:left;vertical-align:top;padding:1px 8px"
    rows = "".join(
        f"<tr><th style='{cell}'>{escape(name)}</th><td style='{cell}'>{escape(value)}</td></tr>"
        for name, value in facts(maps)
    )
    caption = f"<caption style='{cell};font-weight:bold;white-space:nowrap'>{escape(_title(maps))}</caption>"
    return f"<table>{caption}<tbody>{rows}</tbody></table>"


def facts(maps: AttentionMaps) -> list[tuple[str, str]]:
    """Return the contents of maps as pairs of name and value."""
    several = len(maps.prompts) > 1
    rows: list[tuple[str, str]] = []
    for index, prompt in enumerate(maps.prompts[:4]):
        number = f" {index}" if several else ""
        rows.append((f"prompt{number}", repr(_shorten(prompt))))
        rows.append(
            (f"words{number}", _shorten(", ".join(word.label for word in maps.occurrences(index))) or "none")
        )
    if len(maps.prompts) > 4:
        rows.append(("", f"and {len(maps.prompts) - 4} more prompts"))
    rows += [
        ("layers", _layers(maps)),
        ("tokens", _tokens(maps)),
        ("steps", _steps(maps)),
        ("heads", _heads(maps)),
        ("branch", maps.branch),
        ("sound", _sound(maps)),
        ("memory", _size(maps.nbytes)),
        ("state", "complete" if maps.complete else "INCOMPLETE: the run was interrupted"),
    ]
    return rows


def _title(maps: AttentionMaps) -> str:
    prompts, images = len(maps.prompts), maps.images
    return (
        f"AttentionMaps: {prompts} prompt{'s' * (prompts != 1)}, {images} image{'s' * (images != 1)}"
        f"{' each' * (prompts != 1)}"
    )


def _layers(maps: AttentionMaps) -> str:
    by_grid: dict[tuple[int, int], list[str]] = {}
    for name in maps.layers:
        rows, columns = level_of(maps[name])
        by_grid.setdefault((rows, columns), []).append(short_name(name))
    finest_first = sorted(by_grid.items(), key=lambda item: -item[0][0] * item[0][1])
    listed = "; ".join(f"{rows} x {columns}: {', '.join(names)}" for (rows, columns), names in finest_first)
    return f"{len(maps.layers)} ({listed})"


def _tokens(maps: AttentionMaps) -> str:
    first = maps[maps.layers[0]]
    encoders = sorted(set(first["token_encoder"].to_numpy().tolist()))
    if maps.encoder is not None:
        of = f", of encoder {maps.encoder}"
    else:
        of = f", of {len(encoders)} encoders" if len(encoders) > 1 else ""
    return f"{first.sizes['token']} of {len(maps.tokens[0].rows)} key positions{of}"


def _steps(maps: AttentionMaps) -> str:
    first = maps[maps.layers[0]]
    calls = len(maps.timesteps)
    span = f"timestep {maps.timesteps[0]:g}" + (f" to {maps.timesteps[-1]:g}" if calls > 1 else "")
    if "frames_given" in maps.provenance:
        return "none: each frame is written once"
    if "step" in first.dims:
        return f"{calls} kept, {span}"
    return f"mean of {calls} denoiser call{'s' * (calls != 1)}, {span}"


def _heads(maps: AttentionMaps) -> str:
    first = maps[maps.layers[0]]
    counts = sorted({int(maps[name].attrs["heads"]) for name in maps.layers})
    of = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    if "head" in first.dims:
        kept = sorted({maps[name].sizes["head"] for name in maps.layers})
        return f"{', '.join(map(str, kept))} kept of {of}"
    return f"mean of {of}"


def _sound(maps: AttentionMaps) -> str:
    grid = maps.grid
    beyond = grid.audio_seconds is not None and grid.audio_seconds < grid.seconds
    padding = f", padding after {grid.audio_seconds:g} s" if beyond else ""
    sound = "with" if maps.spectrogram is not None else "without"
    hertz = f"{grid.fmin:g} to {grid.fmax:g} Hz" if grid.has_freq else "no frequency axis"
    return f"{grid.seconds:g} s, {hertz}{padding}; {sound} spectrogram"


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


def _shorten(value: str | Sequence[str]) -> str:
    line = " ".join(str(value).split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
