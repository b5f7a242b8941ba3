"""Texts to token ids by a ``tokenizer.json`` that came with a model's weights."""

import hashlib
import re
import string
from functools import lru_cache
from typing import Any

from pydantic import Field
from tokenizers import Encoding
from tokenizers import Tokenizer as Engine

from cir_core.layers.config import Frozen

TOKENIZER_FILE = "tokenizer.json"

_PUNCTUATION = str.maketrans("", "", string.punctuation)


class WithTokenizer(Frozen):
    """A config whose token ids mean nothing without ``tokenizer.json``, which is attached to it."""

    attached: dict[str, str] = Field(repr=False)

    @property
    def tokenizer_json(self) -> str:
        return self.attached[TOKENIZER_FILE]

    @property
    def vocabulary(self) -> str:
        """The words that its token ids mean."""
        return f"{TOKENIZER_FILE} {hashlib.sha256(self.tokenizer_json.encode()).hexdigest()[:16]}"


class FileTokenizer:
    """As the file says, whole: nothing is cut off or padded, whatever it asks for, and what looks
    like a special token in a text is read as text.

    ``lower_case`` and ``strip_punctuation`` are done before, as some models' tokenizers do outside
    of their file. ``template`` is what a text is put into, at its ``{}``.
    """

    def __init__(
        self,
        content: str,
        *,
        lower_case: bool = False,
        strip_punctuation: bool = False,
        template: str = "{}",
    ) -> None:
        self._engine = _opened(content)
        self._lower_case, self._strip_punctuation = lower_case, strip_punctuation
        self._template = template

    @property
    def size(self) -> int:
        """One more than its largest id."""
        return 1 + max(self._engine.get_vocab(with_added_tokens=True).values())

    def id_of(self, token: str) -> int | None:
        """Of a token by its own name, special ones among them; None of one that it lacks."""
        found: int | None = self._engine.token_to_id(token)
        return found

    def __call__(self, texts: list[str]) -> list[list[int]]:
        whole = [self._template.replace("{}", self._canonical(text)) for text in texts]
        return [encoding.ids for encoding in self._engine.encode_batch(whole)]

    def without_known_words(self, texts: list[str]) -> list[bool]:
        """Whether a text has words, and each is spelled letter by letter, or lost."""
        read = [self._canonical(text) for text in texts]
        encodings = self._engine.encode_batch(read, add_special_tokens=False)
        return [
            bool(text.strip()) and not self._knows_a_word(encoding)
            for text, encoding in zip(read, encodings, strict=True)
        ]

    def _canonical(self, text: str) -> str:
        if self._lower_case:
            text = text.lower()
        if self._strip_punctuation:
            text = re.sub(r"\s+", " ", text.translate(_PUNCTUATION)).strip()
        return text

    def _knows_a_word(self, encoding: Encoding) -> bool:
        """A token is a known word, or a known piece of one, where it stands for two letters or
        more, or for a whole word of one."""
        unknown, words = getattr(self._engine.model, "unk_token", None), encoding.word_ids
        return any(
            token != unknown and (stop - start > 1 or words.count(word) == 1)
            for token, word, (start, stop) in zip(
                encoding.tokens, words, encoding.offsets, strict=True
            )
        )


@lru_cache(maxsize=2)
def _opened(content: str) -> Any:
    engine = Engine.from_str(content)
    engine.no_truncation()
    engine.no_padding()
    engine.encode_special_tokens = True
    return engine
