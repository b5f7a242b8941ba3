"""WordPiece tokenisation with BLIP's two extra tokens, from word lists in this package."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import torch
from jaxtyping import Int
from tokenizers import BertWordPieceTokenizer
from torch import Tensor

from cir_core.layers.config import TextConfig, Vocabulary

BLANKED = '.!"()*#:;~'
"""What BLIP's training code (``pre_caption``) replaces by spaces."""


@dataclass(frozen=True)
class TokenBatch:
    """Right-padded token ids (padding 0) and each text's length, [ENC] and [SEP] included."""

    ids: Int[Tensor, "text token"]
    lengths: Int[Tensor, " text"]

    def rows(self, rows: slice) -> "TokenBatch":
        """These texts alone, as wide as before."""
        return TokenBatch(self.ids[rows], self.lengths[rows])

    def to(self, device: torch.device) -> "TokenBatch":
        return TokenBatch(self.ids.to(device), self.lengths.to(device))


class Tokenizer:
    """Text to token ids as BLIP does it: BERT's, with [ENC] in the place of [CLS].

    BLIP appends [DEC] and [ENC] to BERT's vocabulary, in this order (ids 30522 and 30523 of
    bert-base-uncased). Texts are never truncated. An empty text has the two tokens [ENC] [SEP].
    The marks that are ``blanked`` are read as spaces.
    """

    def __init__(self, vocabulary: Vocabulary, blanked: str = "") -> None:
        words = word_list(vocabulary)
        table = {word: index for index, word in enumerate(words)}
        self._wordpiece = BertWordPieceTokenizer(vocab=table, lowercase=True)
        self._spaces = str.maketrans(dict.fromkeys(blanked, " "))
        self.encode_token = len(words) + 1
        self.mask_token = table["[MASK]"]
        self.vocabulary_size = len(words) + 2

    def __call__(self, texts: list[str]) -> list[list[int]]:
        encodings = self._wordpiece.encode_batch([text.translate(self._spaces) for text in texts])
        return [[self.encode_token, *encoding.ids[1:]] for encoding in encodings]

    def words(self, texts: Iterable[str]) -> Counter[str]:
        """How often the texts have each word, as it is before it is cut into pieces."""
        wordpiece = self._wordpiece
        return Counter(
            word
            for text in texts
            for word, _ in wordpiece.pre_tokenizer.pre_tokenize_str(wordpiece.normalize(text))
        )

    def unknown(self, words: Iterable[str]) -> list[str]:
        """Those of the words that the vocabulary neither has nor puts together from longer pieces
        than letters: they are spelled, or lost ([UNK])."""
        names = list(words)
        encodings = self._wordpiece.encode_batch(names, add_special_tokens=False)
        return [
            word
            for word, encoding in zip(names, encodings, strict=True)
            if "[UNK]" in encoding.tokens
            or (len(word) > 1 and all(len(one.removeprefix("##")) == 1 for one in encoding.tokens))
        ]

    def without_known_words(self, texts: Sequence[str]) -> list[bool]:
        """Whether a text has words, and not one that is known (see ``unknown``). Punctuation is no
        word, but where there is nothing else."""
        each = [list(self.words([text])) for text in texts]
        unknown = set(self.unknown({word: None for mine in each for word in mine}))
        named = [[word for word in mine if any(map(str.isalnum, word))] or mine for mine in each]
        return [bool(mine) and unknown.issuperset(mine) for mine in named]


@cache
def tokenizer_of(text: TextConfig) -> Tokenizer:
    """That of a model's texts; it takes some 30 ms to build, and is asked for at every turn."""
    return Tokenizer(text.vocabulary, blanked=BLANKED if text.marks == "blanked" else "")


class UnreadTexts(Tokenizer):
    """Every text as the empty one, [ENC] [SEP]: for models that are not to read."""

    def __call__(self, texts: list[str]) -> list[list[int]]:
        return super().__call__([""] * len(texts))

    def without_known_words(self, texts: Sequence[str]) -> list[bool]:
        return [False] * len(texts)


@cache
def word_list(vocabulary: Vocabulary) -> tuple[str, ...]:
    """The words of a vocabulary in the order of their ids."""
    file = resources.files("cir_core.layers") / "vocabularies" / f"{vocabulary}.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())


def pad_tokens(token_ids: Sequence[Sequence[int]]) -> TokenBatch:
    """Stack token lists of different lengths."""
    lengths = [len(ids) for ids in token_ids]
    padded = torch.zeros(len(token_ids), max(lengths, default=0), dtype=torch.long)
    for row, ids in zip(padded, token_ids, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return TokenBatch(ids=padded, lengths=torch.tensor(lengths, dtype=torch.long))
