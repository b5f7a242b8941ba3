"""What stage 2 scores, once, which candidates read it, and what it costs.

A number is a picture and a question, ``picture * questions + question``: what has one score.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cir_core.errors import StoreCorrupt
from cir_core.layers.ragged import rows_of as tokens_at
from cir_core.ordering import with_prior
from cir_core.planning.effort import Effort
from cir_core.ports import Load, RerankerConfig
from storage import schemas
from storage.tables import rows_of, taken
from storage.views import KeptTokens
from tasks.feed.pictures import Distinct
from tasks.shards import slice_of
from tasks.stages.earlier.scores import Scores


@dataclass(frozen=True)
class Pairs:
    """What has a score: of each number, ascending, its picture, and a pair for every text of its
    question. Its pairs are the neighbours in ``text`` from its ``start`` to the next one's.
    ``known`` are final scores that were computed before; NaN of the numbers that have none yet."""

    number: np.ndarray
    picture: np.ndarray
    start: np.ndarray
    text: np.ndarray
    known: np.ndarray

    def of_pictures(self, first: int, last: int) -> range:
        """Where the numbers of these pictures and those between them stand."""
        start, stop = np.searchsorted(self.picture, [first, last + 1]).tolist()
        return range(start, stop)

    def left(self, some: range) -> np.ndarray:
        """Where those of these numbers stand that are to be scored."""
        return np.arange(some.start, some.stop)[np.isnan(self.known[slice_of(some)])]

    def of_numbers(self, some: np.ndarray) -> np.ndarray:
        """The pairs of the numbers at these places."""
        return tokens_at(self.start[some], self.texts_each(some))

    def texts_each(self, some: np.ndarray) -> np.ndarray:
        """How many pairs each of the numbers at these places has."""
        each: np.ndarray = self.start[some + 1] - self.start[some]
        return each


@dataclass(frozen=True)
class Rows:
    """What gets the scores: every candidate of a query, once, with the number that scores it,
    ascending, and stage 1's cosine."""

    table: pa.Table
    number: np.ndarray
    cosine: np.ndarray

    def of_numbers(self, numbers: np.ndarray) -> range:
        """Where the rows of neighbouring numbers stand."""
        if not len(numbers):
            return range(0)
        start, stop = np.searchsorted(self.number, [numbers[0], numbers[-1] + 1]).tolist()
        return range(start, stop)


def read_rows(
    candidates: pa.Table, asking: pa.Table, pictures: Distinct, *, questions: int
) -> Rows:
    """A candidate of both pools is one row. ``asking`` says which question a query asks, of so many
    ``questions``. Raises StoreCorrupt for a query that asks none."""
    table = candidates.group_by(["query_id", "image_id"], use_threads=False).aggregate(
        [("stage1_score", "first")]
    )
    asked = rows_of(table["query_id"], asking["query_id"])
    if (asked < 0).any():
        (strange,) = table["query_id"].take([int(np.argmin(asked))]).to_pylist()
        raise StoreCorrupt(
            "a candidate is of a query that nobody asks",
            item=strange,
            cause="candidates and queries are of different splits",
            remedy="delete the artifact of the candidates and run the same command again",
        )
    question = asking["question"].to_numpy()[asked]
    number = pictures.of(table["image_id"]) * questions + question
    order = np.argsort(number, kind="stable")
    ids = [taken(table[name], order) for name in ("query_id", "image_id")]
    cosine = table["stage1_score_first"].to_numpy()[order]
    return Rows(pa.table(ids, names=["query_id", "image_id"]), number[order], cosine)


def pairs_of(rows: Rows, question_of_text: np.ndarray, known: Scores, *, questions: int) -> Pairs:
    """Each picture and question once for each of the question's texts; a score is ``known`` of a
    number if it is of all of its rows."""
    numbers, first = np.unique(rows.number, return_index=True)
    score = known.at(rows.number, rows.cosine)
    if len(first):
        score = np.minimum.reduceat(score, first)  # NaN where any is
    picture, question = np.divmod(numbers, questions)
    order = np.argsort(question_of_text, kind="stable")
    sorted_questions = question_of_text[order]
    starts = np.searchsorted(sorted_questions, question)
    texts = np.searchsorted(sorted_questions, question, side="right") - starts
    return Pairs(
        number=numbers,
        picture=picture,
        start=np.append(0, np.cumsum(texts)),
        text=order[tokens_at(starts, texts)],
        known=score,
    )


def scores_table(
    rows: Rows, pairs: Pairs, some: range, scores: np.ndarray, prior: float
) -> pa.Table:
    """A row per query and image; over both ways of asking, where there are two, the mean. Images
    that are copies, and queries that ask the same, read one score."""
    number, left = pairs.number[slice_of(some)], pairs.left(some)
    texts = pairs.texts_each(left)
    place = np.repeat(np.arange(len(left)), texts)
    mean = np.bincount(place, weights=scores, minlength=len(left)) / texts
    read = rows.of_numbers(number)
    at = np.searchsorted(number, rows.number[slice_of(read)])
    known, scored = pairs.known[slice_of(some)][at], np.full(len(some), np.nan)
    scored[left - some.start] = mean
    final = with_prior(scored[at], rows.cosine[slice_of(read)], prior)
    table = rows.table.slice(read.start, len(read))
    table = table.append_column("stage2_score", pa.array(np.where(np.isnan(known), final, known)))
    return table.cast(schemas.SCORES)


@dataclass
class PairCosts:
    """What pairs cost, whose texts have these lengths; who reads kept tokens sees no picture."""

    config: RerankerConfig
    kept: KeptTokens | None
    lengths: np.ndarray

    def __post_init__(self) -> None:
        self._seeing = 0 if self.kept else self.config.seeing_flops()
        self._beginning = self.config.beginning_flops(self.lengths)

    @property
    def tokens(self) -> str | None:
        return None if self.kept is None else self.kept.fingerprint

    def of(self, pairs: Pairs, some: np.ndarray) -> Effort:
        """Of the numbers at some places; the queries are begun for the first of them, if there is
        any. Where an image's pairs go to two parts, it is counted in both."""
        if not len(some):
            return Effort()
        mine, texts = pairs.of_numbers(some), pairs.texts_each(some)
        found, image = np.unique(pairs.picture[some], return_inverse=True)
        lengths = self.lengths[pairs.text[mine]]
        load = Load.of(lengths, np.repeat(image, texts), images=len(found))
        begun, self._beginning = self._beginning, 0.0
        flops = begun + self.config.scoring_flops(load) + self._seeing * len(found)
        return Effort(images=len(found), pairs=len(mine), flops=round(flops))
