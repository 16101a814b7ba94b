"""Which words belong together, and which key's attention goes to which key."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnviz.editing.alignment import align_refine, align_swap, key_map, phrase_span
from attnviz.errors import PromptError
from attnviz.text import clip_token_table

WORDS = ["dog", "rooster", "rain", "thunderstorm", "sea", "helicopter", "meows", "a"]  # one to nine tokens each


def words(prompt, pairs):
    return [
        tuple(None if span is None else prompt[i][slice(*span)] for i, span in enumerate(pair)) for pair in pairs
    ]


def spelled(source, target, pairs):
    return words((source, target), [(pair.source, pair.target) for pair in pairs])


def tables(pipe, *prompts):
    if pipe.conditioner is None:
        return [clip_token_table(pipe.tokenizer, prompt) for prompt in prompts]
    return [pipe.conditioner.token_table(prompt) for prompt in prompts]


@pytest.fixture(params=["pipe", "two", "plain"])
def any_pipe(request):
    return request.getfixturevalue(request.param)


# Words ----------------------------------------------------------------------


def test_swap_pairs_words_one_by_one():
    source, target = "a dog barks, then rain falls", "a cat meows, then rain falls"
    pairs = align_swap(source, target)
    assert spelled(source, target, pairs)[:4] == [("a", "a"), ("dog", "cat"), ("barks", "meows"), (",", ",")]
    assert [pair.same for pair in pairs] == [True, False, False, True, True, True, True]


def test_swap_of_two_sounds_for_one_another_goes_by_place():
    source, target = "a dog barks, then a cat meows", "a cat meows, then a dog barks"
    assert spelled(source, target, align_swap(source, target))[1] == ("dog", "cat")


def test_swap_of_one_word_for_two():
    source, target = "the dog barks loudly", "the church bells barks loudly"
    assert ("dog", "church bells") in spelled(source, target, align_swap(source, target))


def test_refine_keeps_every_word_and_adds_others():
    source, target = "a dog and another dog", "a big dog and, far away, another dog"
    pairs = align_refine(source, target)
    assert [pair for pair in spelled(source, target, pairs) if pair[0]] == [
        (word, word) for word in source.split()
    ]
    assert [target for source, target in spelled(source, target, pairs) if not source] == [
        "big", ",", "far", "away", ",",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("align", "source", "target", "message"),
    [
        (align_swap, "a dog barks", "rain falls", "no word in common"),
        (align_swap, "a dog barks", "a dog barks loudly", "adds 'loudly'.*refine"),
        (align_swap, "a big dog barks", "a dog barks", "leaves out 'big'"),
        (align_refine, "a dog barks", "a cat barks loudly", "lacks 'dog'.*swap"),
        (align_refine, "a dog barks", "barks a dog", "another order"),
        (align_refine, "a dog barks", "rain", "lacks 'a dog barks'"),
    ],
)
def test_prompts_that_cannot_be_aligned(align, source, target, message):
    with pytest.raises(PromptError, match=message):
        align(source, target)


def test_a_phrase_is_found_by_words_occurrence_or_span():
    prompt = "a dog and another dog"
    assert phrase_span(prompt, "another dog") == (10, 21)
    assert phrase_span(prompt, ("dog", 1)) == (18, 21)
    assert phrase_span(prompt, (2, 5)) == (2, 5)
    for phrase, message in [("dog", "2 times"), (("dog", 2), "no occurrence 2"), ("cat", "not in"), (3, "span")]:
        with pytest.raises(PromptError, match=message):
            phrase_span(prompt, phrase)


# Keys ----------------------------------------------------------------------


def test_the_same_prompt_maps_every_key_to_itself(any_pipe):
    prompt = "a dog barks, then another dog barks"
    (table,) = tables(any_pipe, prompt)
    for align in (align_swap, align_refine):
        assert torch.equal(key_map(table, table, align(prompt, prompt)), torch.eye(len(table)))


@settings(max_examples=20)
@given(
    pairs=st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS)), min_size=1, max_size=6),
)
def test_a_swap_loses_no_attention(pairs, two, plain):
    for pipe in (two, plain):
        source, target = (" ".join(side) for side in zip(*pairs, strict=True))
        matrix = key_map(*tables(pipe, source, target), align_swap(source, target))
        torch.testing.assert_close(matrix.sum(dim=1), torch.ones(len(matrix)))
        assert bool((matrix >= 0).all())


def test_each_encoder_is_aligned_on_its_own(two):
    source, target = "a dog barks", "a rooster crows"
    matrix = key_map(*tables(two, source, target), align_swap(source, target))
    assert matrix.shape == (154, 154)
    assert not matrix[:77, 77:].any()
    assert not matrix[77:, :77].any()
    # CLIP: start, a, dog, bar, ks, end; start, a, roo, st, er, crows, end
    torch.testing.assert_close(matrix[2, 2:5], torch.full((3,), 1 / 3))
    assert matrix[3, 5] == matrix[4, 5] == 1  # two tokens to one
    assert matrix[5, 6] == 1  # the end token
    # T5: a, dog, bark, s, end; a, roo, s, ter, crow, s, end
    torch.testing.assert_close(matrix[77 + 1, 77 + 1 : 77 + 4], torch.full((3,), 1 / 3))
    assert matrix[77 + 2, 77 + 4] == matrix[77 + 3, 77 + 5] == 1  # two to two


def test_padding_keeps_its_position(plain):
    source, target = "a dog", "a rooster"  # one token and three
    matrix = key_map(*tables(plain, source, target), align_swap(source, target))
    assert torch.equal(matrix[8:, 8:], torch.eye(69))
    assert matrix[4:7, 6].tolist() == [1, 1, 1]  # text or the end there: to the first padding behind
    back = key_map(*tables(plain, target, source), align_swap(target, source))
    assert back[3:, 4:6].sum() == 0  # padding that the source did not have


def test_words_of_equal_token_counts_swapped_back_and_forth(any_pipe):
    source, target = "a dog barks, then another dog barks", "a cat barks, then another cat barks"
    there = key_map(*tables(any_pipe, source, target), align_swap(source, target))
    back = key_map(*tables(any_pipe, target, source), align_swap(target, source))
    assert torch.equal(there @ back, torch.eye(len(there)))


def test_added_words_have_no_source(any_pipe):
    source, target = "a dog barks", "a big dog barks"
    before, after = tables(any_pipe, source, target)
    matrix = key_map(before, after, align_refine(source, target))
    empty = (matrix.sum(dim=0) == 0).nonzero().flatten().tolist()
    text = after.rows.query("kind != 'padding'")["position"]
    assert [key for key in empty if key in set(text)] == after.find("big").tolist()
    assert matrix[before.find("dog")][:, after.find("dog")].sum() == len(before.find("dog"))
