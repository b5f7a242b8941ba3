"""Our token ids are BERT's: against transformers' BertTokenizer, given nothing but a word list."""

import hashlib
import string
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cir_core.layers.wordpiece import Tokenizer, pad_tokens, word_list

if TYPE_CHECKING:
    from transformers import BertTokenizer
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

CLS, SEP, MASK = 101, 102, 103
DEC, ENC = 30522, 30523
"""BLIP's, after the 30,522 words of bert-base-uncased."""

BERT, DEMO = Tokenizer("bert-base-uncased"), Tokenizer("demo")

PUBLISHED_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"

TRICKY = [
    "is shorter and more blue",
    "Is SHORTER, and has 3/4 sleeves!",
    "",
    "   ",
    "a\tb\nc\r\nd",
    "café naïve Ångström Straße İstanbul",
    "cafe\u0301 with a combining accent",
    "日本語 の dress",
    "한국어",
    "\U00020000 beyond the basic plane",
    "👗🎉 emoji 👩🏽‍🦰",
    "don't--do... 'this' (or that); e-mail@x.org",
    "100% 3.14 \uff11\uff12 fullwidth ½ ²",
    "ﬁne ligatures",
    "zero\u200bwidth soft\u00adhyphen no\u00a0break line\u2028separator",
    "\x00null \ufffdreplacement \x7fdelete",
    "[MASK] and [SEP] as text, [ENC] [DEC] too, [unused1]",
    "##ing hash",
    "x" * 100,
    "x" * 101,
    "unbelievablyoverdecoratedgarment",
    "word " * 600,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bert")
    (made / "vocab.txt").write_bytes(_shipped("bert-base-uncased"))
    return made


@pytest.fixture(scope="module")
def reference(folder: Path) -> "BertTokenizer":
    from transformers import BertTokenizer

    tokenizer: BertTokenizer = BertTokenizer.from_pretrained(folder)
    return tokenizer


@pytest.fixture(scope="module")
def python_reference(folder: Path) -> "BertTokenizerLegacy":
    """Google's first implementation, in Python: shares no code with ours."""
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

    return BertTokenizerLegacy(str(folder / "vocab.txt"))


def _shipped(vocabulary: str) -> bytes:
    file = resources.files("cir_core.layers") / "vocabularies" / f"{vocabulary}.txt"
    return Path(str(file)).read_bytes()


def test_the_shipped_word_list_is_the_published_one() -> None:
    assert hashlib.sha256(_shipped("bert-base-uncased")).hexdigest() == PUBLISHED_SHA256
    assert len(word_list("bert-base-uncased")) == DEC


@pytest.mark.slow
@pytest.mark.parametrize("text", TRICKY)
def test_ids_are_those_of_transformers_with_enc_for_cls(
    text: str, reference: "BertTokenizer", python_reference: "BertTokenizerLegacy"
) -> None:
    expected = reference(text)["input_ids"]
    assert expected == python_reference(text)["input_ids"]
    assert expected[0] == CLS
    assert BERT([text]) == [[ENC, *expected[1:]]]


@pytest.mark.slow
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
@settings(deadline=None)
def test_any_text_has_the_ids_of_transformers(reference: "BertTokenizer", text: str) -> None:
    assert BERT([text])[0][1:] == reference(text)["input_ids"][1:]


def test_known_ids() -> None:
    assert BERT(["is blue"]) == [[ENC, 2003, 2630, SEP]]
    assert BERT([""]) == [[ENC, SEP]]
    assert BERT([]) == []
    assert (BERT.encode_token, BERT.mask_token, BERT.vocabulary_size) == (ENC, MASK, ENC + 1)


def test_texts_are_never_truncated() -> None:
    (ids,) = BERT(["blue " * 5000])
    assert ids == [ENC, *[2630] * 5000, SEP]


def test_a_text_has_the_same_ids_in_any_batch() -> None:
    assert BERT(TRICKY) == [BERT([text])[0] for text in TRICKY]


@given(
    st.lists(st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=100), max_size=5)
)
@settings(deadline=None)
def test_the_demo_words_spell_every_word_without_unknowns(words: list[str]) -> None:
    table = word_list("demo")
    (ids,) = DEMO([" ".join(words)])
    assert ids[0] == len(table) + 1
    assert table[ids[-1]] == "[SEP]"
    pieces = [table[index] for index in ids[1:-1]]
    assert "".join(piece.removeprefix("##") for piece in pieces) == "".join(words)
    assert sum(not piece.startswith("##") for piece in pieces) == len(words)


def test_the_demo_words_hold_bert_s_special_tokens_once() -> None:
    table = word_list("demo")
    assert table[:5] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert len(set(table)) == len(table)
    assert (DEMO.mask_token, DEMO.vocabulary_size) == (4, len(table) + 2)


def test_padding_is_zeros_on_the_right() -> None:
    batch = pad_tokens([[7, 8], [9], [4, 5, 6]])
    assert batch.ids.tolist() == [[7, 8, 0], [9, 0, 0], [4, 5, 6]]
    assert batch.lengths.tolist() == [2, 1, 3]
    assert pad_tokens([]).ids.shape == (0, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", False),
        ("is red", False),
        ("xqzvk red", False),
        ("xqzvk", True),
        ("xqzvk, wvqzx!", True),
        ("\U0001f44d", True),
        ("\U0001f44d red", False),
        ("!", False),
    ],
)
def test_a_text_without_a_known_word_is_told(text: str, expected: bool) -> None:
    """Spelled or lost; punctuation tells nothing beside words."""
    assert Tokenizer("demo").without_known_words([text, "is red"]) == [expected, False]
