"""Leave words out of the text of a model that writes audio codes: what they add to the codes' log-probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from attnviz.attribution.method import PREDICTION
from attnviz.attribution.players import Phrase, players_of, without
from attnviz.capture import CapturedLayer
from attnviz.errors import CaptureError, PromptError
from attnviz.text.tokens import TokenTable

QUANTITY = "log-probability of the codes with the word, less without (nats)"


def left_out(
    model: Any,
    tokenizer: Any,
    table: TokenTable,
    positions: Sequence[int],
    phrases: Sequence[Phrase] | None,
    removal: str,
    codes: torch.Tensor,
    given: torch.Tensor,
    delays: int,
) -> dict[str, CapturedLayer]:
    """Return what each word adds to the log-probability of the codes of each frame, teacher-forced.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    tokenizer : transformers tokenizer
    table : TokenTable
        Tokens of the caption.
    positions : sequence of int
        Kept keys.
    phrases : sequence of str or (int, int), optional
        Phrases that are left out as a whole.
    removal : {"words"}
    codes : torch.Tensor of int64, shape (codebooks, frames)
        Codes of the clip.
    given : torch.Tensor of int64, shape (codebooks, frames + delays - 1)
        Inputs of the decoder, with which it predicts these codes.
    delays : int
        Positions over which the codebooks of a frame are spread.

    Returns
    -------
    dict of str to CapturedLayer
        One layer without frequency: the sum over the codebooks of a frame. Negative where a word makes the codes
        less likely.

    Raises
    ------
    CaptureError
        If keys are to be replaced.
    PromptError
        If the caption is empty without a phrase.
    """
    if removal != "words":
        raise CaptureError("removal='keys' is not defined for a model of codes. Use removal='words'.")
    players = players_of(table, phrases)
    captions = [table.prompt, *(without(table.prompt, [player]) for player in players)]
    if not all(captions):
        raise PromptError(
            f"The caption {table.prompt!r} is empty without one of its phrases. Use a caption of several words."
        )
    likely = [_log_probability(model, tokenizer, caption, codes, given, delays) for caption in captions]
    values = np.zeros((1, 1, len(positions), codes.shape[1]), dtype=np.float32)
    for player, less in zip(players, likely[1:], strict=True):
        own = [place for place, position in enumerate(positions) if position in player.positions]
        values[:, :, own] = (likely[0] - less).cpu().numpy()
    return {PREDICTION: CapturedLayer(values, ("prompt", "image", "token", "column"), 1, PREDICTION)}


def _log_probability(
    model: Any, tokenizer: Any, caption: str, codes: torch.Tensor, given: torch.Tensor, delays: int
) -> torch.Tensor:
    """Return the log-probability of the codes of each frame, summed over codebooks: (frames,)."""
    inputs: Mapping[str, torch.Tensor] = tokenizer([caption], return_tensors="pt").to(model.device)
    logits = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        decoder_input_ids=given,
        use_cache=False,
    ).logits
    logits = logits[:, -given.shape[1] :].float().log_softmax(dim=-1)  # conditions may come before the codes
    books, frames = codes.shape
    channels = max(1, books // delays) if delays > 1 else books
    total = torch.zeros(frames, device=logits.device)
    for book in range(books):
        first = book // channels if delays > 1 else 0
        total += logits[book, first : first + frames].gather(-1, codes[book, :, None].to(logits.device))[:, 0]
    return total
