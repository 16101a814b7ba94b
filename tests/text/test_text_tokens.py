"""The token table, against the tokenizers' own offsets."""

from __future__ import annotations

import json
import warnings
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, processors

from attnviz.errors import CheckpointError, MapsError, PromptError, TruncationWarning
from attnviz.testing import ENCODERS
from attnviz.text import KINDS, TokenTable, clip_token_table, token_table, tokenize
from attnviz.text.words import split_words

TRAPS = [
    "a dog and another Dog",
    "A dog barks, then rain falls.",
    "“Café” cafe\u0301  CAFÉ",
    "🐕 barks 👨\u200d👩\u200d👧 ok",
    "<script>alert('x')</script> & \"quotes\"",
    "a <|endoftext|> dog",
    "<|startoftext|>dog <|EndOfText|>",
    "a </s> dog<s> <pad> <mask> <extra_id_0> [SEP] [MASK]dog",
    "狗叫、然后下雨 ½ ﬁre",
    "\t two \u3000 spaces \n",
    "dog" * 90,
    "a \x00 \ufffd \u0301 b \u200b",
    "don't half-open dog's $x_1$",
]
PROMPTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
    st.lists(
        st.sampled_from([*TRAPS[:10], "dog", " ", "\n", "s", "e\u0301", "🐕", "、"]), min_size=1, max_size=4
    ).map("".join),
)
relaxed = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def visible(prompt):
    try:
        tokenize(None, prompt, 77, padded=False)
    except PromptError:
        return False
    except (AttributeError, CheckpointError):
        return True
    return True


def overlap(tokenizer, prompt, span, kept):
    """Positions whose offsets share a character with the span: straight from the tokenizer, `kept` text tokens."""
    encoded = tokenizer(prompt, return_offsets_mapping=True)
    text = [i for i, sequence in enumerate(encoded.sequence_ids(0)) if sequence is not None]
    return [
        i
        for i in text[:kept]
        if encoded["offset_mapping"][i][0] < span[1] and span[0] < encoded["offset_mapping"][i][1]
    ]


@pytest.mark.parametrize("kind", ENCODERS)
@given(prompt=PROMPTS)
@relaxed
def test_any_text(tokenizers, kind, prompt):
    if not visible(prompt):
        with pytest.raises(PromptError):
            token_table([tokenizers[kind]], prompt, [77])
        return
    tokenizer = tokenizers[kind]
    table = token_table([tokenizer], prompt, [77], warn=False)
    rows = table.rows
    assert rows["position"].tolist() == list(range(77))
    spans = rows[rows["start"] >= 0]
    assert (spans["end"] > spans["start"]).all() and (spans["end"] <= len(prompt)).all()
    assert set(rows.loc[rows["start"] < 0, "end"]) <= {-1}
    assert set(rows["kind"]) <= set(KINDS)
    assert TokenTable.from_json(table.to_json()) == table
    full = tokenizer(prompt).input_ids
    kept = int((rows["kind"] == "text").sum())
    assert (table.cut[0] < len(prompt)) <= (len(full) > 77)
    for word in split_words(prompt):
        wanted = overlap(tokenizer, prompt, (word.start, word.end), kept)
        if wanted:
            assert table.find(word.text, word.occurrence).tolist() == wanted
            assert table.find((word.start, word.end)).tolist() == wanted
            mine = rows[(rows["word"] == word.text) & (rows["occurrence"] == word.occurrence)]
            assert set(mine["position"]) <= set(wanted)
        elif table.cut[0] < word.end:
            assert word.text in table.cut_words
            with pytest.raises(PromptError, match="cut off"):
                table.find((word.start, word.end))
        else:
            # WordPiece drops control characters and lone accents; the others drop nothing that can be a word.
            assert kind == "bert", word
            with pytest.raises(PromptError, match="has no token"):
                table.find((word.start, word.end))


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("prompt", TRAPS)
def test_ids_are_the_tokenizers_own(tokenizers, kind, prompt):
    encoding = tokenize(tokenizers[kind], prompt, 77, padded=False)
    assert encoding.ids == tokenizers[kind](prompt, truncation=True, max_length=77).input_ids
    assert [row[2] for row in encoding.rows][: len(encoding.ids)] == encoding.ids
    assert all(row[2] == -1 and row[8] == "padding" for row in encoding.rows[len(encoding.ids) :])


def texts(table, phrase, occurrence=None):
    return table.rows.loc[table.find(phrase, occurrence), "text"].tolist()


def test_sub_words_punctuation_and_repeats(tokenizers):
    table = token_table([tokenizers["clip"]], "A dog barks, and another DOG barks", [77])
    assert table.words == ["A", "dog", "barks", "and", "another", "DOG", "barks"]
    assert texts(table, "barks", 0) == ["bar", "ks"]
    assert texts(table, "dog", 1) == ["DOG"]
    assert texts(table, "dog barks, and") == ["dog", "bar", "ks", ",", "and"]
    assert table.rows["kind"].tolist() == ["start"] + ["text"] * 10 + ["end"] + ["padding"] * 65
    assert table.rows.loc[table.rows["word"] == "barks", "occurrence"].tolist() == [0, 0, 1, 1]
    assert table.rows.loc[[0, 11], "text"].tolist() == ["<|startoftext|>", "<|endoftext|>"]
    assert table.rows.loc[5, ["text", "word", "occurrence"]].tolist() == [",", "", -1]


def test_keys_of_several_encoders_follow_one_another(tokenizers):
    chosen = [tokenizers["t5"], tokenizers["clap"], tokenizers["clip"]]
    table = token_table(chosen, "rain falls", [77, 20, 30])
    assert len(table) == 127 and len(table.cut) == 3
    assert table.rows.groupby("encoder")["position"].agg(["min", "max"]).to_numpy().tolist() == [
        [0, 76],
        [77, 96],
        [97, 126],
    ]
    alone = [token_table([t], "rain falls", [77]).find("falls") for t in chosen]
    joined = np.concatenate([positions + first for positions, first in zip(alone, (0, 77, 97), strict=True)])
    assert np.array_equal(table.find("falls"), joined)
    assert table.find("falls").dtype == np.int64 and table.find("falls").flags.writeable
    assert table.positions("start").tolist() == [77, 97]  # T5 has no start token
    assert table.positions("end", encoder=0).tolist() == [3] == [int(table.find("falls")[1]) + 1]


def test_marker_tokens(tokenizers):
    t5 = token_table([tokenizers["t5"]], "a Meow", [77]).rows
    assert t5.loc[1, ["text", "start", "end", "word"]].tolist() == ["▁", 2, 3, "Meow"]
    assert t5.loc[2, ["start"]].tolist() == [2]
    clap = token_table([tokenizers["clap"]], "a  Dog", [77]).rows
    assert clap.loc[2, ["text", "start", "end", "word"]].tolist() == [" ", -1, -1, ""]


def test_a_tokenizer_that_counts_the_space_before_a_word(tokenizers):
    clap = deepcopy(tokenizers["clap"])
    ends = ("</s>", clap.eos_token_id), ("<s>", clap.bos_token_id)
    clap.backend_tokenizer.post_processor = processors.RobertaProcessing(*ends, trim_offsets=False)
    assert clap("a dog", return_offsets_mapping=True).offset_mapping[2] == (1, 5)
    trimmed = token_table([tokenizers["clap"]], "a dog  barks", [77])
    assert token_table([clap], "a dog  barks", [77]) == trimmed
    with pytest.raises(PromptError, match="has no token"):
        token_table([clap], "a dog  barks", [77]).find((5, 7))


def test_an_emoji_is_all_its_tokens(tokenizers):
    for kind in ("clip", "clap"):
        table = token_table([tokenizers[kind]], "dog 🐕 dog", [77])
        assert texts(table, "🐕") == ["🐕"] * 4


def test_spans_are_of_the_prompt_as_it_was_written(tokenizers):
    prompt = "CAFE\u0301   Dog"  # lower-cased, composed and collapsed by CLIP's normaliser
    table = token_table([tokenizers["clip"]], prompt, [77])
    assert prompt[slice(*table.phrase_span("dog"))] == "Dog"
    assert texts(table, "dog") == ["Dog"]
    assert {int(p) for p in table.find("café")} == set(table.positions("text")) - set(table.find("dog"))


def test_normalisers_that_change_lengths(tokenizers):
    t5 = deepcopy(tokenizers["t5"])
    t5.backend_tokenizer.normalizer = normalizers.NFKC()
    prompt = "½ ﬁre dog"
    table = token_table([t5], prompt, [77])
    assert set(texts(table, "dog")) == {"dog"}
    assert set(table.rows.loc[table.find("½"), "text"]) <= {"▁", "½"}
    assert prompt[table.rows.loc[table.find("ﬁre"), "start"].min()] == "ﬁ"


def test_the_text_of_a_special_token_is_text(tokenizers):
    clip = token_table([tokenizers["clip"]], "a <|endoftext|> dog", [77])
    assert clip.rows["kind"].tolist()[:5] == ["start", "text", "text", "text", "end"]
    assert clip.rows.loc[2, ["token_id", "start", "end", "text"]].tolist() == [
        tokenizers["clip"].eos_token_id,
        2,
        15,
        "<|endoftext|>",
    ]
    assert clip.find("dog").tolist() == [3]
    t5 = token_table([tokenizers["t5"]], "dog </s>", [77])
    assert t5.rows["kind"].tolist()[:4] == ["text", "text", "end", "padding"]


def test_no_text_left_over(tokenizers):
    table = token_table([tokenizers["bert"]], "\ufffd\ufffd", [77])  # dropped by WordPiece's cleaning
    assert table.rows["kind"].tolist()[:3] == ["start", "end", "padding"]
    with pytest.raises(PromptError, match="has no token"):
        table.find((0, 2))


@pytest.mark.parametrize("kind", ENCODERS)
def test_long_prompts_are_cut_before_the_end_token(tokenizers, kind):
    prompt = "dog cat " * 40 + "thunder"
    with pytest.warns(TruncationWarning, match="'thunder'"):
        table = token_table([tokenizers[kind]], prompt, [20])
    assert table.rows["kind"].tolist()[-1] == "end"
    last = table.rows.iloc[-2]
    assert table.cut[0] == last["end"] + 1
    lost = [word for word in split_words(prompt) if word.start >= table.cut[0]]
    assert table.cut_words == [word.text for word in lost]
    with pytest.raises(PromptError, match=r"cut off.*Kept: 'dog', 'cat'"):
        table.find("thunder")
    assert table.find("dog", 1).size == 1
    with pytest.raises(PromptError, match="cut off"):
        table.find("dog", 39)


def test_a_word_cut_in_its_middle_keeps_what_is_left_and_is_named(tokenizers):
    with pytest.warns(TruncationWarning, match="'barks', 'loud'"):
        table = token_table([tokenizers["clip"]], "a dog barks loud", [5])
    assert texts(table, "barks") == ["bar"]
    assert table.cut == (9,) and table.cut_words == ["loud"]


def test_a_word_cut_in_one_encoder_and_dropped_by_the_other_is_cut(tokenizers):
    chosen = [tokenizers["clip"], tokenizers["bert"]]
    table = token_table(chosen, "a dog \ufffd", [4, 77], warn=False)
    assert table.cut == (6, 7) and table.cut_words == ["\ufffd"]
    with pytest.raises(PromptError, match="cut off"):
        table.find("\ufffd")


def test_a_word_one_encoder_still_has_is_not_cut(tokenizers):
    with pytest.warns(TruncationWarning, match="encoder 0 does not get 'barks'"):
        table = token_table([tokenizers["clip"], tokenizers["t5"]], "a dog barks", [4, 77])
    assert table.cut == (6, 11)
    assert table.cut_words == []
    assert (table.rows.loc[table.find("barks"), "encoder"] == 1).all()


@pytest.mark.parametrize(
    ("max_length", "limit", "own", "kept"), [(77, None, 77, 77), (77, 9, 77, 9), (77, 30, 8, 8), (6, 9, 77, 6)]
)
def test_the_smallest_limit_counts(tokenizers, max_length, limit, own, kept, monkeypatch):
    monkeypatch.setattr(tokenizers["clip"], "model_max_length", own)
    encoding = tokenize(tokenizers["clip"], "dog " * 99, max_length, limit=limit, padded=False)
    assert len(encoding.ids) == kept and len(encoding.rows) == max_length
    assert encoding.ids[-1] == tokenizers["clip"].eos_token_id


def test_a_truncation_side_on_the_left_changes_nothing(tokenizers, monkeypatch):
    wanted = tokenize(tokenizers["clap"], "dog cat rain " * 30, 20, padded=False)
    monkeypatch.setattr(tokenizers["clap"], "truncation_side", "left")
    assert tokenize(tokenizers["clap"], "dog cat rain " * 30, 20, padded=False) == wanted


def test_tokenising_leaves_no_trace_in_the_tokenizer(tokenizers):
    before = tokenizers["clip"].backend_tokenizer.to_str()
    tokenize(tokenizers["clip"], "dog " * 99, 77, padded=True)
    assert tokenizers["clip"].backend_tokenizer.to_str() == before


def test_a_limit_without_room_for_text_is_refused(tokenizers):
    with pytest.raises(CheckpointError, match="no room for text"):
        tokenize(tokenizers["clip"], "dog", 2, padded=False)


@pytest.mark.parametrize("prompt", ["", "  \n\t", "\u200b\u00a0", None, 3, ["a dog"], b"dog"])
def test_empty_prompts_are_refused(tokenizers, prompt):
    with pytest.raises(PromptError, match="prompt is"):
        token_table([tokenizers["clip"]], prompt, [77])


def test_half_a_surrogate_pair_is_refused(tokenizers):
    with pytest.raises(PromptError, match="not valid Unicode at character 4"):
        token_table([tokenizers["clip"]], "dog \ud83d", [77])


def test_a_slow_tokenizer_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(CheckpointError, match="Slow gives no character offsets"):
        tokenize(Slow(), "dog", 77, padded=False)


@pytest.fixture
def table(tokenizers):
    return token_table([tokenizers["clip"]], "a dog barks and another dog barks", [77])


@pytest.mark.parametrize(
    ("phrase", "occurrence", "message"),
    [
        ("brks", None, r"not in the prompt.*'a', 'dog', 'barks'.*Did you mean 'barks'"),
        ("another dg", None, r"not in the prompt.*Did you mean 'another dog'"),
        ("dog", None, r"2 times.*occurrence=0: characters 2 to 5, occurrence=1: characters 24 to 27"),
        ("dog", 2, r"no occurrence 2.*2 times.*allowed: 0 to 1"),
        ("another", 1, r"no occurrence 1.*once"),
        ("dog", -1, "no occurrence -1"),
        ("dog", True, "an integer counted from 0"),
        ("dog", "first", "an integer counted from 0"),
        ("", None, "not in the prompt"),
        ((2, 2), None, "not in the prompt: 0 <= start"),
        ((2, 34), None, "not in the prompt: 0 <= start"),
        ((-3, 2), None, "not in the prompt: 0 <= start"),
        ((2, 5), 0, "omit occurrence=0"),
        ((1, 2), None, "has no token"),
        ((2.0, 5), None, "two integers"),
        (["dog"], None, "text or a span"),
        (None, None, "text or a span"),
    ],
)
def test_questions_that_cannot_be_answered(table, phrase, occurrence, message):
    with pytest.raises(PromptError, match=message):
        table.find(phrase, occurrence)


def test_unknown_kinds_and_encoders_are_refused(table):
    with pytest.raises(PromptError, match="start, text, end, padding"):
        table.positions("ending")
    with pytest.raises(PromptError, match="no encoder 1"):
        table.positions("end", encoder=1)


def test_equality_is_of_content(tokenizers, table):
    same = token_table([tokenizers["clip"]], table.prompt, [77])
    assert same == table and hash(same) == hash(table)
    assert token_table([tokenizers["bert"]], table.prompt, [77]) != table
    assert table != "table"


DAMAGE = {
    "not json": lambda c: None,
    "list": lambda c: [c],
    "format": lambda c: {**c, "format": 2},
    "no prompt": lambda c: {k: v for k, v in c.items() if k != "prompt"},
    "cut": lambda c: {**c, "cut": [len(c["prompt"]) + 1]},
    "cuts": lambda c: {**c, "cut": [3, 3]},
    "column": lambda c: {**c, "rows": {k: v for k, v in c["rows"].items() if k != "kind"}},
    "short": lambda c: {**c, "rows": {**c["rows"], "word": c["rows"]["word"][1:]}},
    "type": lambda c: {**c, "rows": {**c["rows"], "start": ["0"] * 77}},
    "text": lambda c: {**c, "rows": {**c["rows"], "text": [0] * 77}},
    "big": lambda c: {**c, "rows": {**c["rows"], "token_id": [2**63] * 77}},
    "kind": lambda c: {**c, "rows": {**c["rows"], "kind": ["word"] * 77}},
    "order": lambda c: {**c, "rows": {**c["rows"], "position": list(range(76, -1, -1))}},
    "span": lambda c: {**c, "rows": {**c["rows"], "end": [99] * 77}},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_json_is_refused(table, damage):
    content = DAMAGE[damage](json.loads(table.to_json()))
    text = "{" if content is None else json.dumps(content)
    with pytest.raises(MapsError, match="token table"):
        TokenTable.from_json(text)


def test_json_is_ascii_and_keeps_the_dtypes(tokenizers):
    table = token_table([tokenizers["t5"]], '🐕 "é" </script>', [77])
    text = table.to_json()
    assert text.isascii()
    assert TokenTable.from_json(text).rows.dtypes.equals(table.rows.dtypes)


def stable_diffusion_ids(tokenizer, prompt):
    return tokenizer(
        prompt, padding="max_length", max_length=tokenizer.model_max_length, truncation=True
    ).input_ids


@given(prompt=PROMPTS)
@example(prompt="dog barks " * 60)
@relaxed
def test_plain_layout_ids_vs_stable_diffusion(tokenizers, prompt):
    if not visible(prompt):
        return
    table = clip_token_table(tokenizers["clip"], prompt, warn=False)
    ids = stable_diffusion_ids(tokenizers["clip"], prompt)
    tokenizers["clip"].backend_tokenizer.no_padding()
    tokenizers["clip"].backend_tokenizer.no_truncation()
    assert table.rows["token_id"].tolist() == ids
    assert tokenize(tokenizers["clip"], prompt, 77, padded=True).ids == ids
    kinds = table.rows["kind"].tolist()
    n = kinds.count("text")
    assert kinds == ["start"] + ["text"] * n + ["end"] + ["padding"] * (75 - n)


def test_plain_layout_is_what_the_pipeline_feeds(tmp_path):
    from diffusers import StableDiffusionPipeline

    from attnviz.testing import write_plain_checkpoint

    pipe = StableDiffusionPipeline.from_pretrained(write_plain_checkpoint(tmp_path, published=False))
    fed = []
    pipe.text_encoder.register_forward_pre_hook(lambda module, args: fed.append(args[0]))
    for prompt in ("a dog barks", "dog barks " * 60):
        pipe.encode_prompt(prompt, "cpu", 1, False)
        assert (
            clip_token_table(pipe.tokenizer, prompt, warn=False).rows["token_id"].tolist() == fed[-1][0].tolist()
        )


def test_plain_layout_warns_of_cut_words(tokenizers):
    with pytest.warns(TruncationWarning, match="'thunder'"):
        table = clip_token_table(tokenizers["clip"], "dog " * 75 + "thunder")
    assert table.positions("padding").size == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip_token_table(tokenizers["clip"], "dog " * 75)


@pytest.mark.golden
def test_the_published_vocabulary(golden_dir):
    from attnviz.models.conditioning.encoders import load_tokenizer

    tokenizer = load_tokenizer(golden_dir / "adapter1/text_encoder_0")
    table = clip_token_table(tokenizer, "A chainsaw buzzes, 🐕 whimpering")
    assert table.rows["token_id"].tolist()[:2] == [49406, 320]
    assert texts(table, "whimpering") == ["wh", "imper", "ing"]
    assert len(table.find("🐕")) == 1
