"""What words mean, learnt before a denoiser listens to them: published text encoders are pretrained too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, mse_loss, normalize

from attnviz.sounds import CLASSES
from attnviz.sounds.captions import Heard, write_caption
from attnviz.text import TextConditioner

_CAPTIONS = 3000
_BATCH = 32
_LEARNING_RATE = 1e-3
_SHARPNESS = 10.0  # of cosines: a small one asks for embeddings that stand apart, and not for a long ruler
_TIME_WEIGHT = 5.0
_NO_SOUND = len(CLASSES)  # the label of connectives
_UNLABELLED = -100  # start, end and padding: left out of the loss


def teach_words(
    conditioner: TextConditioner, scenes: Sequence[Sequence[Mapping[str, Any]]], *, steps: int, seed: int
) -> float:
    """Train a text encoder and its adapter to tell, at every token, which sound it is about, and when that sounds.

    A denoiser alone teaches a fresh encoder slowly: its loss is mostly noise. Stable Diffusion's and Auffusion's
    encoders come pretrained on pairs of text and image or audio; here the composer knows what each phrase names,
    and when: of "X, then Y" that X comes first is all that can be told, and so what is learnt of the time.

    Classes are told by the cosine to a direction of each. A linear layer tells embeddings apart that are all but
    the same, and a denoiser to which they are the same draws one class as the other.

    Parameters
    ----------
    conditioner : TextConditioner
        One encoder; trained in place.
    scenes : sequence of sequence of mapping
        The sounds of each scene (``class``, ``onset``, ``offset``), as a `SceneStore` has them; captions are
        written of them.
    steps : int
        Optimiser steps on 32 captions each.
    seed : int
        Of the captions and their order; torch's own random state is not used.

    Returns
    -------
    float
        Share of the text tokens told right in the last tenth of the steps.
    """
    rng = np.random.default_rng((seed, 0x7E47))
    captions, labels, times = _labelled(conditioner, scenes, rng)
    width = conditioner.cross_attention_dim
    classes, clock = (
        torch.nn.Parameter(torch.from_numpy(rng.normal(0, 0.05, (count, width)).astype(np.float32)))
        for count in (len(CLASSES) + 1, 2)
    )
    parameters = [*conditioner.parameters(), classes, clock]
    optimizer = torch.optim.AdamW(parameters, lr=_LEARNING_RATE)
    right: list[float] = []
    with torch.enable_grad():
        for step in range(steps):
            chosen = rng.integers(len(captions), size=_BATCH)
            embeddings = conditioner.encode([captions[i] for i in chosen], warn=False).float()
            told = _SHARPNESS * normalize(embeddings, dim=2) @ normalize(classes, dim=1).T
            wanted = labels[chosen]
            loss = cross_entropy(told.transpose(1, 2), wanted, ignore_index=_UNLABELLED)
            timed = torch.isfinite(times[chosen])
            loss = loss + _TIME_WEIGHT * mse_loss((0.5 + embeddings @ clock.T)[timed], times[chosen][timed])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step >= int(0.9 * steps):
                right.append(float((told.argmax(2) == wanted)[wanted != _UNLABELLED].float().mean()))
    return float(np.mean(right))


def _labelled(
    conditioner: TextConditioner, scenes: Sequence[Sequence[Mapping[str, Any]]], rng: np.random.Generator
) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Return captions, and of each of their tokens the class and the time of its sound.

    ``(captions, keys)``, and ``(captions, keys, 2)``: first onset and last offset, as shares of the last offset of
    all; NaN where a token is about no sound.
    """
    captions = []
    labels = np.full((min(_CAPTIONS, len(scenes)), conditioner.num_keys), _UNLABELLED)
    times = np.full((*labels.shape, 2), np.nan, dtype=np.float32)
    longest = max(sound["offset"] for sounds in scenes for sound in sounds)
    for row, moments, sounds in zip(labels, times, scenes, strict=False):
        heard = [Heard(sound["class"], sound["onset"], sound["offset"]) for sound in sounds]
        caption, spans = write_caption(heard, rng)
        tokens = conditioner.token_table(caption, warn=False).rows
        text = (tokens["kind"] == "text").to_numpy()
        row[text] = _NO_SOUND
        for one, (start, end) in zip(heard, spans, strict=True):
            inside = (tokens["start"] < end) & (tokens["end"] > start)
            row[text & inside.to_numpy()] = CLASSES.index(one.sound)
            moments[text & inside.to_numpy()] = np.array([one.first, one.last]) / longest
        captions.append(caption)
    return captions, torch.from_numpy(labels), torch.from_numpy(times)
