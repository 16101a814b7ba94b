"""What words mean, learnt before a denoiser listens to them: published text encoders are pretrained too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from attnviz.sounds import CLASSES
from attnviz.sounds.captions import Heard, write_caption
from attnviz.text import TextConditioner

_CAPTIONS = 3000
_BATCH = 32
_LEARNING_RATE = 1e-3
_NO_SOUND = len(CLASSES)  # the label of connectives
_UNLABELLED = -100  # start, end and padding: left out of the loss


def teach_words(
    conditioner: TextConditioner, scenes: Sequence[Sequence[Mapping[str, Any]]], *, steps: int, seed: int
) -> float:
    """Train a text encoder and its adapter to tell, at every token of a caption, which sound it is about.

    A denoiser alone teaches a fresh encoder slowly: its loss is mostly noise. Stable Diffusion's and Auffusion's
    encoders come pretrained on pairs of text and image or audio; here the composer knows what each phrase names.

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
    captions, labels = _labelled(conditioner, scenes, rng)
    teller = torch.nn.utils.skip_init(torch.nn.Linear, conditioner.cross_attention_dim, len(CLASSES) + 1)
    with torch.no_grad():
        teller.weight.copy_(torch.from_numpy(rng.normal(0, 0.05, teller.weight.shape)))
        teller.bias.zero_()
    parameters = [*conditioner.parameters(), *teller.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=_LEARNING_RATE)
    right: list[float] = []
    with torch.enable_grad():
        for step in range(steps):
            chosen = rng.integers(len(captions), size=_BATCH)
            told = teller(conditioner.encode([captions[i] for i in chosen], warn=False).float())
            wanted = labels[chosen]
            loss = torch.nn.functional.cross_entropy(told.transpose(1, 2), wanted, ignore_index=_UNLABELLED)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step >= 0.9 * steps:
                right.append(float((told.argmax(2) == wanted)[wanted != _UNLABELLED].float().mean()))
    return float(np.mean(right))


def _labelled(
    conditioner: TextConditioner, scenes: Sequence[Sequence[Mapping[str, Any]]], rng: np.random.Generator
) -> tuple[list[str], torch.Tensor]:
    """Return captions, and the class of each of their tokens ``(captions, keys)``."""
    captions = []
    labels = np.full((min(_CAPTIONS, len(scenes)), conditioner.num_keys), _UNLABELLED)
    for row, sounds in zip(labels, scenes, strict=False):
        heard = [Heard(sound["class"], sound["onset"], sound["offset"]) for sound in sounds]
        caption, spans = write_caption(heard, rng)
        tokens = conditioner.token_table(caption, warn=False).rows
        text = (tokens["kind"] == "text").to_numpy()
        row[text] = _NO_SOUND
        for one, (start, end) in zip(heard, spans, strict=True):
            inside = (tokens["start"] < end) & (tokens["end"] > start)
            row[text & inside.to_numpy()] = CLASSES.index(one.sound)
        captions.append(caption)
    return captions, torch.from_numpy(labels)
