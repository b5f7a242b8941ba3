"""What stage 2 is asked: by z_t, as stage 1 fused it; or, by a reranker that reads texts itself, as
the queries were ingested."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.errors import ImageProblem, ProblemsFound
from cir_core.ports import FusedQueries, Reading
from storage import z_t
from storage.tables import rows_of
from storage.views import Fused
from tasks.feed.pictures import Distinct
from tasks.stages.questions import read_questions

PROBLEMS_SHOWN = 10


@dataclass(frozen=True)
class Asking:
    """``queries`` are the texts to score, each of the question in ``of_text``; ``table`` says which
    question a query asks, by ``query_id`` and ``question``. ``references`` are the texts', as rows
    of the pictures, where the reranker reads texts itself."""

    table: pa.Table
    of_text: np.ndarray
    queries: FusedQueries
    references: np.ndarray | None = None

    @property
    def questions(self) -> int:
        """One more than the highest number of a question; at least 1."""
        return 1 + int(self.of_text.max(initial=0))

    @property
    def first_queries(self) -> pa.ChunkedArray:
        """A query that asks each of the questions; null where a number is nobody's."""
        place = rows_of(pa.array(np.arange(self.questions)), self.table["question"])
        return self.table["query_id"].take(pa.array(place, mask=place < 0))


def ask_with_z_t(fused: Fused) -> Asking:
    """z_t is most of it: beside the store's column, which is not kept, there is one copy."""
    columns = ["query_id", "question", "token_ids", "length"]
    table = fused.read("queries", columns=columns)
    texts = _distinct_texts(table)
    lengths = table["length"].to_numpy()[texts].astype(np.int64)
    token_ids = table["token_ids"].take(pa.array(texts)).to_pylist()
    packed = fused.read("queries", columns=["z_t"])["z_t"]
    states = z_t.unpack(packed, texts.tolist(), lengths.tolist())
    flat = np.fromiter(chain.from_iterable(token_ids), dtype=np.int64)
    of_text = table["question"].to_numpy()[texts]
    return Asking(table, of_text, FusedQueries(states, flat, lengths))


def ask_by_texts(reading: Reading, queries: pa.Table, pictures: Distinct) -> Asking:
    """Rows of the table ``queries``. Raises ProblemsFound for texts that are longer than the
    reranker reads: none is cut off, and a candidate without a score would be no ranking."""
    asked = read_questions(reading, queries, pictures)
    refuse_unread(list(chain.from_iterable(asked.too_long.values())))
    ids = list(chain.from_iterable(asked.query_ids))
    question = np.repeat(np.arange(len(asked)), [len(each) for each in asked.query_ids])
    of_text = np.repeat(np.arange(len(asked)), [len(ways) for ways in asked.texts])
    queries = FusedQueries.of(
        [], list(chain.from_iterable(asked.texts)), texts=list(chain.from_iterable(asked.wordings))
    )
    table = pa.table({"query_id": pa.array(ids, pa.string()), "question": question})
    return Asking(table, of_text, queries, asked.picture[of_text])


def refuse_unread(problems: Sequence[Mapping[str, str]]) -> None:
    """Queries whose texts the reranker cannot read, as rows of ``problems``; none is fine. Raises
    ProblemsFound."""
    if problems:
        raise ProblemsFound(
            f"stage 2 cannot read the texts of {len(problems)} queries",
            item="\n".join(f"{row['item']}: {row['message']}" for row in problems[:PROBLEMS_SHOWN]),
            cause="it reads texts itself, and shorter ones than stage 1",
            remedy="shorten the texts, or use a stage 2 that reads longer ones",
        )


def require_seen(problems: Mapping[str, ImageProblem], asked: Iterable[pa.ChunkedArray]) -> None:
    """``problems`` are of stage 2's own encoder; ``asked`` the images that it has to look at.
    Raises ProblemsFound, before a pair is scored."""
    looked = {one for column in asked for one in pc.unique(column).to_pylist()}
    unseen = [f"{name}: {problems[name]}" for name in sorted(problems.keys() & looked)]
    if unseen:
        raise ProblemsFound(
            f"stage 2 cannot see {len(unseen)} images",
            item="\n".join(unseen[:PROBLEMS_SHOWN]),
            cause="its encoder takes pictures in another way than stage 1's",
            remedy="change or remove them, or use another stage 2",
        )


def _distinct_texts(queries: pa.Table) -> np.ndarray:
    """The rows of each question's first query."""
    first = rows_of(queries["question"], queries["question"])
    is_first = pc.equal(queries["query_id"], queries["query_id"].take(pa.array(first)))
    return np.flatnonzero(is_first.to_numpy())
