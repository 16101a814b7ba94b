"""Captions unlike those of training: other words, another order of words, and the style of AudioGrounding."""

from __future__ import annotations

from collections.abc import Sequence

from harness.material import Prompt

STYLES = ("template", "paraphrase", "reordered", "annotated")
"""The composer's caption; other words for each sound; the later sound named first; as people annotate clips."""

_OTHER_WORDS = {
    "Dog bark": "a hound woofs",
    "Rain": "a downpour pelts the roof",
    "Sea waves": "the surf pounds the beach",
    "Baby cry": "a newborn wails",
    "Clock tick": "a wristwatch keeps ticking",
    "Person sneeze": "somebody goes achoo",
    "Helicopter": "a chopper hovers overhead",
    "Chainsaw": "a power saw cuts wood",
    "Rooster": "a cockerel crows loudly",
    "Fire crackling": "flames crackle in a fireplace",
}
_ANNOTATED = {
    "Dog bark": "a dog barking",
    "Rain": "rain pouring down",
    "Sea waves": "waves crashing onto the shore",
    "Baby cry": "a baby crying loudly",
    "Clock tick": "a clock ticking steadily",
    "Person sneeze": "a person sneezing",
    "Helicopter": "a helicopter flying by",
    "Chainsaw": "a chainsaw cutting wood",
    "Rooster": "a rooster crowing",
    "Fire crackling": "a fire burning and crackling",
}


def restyled(prompt: Prompt, style: str) -> Prompt:
    """Return a prompt with the same sounds in another style.

    Parameters
    ----------
    prompt : Prompt
        Of one or two sounds.
    style : str
        One of `STYLES`.

    Returns
    -------
    Prompt
        Its classes and spans are in the order of onset, as those of `prompt`, wherever they stand in the text.
    """
    if style == STYLES[0]:
        return prompt
    if style == "paraphrase":
        return _joined(prompt, _OTHER_WORDS, ", then " if prompt.ordered else " and ")
    if style == "reordered":
        if len(prompt.classes) == 1:
            return _joined(prompt, _ANNOTATED, "", before="there is ")
        if not prompt.ordered:
            return _joined(prompt, _ANNOTATED, " together with ", reverse=True)
        return _joined(prompt, _ANNOTATED, " after ", reverse=True)
    return _joined(prompt, _ANNOTATED, " and then " if prompt.ordered else " with ", after=" in the background")


def _joined(
    prompt: Prompt,
    words: dict[str, str],
    between: str,
    *,
    before: str = "",
    after: str = "",
    reverse: bool = False,
) -> Prompt:
    order: Sequence[int] = range(len(prompt.classes))
    order = order[::-1] if reverse else order
    text, spans = before, {}
    for place, number in enumerate(order):
        text += between if place else ""
        phrase = words[prompt.classes[number]]
        spans[number] = (len(text), len(text) + len(phrase))
        text += phrase
    return Prompt(text + after, prompt.classes, tuple(spans[i] for i in range(len(spans))), prompt.ordered)
