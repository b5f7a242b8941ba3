"""What is asked: queries with the same reference, byte by byte, and the same texts are one."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa

from cir_core.datasets.listing_notes import first_few
from cir_core.datasets.row_faults import shown
from cir_core.ports import Reading
from storage.views import Ingested
from tasks.feed.pictures import Distinct, distinct_pictures

_log = logging.getLogger(__name__)

TOO_LONG = "text_too_long"
"""The kind of problem of a query whose text is longer than the model reads."""


@dataclass(frozen=True)
class Questions:
    """Distinct queries, numbered in the order of their references, and of their first query; those
    of a reference that was not ingested are left out, and those with a text that is longer than the
    model reads.

    ``picture`` is each question's reference, ``texts`` its token ids: of one text, or of two where
    it is asked both ways; ``wordings`` are these texts. ``query_ids`` are the queries that ask it.
    ``too_long`` are rows of ``problems``, by picture: of the queries whose text is too long.
    """

    picture: np.ndarray
    texts: list[list[list[int]]]
    wordings: list[list[str]]
    query_ids: list[list[str]]
    too_long: Mapping[int, list[dict[str, str]]]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def first_queries(self) -> pa.Array:
        """A query that asks each."""
        return pa.array([ids[0] for ids in self.query_ids], pa.string())

    def of_pictures(self, first: int, last: int) -> range:
        """The questions whose reference is one of these pictures or between them."""
        start, stop = np.searchsorted(self.picture, [first, last + 1]).tolist()
        return range(start, stop)


def read_questions(config: Reading, queries: pa.Table, pictures: Distinct) -> Questions:
    """Of rows of the table ``queries``."""
    names = queries["query_id"].to_pylist()
    texts, others = queries["text"].to_pylist(), queries["other_text"].to_pylist()
    numbers: dict[tuple[int, str, str | None], int] = {}
    asked: list[list[list[int]]] = []
    query_ids: list[list[str]] = []
    too_long: dict[int, list[dict[str, str]]] = defaultdict(list)
    references = pictures.of(queries["reference_id"]).tolist()
    every = _token_ids(config, queries)
    for name, reference, text, other, ways in zip(
        names, references, texts, others, every, strict=True
    ):
        if reference < 0:
            continue
        if _length(ways) > config.positions:
            too_long[reference].append(_too_long(name, _length(ways), config))
            continue
        number = numbers.setdefault((reference, text, other), len(numbers))
        if number == len(asked):
            asked.append(ways)
            query_ids.append([])
        query_ids[number].append(name)
    picture = np.array([reference for reference, _, _ in numbers], dtype=np.int64)
    worded = [[text] if other is None else [text, other] for _, text, other in numbers]
    order = np.argsort(picture, kind="stable").tolist()
    return Questions(
        picture=picture[order],
        texts=[asked[one] for one in order],
        wordings=[worded[one] for one in order],
        query_ids=[query_ids[one] for one in order],
        too_long=too_long,
    )


def text_problems(ingested: Ingested, config: Reading) -> list[dict[str, str]]:
    """As ``unread_texts``. Warns of texts that the model reads and does not understand."""
    _tell_foreign(config, ingested.read("queries"))
    return unread_texts(ingested, config)


def unread_texts(ingested: Ingested, config: Reading) -> list[dict[str, str]]:
    """What encoding will find of the ingested queries' texts, as rows of ``problems``: those that
    are longer than the model reads."""
    pictures = distinct_pictures(ingested.read("images"))
    asked = read_questions(config, ingested.read("queries"), pictures)
    return list(chain.from_iterable(asked.too_long.values()))


def _tell_foreign(config: Reading, queries: pa.Table) -> None:
    names, texts = queries["query_id"].to_pylist(), queries["text"].to_pylist()
    foreign = config.tokenizer().without_known_words(texts)
    strange = [
        f"{name} {shown(text)}"
        for name, text, is_strange in zip(names, texts, foreign, strict=True)
        if is_strange
    ]
    if strange:
        _log.warning(
            "%d of %d texts have no word of the model's vocabulary %s; they are spelled letter by "
            "letter, or lost: %s",
            len(strange), len(texts), config.vocabulary, first_few(strange),
        )  # fmt: skip


def _token_ids(config: Reading, queries: pa.Table) -> list[list[list[int]]]:
    """Of each query, its one text or its two, never truncated."""
    tokenizer = config.tokenizer()
    others = queries["other_text"].to_pylist()
    first = tokenizer(queries["text"].to_pylist())
    second = iter(tokenizer([other for other in others if other is not None]))
    return [
        [ids] if other is None else [ids, next(second)]
        for ids, other in zip(first, others, strict=True)
    ]


def _length(ways: list[list[int]]) -> int:
    return max(map(len, ways))


def _too_long(query_id: str, length: int, config: Reading) -> dict[str, str]:
    told = f"the text has {length} tokens, the model reads {config.positions}, and none is cut off"
    return {"item": query_id, "kind": TOO_LONG, "message": told}
