"""Faithfulness of a method as a whole: its sensitivity to the clip, and to the weights of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from attnviz.arguments import public, whole_number
from attnviz.attribution.method import Attribution
from attnviz.attribution.players import players_of
from attnviz.attribution.randomizing import cascade
from attnviz.audio import load_audio
from attnviz.audio.files import AudioSource
from attnviz.errors import ArgumentError, CaptureError
from attnviz.maps import AttentionMaps
from attnviz.tracing.keys import check_pipeline

_OURS = ("method", "randomize", "randomize_seed", "keep")


@public
def sensitivity_max(
    method: Attribution,
    audio: AudioSource,
    caption: str,
    *,
    perturb_radius: float = 0.02,
    n_perturb_samples: int = 10,
    perturb_seed: int = 0,
    sampling_rate: int | None = None,
    **looks: Any,
) -> float:
    """Compute captum's maximum sensitivity: how much the maps change if the clip changes a little.

    Parameters
    ----------
    method : Attribution
        A method with its settings, such as ``Attention(pipe)``.
    audio : path, array or tensor
        The clip, as for `attnviz.explain`.
    caption : str
    perturb_radius : float
        Largest change of a sample, relative to the peak of the clip. Changes are uniform.
    n_perturb_samples : int
        Number of changed clips, each of which is explained.
    perturb_seed : int
        Seed of the changes.
    sampling_rate : int, optional
        Sampling rate of an array in Hz; default: 16 000.
    **looks
        Other keyword arguments of `attnviz.explain`.

    Returns
    -------
    float
        Largest Frobenius norm of the change of the maps of all words, relative to the norm of the maps. 0 is the
        best, and a map that never changes has it, too: compare it with what `infidelity` says.

    Raises
    ------
    AttnVizError
        As `attnviz.explain`; if a setting is invalid.

    Notes
    -----
    References: Yeh et al., On the (In)fidelity and Sensitivity of Explanations (arXiv 1901.09392), computed by
    `captum.metrics.sensitivity_max`.
    """
    from captum.metrics import sensitivity_max as captums

    _check(method, looks)
    number = whole_number("n_perturb_samples", n_perturb_samples, most=1 << 16)
    if not 0 < float(perturb_radius) < np.inf:
        raise ArgumentError(f"perturb_radius={perturb_radius!r} is not a finite number above 0.")
    clip = load_audio(audio, source_rate=sampling_rate)
    radius = float(perturb_radius) * float(np.abs(clip).max())
    generator = torch.Generator().manual_seed(whole_number("perturb_seed", perturb_seed, least=0, most=2**64 - 1))

    def explained(clips: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        rows = clips[0] if isinstance(clips, tuple) else clips
        found = [_all_words(method.attribute(row.clamp(-1, 1).numpy(), caption, **looks)) for row in rows]
        return (torch.stack(found),)  # captum takes a plain tensor for several of them

    def perturbed(clips: torch.Tensor) -> torch.Tensor:
        return clips + radius * (2 * torch.rand(clips.shape, generator=generator) - 1)

    given = torch.from_numpy(np.array(clip, dtype=np.float32))[None]
    found = captums(explained, given, perturbed, n_perturb_samples=number, max_examples_per_batch=1)
    return float(found)


@public
def weight_randomization(
    method: Attribution,
    audio: AudioSource,
    caption: str,
    *,
    blocks: Sequence[int] | None = None,
    seeds: Sequence[int] = (0,),
    **looks: Any,
) -> pd.DataFrame:
    """Correlate the maps of a model with those of the same model with shuffled weights.

    Parameters
    ----------
    method : Attribution
        A method with its settings, such as ``Attention(pipe)``.
    audio : path, array or tensor
        The clip, as for `attnviz.explain`.
    caption : str
    blocks : sequence of int, optional
        Numbers of blocks that are shuffled, from the output; see `cascade`. Default: half of them, and all.
    seeds : sequence of int
        Seeds of the shuffles.
    **looks
        Other keyword arguments of `attnviz.explain`, except `keep`.

    Returns
    -------
    pandas.DataFrame
        A row per number of blocks, seed and word: ``blocks``, ``last_block``, ``seed``, ``word``, ``pearson`` and
        ``spearman`` of the two maps of the word over its cells without padding; NaN where a map is constant.

    Raises
    ------
    AttnVizError
        As `attnviz.explain`; if no block is shuffled, or the pipeline is of another anatomy than Stable
        Diffusion's.

    Notes
    -----
    A method whose maps stay alike does not depend on what the model has learnt: many methods are insensitive. Maps
    may also stay alike for a good reason, for example because the skip connections of a U-Net show the clip to all
    of its layers.

    References: Adebayo et al., Sanity Checks for Saliency Maps (arXiv 1810.03292). Differences from the original:
    see `attnviz.attribution.randomizing`.
    """
    _check(method, looks)
    check_pipeline(method.pipe, "randomised")
    names = cascade(method.pipe.unet)
    counts = [-(-len(names) // 2), len(names)] if blocks is None else list(blocks)
    if not counts or not all(isinstance(each, int) and 0 < each <= len(names) for each in counts):
        raise CaptureError(
            f"blocks={blocks!r} must be numbers from 1 to {len(names)}, counted from the output: "
            f"{', '.join(names)}."
        )
    if not list(seeds):
        raise CaptureError("seeds is empty; at least one seed is needed.")
    trained = method.attribute(audio, caption, **looks)
    rows = []
    for count in counts:
        for seed in seeds:
            shuffled = method.attribute(audio, caption, randomize=count, randomize_seed=seed, **looks)
            rows += [
                {"blocks": count, "last_block": names[count - 1], "seed": int(seed), "word": word, **found}
                for word, found in _correlations(trained, shuffled).items()
            ]
    return pd.DataFrame(rows)


def _check(method: Any, looks: dict[str, Any]) -> None:
    if not isinstance(method, Attribution):
        raise ArgumentError(
            f"method is {method!r}; a method of attnviz.attribution with its pipeline is needed, such as "
            "Attention(pipe)."
        )
    if taken := [name for name in _OURS if name in looks]:
        raise ArgumentError(f"{taken[0]} cannot be given: the maps that are compared have their own.")


def _all_words(maps: AttentionMaps) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([each.ravel() for each in _by_word(maps).values()]))


def _by_word(maps: AttentionMaps) -> dict[str, np.ndarray]:
    """Return the cells without padding of the map of each word, by its text and place."""
    found = {}
    for player in players_of(maps.tokens[0]):
        heat = maps.heatmap((player.spans[0][0], player.spans[-1][1]))
        name = player.text if player.text not in found else f"{player.text} ({player.spans[0][0]})"
        found[name] = heat.to_numpy()[..., ~heat["padding"].to_numpy()].astype(np.float64)
    return found


def _correlations(trained: AttentionMaps, shuffled: AttentionMaps) -> dict[str, dict[str, float]]:
    from scipy.stats import rankdata

    found = {}
    for (word, one), other in zip(_by_word(trained).items(), _by_word(shuffled).values(), strict=True):
        pair = one.ravel(), other.ravel()
        found[word] = {
            "pearson": _pearson(*pair),
            "spearman": _pearson(*(rankdata(each) for each in pair)),
        }
    return found


def _pearson(one: np.ndarray, other: np.ndarray) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])
