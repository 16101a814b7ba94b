"""A small corpus of sound captions for the tokenizers of the tiny checkpoints.

Inflected forms such as "barks" or "meows" are omitted on purpose: the tokenizers know "bark" and the ending "s",
so words of several sub-words are common in tests, as with real vocabularies.
"""

from __future__ import annotations

CAPTIONS: tuple[str, ...] = (
    "a dog bark in the distance",
    "a dog and another dog bark at a cat",
    "the dog is barking while birds sing",
    "rain falls on the roof and thunder rolls",
    "rain is falling, then the wind blows",
    "a cat and a dog near the rain",
    "a bird sings while another bird calls",
    "cars pass by and a man speaks",
    "a man speaks, then a woman laughs",
    "a woman is speaking while a baby cries",
    "a clock ticks and a bell rings",
    "the bells ring, then a door slams",
    "a train passes and its horn sounds",
    "water runs and drops into the sink",
    "waves crash on the sea shore and gulls call",
    "an engine idles, then a car starts",
    "a crowd cheers while the music plays",
    "someone types on a keyboard",
    "a child speaks and a cat meow",
    "footsteps on gravel, followed by a door",
    "a helicopter flies over the city",
    "fire crackles and the wind blows",
    "a chainsaw cuts wood in the distance",
    "a rooster crows, then a cow moos",
    "frogs and crickets at night with heavy rain",
    "a siren sounds loud and then fades away",
    "the hen clucks while the sheep bleat",
    "a person sneezes, then a dog bark again",
    "birds chirp in the forest with a small stream",
    "a fast car with a loud engine passes by",
)
