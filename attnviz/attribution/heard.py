"""What is heard of a word: the listener's answer to generations with and without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from attnviz.arguments import public
from attnviz.attribution.continuing import Continuing, check_continuing
from attnviz.attribution.method import Asked, Attribution, checked_size, on_tokens
from attnviz.attribution.players import Phrase, Player, players_of
from attnviz.attribution.texts import Removal, check_removal
from attnviz.audio import MEL
from attnviz.capture import CapturedLayer
from attnviz.diffusion.noising import Predict, View
from attnviz.diffusion.windows import WIDTH
from attnviz.errors import CaptureError
from attnviz.scenes.recordings import CLASSES
from attnviz.text.sounds import PHRASES, find_label
from attnviz.text.words import find_phrase


@public
@dataclass(frozen=True)
class HeardWord(Attribution):
    """How much less is heard of a word's sound, in each frame, if the generation goes on without the word.

    From the noisy clip at each timestep, the generation is ended once with the whole caption and once without each
    word, from the same noise. The bundled listener detects the sounds of all results. The map of a word is the
    listener's probability of the sound that the word names, with the word less without it.

    Parameters
    ----------
    pipe : AuffusionPipeline
    phrases : sequence of str or (int, int), optional
        Phrases of the caption that are left out as a whole. Each other word is left out by itself.
    removal : {"words", "keys"}
        How a word is left out; see `LeaveOneOut`.
    num_inference_steps : int
        Denoising steps from a timestep to the clip.
    guidance_scale : float, optional
        By default, what the checkpoint recommends.
    internal_batch_size : int
        Rows of a batch. A batch that does not fit into memory is split.

    Notes
    -----
    The maps have one row: frames of 40 ms, and no frequency. Words that name no sound of the listener ("then")
    have the mean over the sounds that the caption names. The earlier the step from which a word is missing (the
    higher the timestep), the more can change; at low timesteps the clip itself decides. Sampling is deterministic
    (DDIM, arXiv 2010.02502).
    """

    name: ClassVar[str] = "heard"
    quantity: ClassVar[str] = "probability of being heard, with the word less without"
    signed: ClassVar[bool] = True

    phrases: Sequence[Phrase] | None = None
    removal: Removal = "words"
    num_inference_steps: int = 10
    guidance_scale: float | None = None
    internal_batch_size: int = 32

    def check(self, keep: frozenset[str]) -> None:
        """Raise if a setting is invalid, or the pipeline makes no audio."""
        super().check(keep)
        check_removal(self.removal)
        checked_size(self.internal_batch_size)
        check_continuing(self.pipe, self.num_inference_steps, self.guidance_scale, "method='heard'")

    def look(
        self, asked: Asked, views: Sequence[View], predict: Predict, window: int
    ) -> Mapping[str, CapturedLayer]:
        """Generate with and without each player from each view, and listen."""
        texts, players = asked.texts, players_of(asked.tokens, self.phrases)
        sounds, named = named_sounds(asked.tokens.prompt, players)
        states = torch.cat([texts.caption, texts.without([[each] for each in players], self.removal)])
        going = Continuing.of(self.pipe, self.num_inference_steps, self.guidance_scale, self.internal_batch_size)
        found = []
        for samples, timestep in views:
            predict(samples, timestep)  # the call that provenance counts
            latents = going.ended(texts, samples, timestep, states)
            heard = np.stack([going.heard(each, sounds) for each in latents])  # texts, sounds, frames
            less = torch.from_numpy(heard[:1] - heard[1:])
            own = [one[numbers].mean(0, keepdim=True) for one, numbers in zip(less, named, strict=True)]
            found.append(torch.stack(own))
        frames = found[0].shape[-1]
        asked.record.update({"players": [player.text for player in players], "sounds": sounds})
        stride = (MEL.n_mels / asked.factor, WIDTH / frames / asked.factor)
        return on_tokens(asked, players, found, stride=stride)


def named_sounds(caption: str, players: Sequence[Player]) -> tuple[list[str], list[list[int]]]:
    """Return the listener's sounds that a caption names, and, for each player, those that it names.

    Parameters
    ----------
    caption : str
    players : sequence of Player

    Returns
    -------
    sounds : list of str
    named : list of list of int
        Indices of sounds; all, if a player names none.

    Raises
    ------
    CaptureError
        If the caption names no sound of the listener.
    """
    spans = {name: [*find_label(caption, name), *_phrases(caption, name)] for name in CLASSES}
    sounds = [name for name, found in spans.items() if found]
    if not sounds:
        raise CaptureError(
            f"method='heard' asks the bundled listener, but the caption {caption!r} names none of its sounds: "
            f"{', '.join(CLASSES)}."
        )
    named = []
    for player in players:
        own = [
            number
            for number, name in enumerate(sounds)
            if any(start < last and first < end for start, end in player.spans for first, last in spans[name])
        ]
        named.append(own or list(range(len(sounds))))
    return sounds, named


def _phrases(caption: str, name: str) -> list[tuple[int, int]]:
    """Return the spans of the known phrases of a sound, which are longer than the sound's name may be."""
    known = PHRASES[name]
    return [span for phrase in (*known.clauses, *known.nouns) for span in find_phrase(caption, phrase)]
