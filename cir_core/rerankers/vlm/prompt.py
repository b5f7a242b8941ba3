"""A form and a model's chat template, as token ids: what is fixed once, and a text's own."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer as Tokens

from cir_core.errors import CheckpointRefused
from cir_core.layers.config import Frozen
from cir_core.rerankers.vlm.extra import transformers
from cir_core.rerankers.vlm.forms import Form

PLACE = "\ue0f1"
"""Stands for the text while a template is read: of Unicode's private use, so in no template."""


class Prompt(Frozen):
    """``head`` and ``tail`` are fixed; ``image`` stands in them once for each picture, which is of
    so many tokens as its size asks for. Between them, from one special token to the next, is a text
    with the words ``before`` and ``after`` it: what is tokenised as a whole."""

    head: tuple[int, ...]
    before: str
    after: str
    tail: tuple[int, ...]
    image: int
    yes: int
    no: int

    def whole(self, token_ids: Iterable[int]) -> list[int]:
        """Of a text's ids (``PromptTokenizer``)."""
        return [*self.head, *token_ids, *self.tail]

    @property
    def fixed(self) -> int:
        """Tokens that are no text's and no picture's."""
        return len(self.head) + len(self.tail) - 2


class PromptTokenizer:
    """A ``Tokenizer``: what a text adds to a prompt, its neighbours of words included. A text that
    spells a special token is text all the same."""

    def __init__(self, content: str, prompt: Prompt) -> None:
        self._prompt = prompt
        self._tokens = read_tokenizer(content)

    def __call__(self, texts: list[str]) -> list[list[int]]:
        prompt = self._prompt
        wholes = [f"{prompt.before}{text}{prompt.after}" for text in texts]
        self._tokens.encode_special_tokens = True  # as text
        try:
            found = self._tokens.encode_batch(wholes, add_special_tokens=False)
        finally:
            self._tokens.encode_special_tokens = False
        return [list(one.ids) for one in found]

    def without_known_words(self, texts: list[str]) -> list[bool]:
        """Its vocabulary spells every byte."""
        return [False] * len(texts)


@lru_cache(maxsize=2)
def read_tokenizer(content: str) -> Any:
    """Of a ``tokenizer.json``; takes half a second for 150,000 words. Raises CheckpointRefused."""
    try:
        tokens = Tokens.from_str(content)
    except Exception as error:  # tokenizers raises nothing more special
        raise _refused("its tokenizer.json cannot be read", str(error)) from error
    tokens.no_padding()
    tokens.no_truncation()
    return tokens


def make_prompt(form: Form, template: str, tokenizer: str, image: int) -> Prompt:
    """``image`` is the id that stands for pictures. Raises CheckpointRefused when the template does
    not show both pictures and the text as they are, or when yes and no are not one token each."""
    tokens = read_tokenizer(tokenizer)
    rendered = _rendered(form, template)
    if rendered.count(PLACE) != 1:
        raise _refused("its chat template does not show the text once", repr(rendered))
    left, right = rendered.split(PLACE)
    head, before = _at_last_special(tokens, left)
    after, tail = _at_first_special(tokens, right)
    ids = [tuple(tokens.encode(part, add_special_tokens=False).ids) for part in (head, tail)]
    shown = sum(part.count(image) for part in ids)
    if shown != len(form.pictures):
        raise _refused("its chat template does not show two pictures", f"{shown} in {rendered!r}")
    return Prompt(
        head=ids[0],
        before=before,
        after=after,
        tail=ids[1],
        image=image,
        yes=_single(tokens, form.yes),
        no=_single(tokens, form.no),
    )


def _rendered(form: Form, template: str) -> str:
    render = transformers().utils.chat_template_utils.render_jinja_template
    messages = form.filled(PLACE)
    try:
        texts, _ = render([messages], chat_template=template, add_generation_prompt=True)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise _refused("its chat template cannot be filled", str(error)) from error
    text: str = texts[0]
    return text


def _at_last_special(tokens: Any, text: str) -> tuple[str, str]:
    """What ends with a special token, and the rest."""
    ends = [match.end() for match in _specials(tokens).finditer(text)]
    end = ends[-1] if ends else 0
    return text[:end], text[end:]


def _at_first_special(tokens: Any, text: str) -> tuple[str, str]:
    """What precedes any special token, and the rest."""
    match = _specials(tokens).search(text)
    start = len(text) if match is None else match.start()
    return text[:start], text[start:]


def _specials(tokens: Any) -> re.Pattern[str]:
    words = {token.content for token in tokens.get_added_tokens_decoder().values() if token.special}
    if not words:
        raise _refused("its tokenizer has no special tokens", "none is marked so in tokenizer.json")
    return re.compile("|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)))


def _single(tokens: Any, word: str) -> int:
    ids: list[int] = tokens.encode(word, add_special_tokens=False).ids
    if len(ids) != 1:
        raise _refused(f"the word {word!r} is not a single token", f"it is {len(ids)}: {ids}")
    return ids[0]


def _refused(what: str, cause: str) -> CheckpointRefused:
    return CheckpointRefused(
        f"a vision-language model cannot be asked: {what}",
        cause=cause,
        remedy="download its folder again, whole, or choose another form: convert --prompt "
        "(docs/models.md)",
    )
