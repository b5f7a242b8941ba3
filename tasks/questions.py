"""What is asked: queries with the same reference, byte by byte, and the same texts are one."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from cir_core.models.config import TextConfig
from tasks.models import tokenize
from tasks.pictures import Distinct


@dataclass(frozen=True)
class Questions:
    """Distinct queries, numbered in the order of their first query; those of a reference that was
    not ingested are left out.

    ``picture`` is each question's reference, ``texts`` its token ids: of one text, or of two where
    it is asked both ways. ``query_ids`` are the queries that ask it.
    """

    picture: np.ndarray
    texts: list[list[list[int]]]
    query_ids: list[list[str]]

    def __len__(self) -> int:
        return len(self.texts)

    def of_picture(self, picture: int) -> list[int]:
        """The questions whose reference it is."""
        return self._by_picture.get(picture, [])

    @cached_property
    def _by_picture(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = defaultdict(list)
        for question, picture in enumerate(self.picture.tolist()):
            found[picture].append(question)
        return dict(found)


def read_questions(config: TextConfig, queries: pa.Table, pictures: Distinct) -> Questions:
    """Of rows of the table ``queries``. Raises PreflightError as ``tokenize``."""
    names = queries["query_id"].to_pylist()
    texts, others = queries["text"].to_pylist(), queries["other_text"].to_pylist()
    both = [name for name, other in zip(names, others, strict=True) if other is not None]
    token_ids = iter(tokenize(config, names, texts))
    other_ids = iter(tokenize(config, both, [other for other in others if other is not None]))
    numbers: dict[tuple[int, str, str | None], int] = {}
    asked: list[list[list[int]]] = []
    query_ids: list[list[str]] = []
    references = pictures.of(queries["reference_id"]).tolist()
    for name, reference, text, other in zip(names, references, texts, others, strict=True):
        ways = [next(token_ids)] + ([next(other_ids)] if other is not None else [])
        if reference < 0:
            continue
        number = numbers.setdefault((reference, text, other), len(numbers))
        if number == len(asked):
            asked.append(ways)
            query_ids.append([])
        query_ids[number].append(name)
    picture = np.array([reference for reference, _, _ in numbers], dtype=np.int64)
    return Questions(picture, asked, query_ids)
