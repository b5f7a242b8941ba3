"""z_t and query embeddings that earlier artifacts hold."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.artifacts import StoredPart
from storage.relatives import relatives
from storage.tables import rows_of
from storage.views import Fused
from tasks.stages.earlier.wanted import Wanted, contents_for

AT_HAND = 2
"""Parts of fused queries in memory at a time, 86 MiB each at Fashion-IQ's size: a part of another
list of images lies across two."""


@dataclass(frozen=True)
class Fusions:
    """Where rows of these questions, ascending, are: each one's part, and its row there. A question
    of two texts has two rows."""

    question: np.ndarray
    part: np.ndarray
    row: np.ndarray
    parts: list[StoredPart]

    def left(self, some: range) -> np.ndarray:
        """Those of these questions that nobody has fused."""
        return np.setdiff1d(np.arange(some.start, some.stop), self.question[self._place(some)])

    def of(self, some: range, schema: pa.Schema) -> pa.Table:
        """The rows of these questions, in no order but that a question's own rows have: the columns
        of the schema, which are those of ``schemas.FUSED_QUERIES`` but for the query."""
        place = self._place(some)
        question, part, row = self.question[place], self.part[place], self.row[place]
        found = [schema.empty_table()]
        for number in np.unique(part).tolist():
            mine = np.flatnonzero(part == number)
            mine = mine[np.argsort(row[mine])]
            table = self._read(number).drop_columns(["query_id"])
            there = np.isin(np.arange(table.num_rows), row[mine])
            known = table.filter(pa.array(there))  # unlike take, never one array of all z_t
            asked = schema.get_field_index("question")
            mended = known.set_column(asked, "question", pa.array(question[mine]))
            found.append(mended.cast(schema))
        return pa.concat_tables(found)

    def _place(self, some: range) -> slice:
        start, stop = np.searchsorted(self.question, [some.start, some.stop]).tolist()
        return slice(start, stop)

    @cached_property
    def _read(self) -> Callable[[int], pa.Table]:
        """By the part's number."""
        return lru_cache(AT_HAND)(lambda number: self.parts[number].read())


def find_fusions(fused: Fused, questions: pa.ChunkedArray) -> Fusions:
    """Of each of the questions (``Contents.of_questions``) that an earlier artifact has fused, the
    rows of one. Reads no z_t."""
    every = relatives(fused, apart_from=["images", "texts"], kind=Fused)
    wanted, parts = Wanted(len(questions)), list[StoredPart]()
    found = [np.empty((3, 0), dtype=np.int64)]
    for asked, part, row, theirs in wanted.read(every, _fusions):
        number = rows_of(asked, questions)
        mine, _ = wanted.take(number)
        there = np.isin(number, mine)
        found.append(np.stack([number[there], len(parts) + part[there], row[there]]))
        parts.extend(theirs)
    rows = np.concatenate(found, axis=1)
    question, part, row = rows[:, np.argsort(rows[0], kind="stable")]
    return Fusions(question, part, row, parts)


def _fusions(fused: Fused) -> tuple[pa.ChunkedArray, np.ndarray, np.ndarray, list[StoredPart]]:
    """What each row asks, null where an earlier query asks the same; its part, and its row there;
    the parts."""
    parts = fused.parts("queries")
    tables = [part.read(["query_id"]) for part in parts]
    ids, rows = pa.concat_tables(tables)["query_id"], [table.num_rows for table in tables]
    asked = contents_for(fused, "images", "texts").of_queries(ids)
    first = ids.take(pa.array(rows_of(asked, asked)))
    once = pc.if_else(pc.equal(ids, first), asked, pa.scalar(None, pa.string()))
    start = np.repeat(np.cumsum([0, *rows[:-1]]), rows)
    return once, np.repeat(np.arange(len(rows)), rows), np.arange(sum(rows)) - start, parts
