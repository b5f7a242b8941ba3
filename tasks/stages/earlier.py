"""What earlier artifacts of the store hold of what is to be made, found by what it is made of: the
bytes of images, and the texts, whatever ids these had. It is copied, so that a later artifact needs
no earlier one; of several that know a number, the first by fingerprint is taken.

Whatever cannot be read is left out, with a warning, and its numbers are made again.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.errors import StoreCorrupt
from storage.relatives import ingested_for, relatives, way
from storage.tables import rows_of, vectors_of
from storage.view import StoredPart, View, Viewed
from storage.views import (
    Dropped,
    DroppedScores,
    Encoded,
    Fused,
    Ingested,
    KeptTokens,
    Retrieved,
    Scored,
)
from tasks.feed.pictures import Distinct
from tasks.feed.token_cache import TokenCache
from tasks.stages.contents import Contents

_log = logging.getLogger(__name__)

Found = TypeVar("Found")

_NONE = np.empty(0, dtype=np.int64)

CHOSEN = (Retrieved.stage, Dropped.stage)
"""Whose candidates may be scored."""

AT_HAND = 2
"""Parts of fused queries in memory at a time, 86 MiB each at Fashion-IQ's size: a part of another
list of images lies across two."""


@dataclass(frozen=True)
class Embeddings:
    """Of these pictures, ascending."""

    pictures: np.ndarray
    vectors: np.ndarray

    def of(self, pictures: range) -> "Embeddings":
        """Those of these pictures."""
        start, stop = np.searchsorted(self.pictures, [pictures.start, pictures.stop])
        return Embeddings(self.pictures[start:stop], self.vectors[start:stop])


def joined(every: Iterable[Embeddings]) -> Embeddings:
    """Of different pictures; of none, the width is 0."""
    some = [one for one in every if len(one.pictures)]
    if not some:
        return Embeddings(np.empty(0, dtype=np.int64), np.empty((0, 0), dtype=np.float32))
    pictures = np.concatenate([one.pictures for one in some])
    order = np.argsort(pictures)
    return Embeddings(pictures[order], np.concatenate([one.vectors for one in some])[order])


def find_embeddings(encoded: Encoded, pictures: Distinct) -> Embeddings:
    """Those of the pictures that an earlier artifact has."""
    every = relatives(encoded, apart_from=["images"], kind=Encoded)
    wanted, found = _Wanted(len(pictures)), list[Embeddings]()
    for table in wanted.read(every, _embeddings):
        mine, rows = wanted.take(rows_of(table["sha256"], pictures.table["sha256"]))
        vectors = vectors_of(table["embedding"].take(pa.array(rows)))
        found.append(Embeddings(mine, vectors))
    return joined(found)


def _embeddings(encoded: Encoded) -> pa.Table:
    table = encoded.read("embeddings")
    sha256 = _contents_for(encoded, "images").of_images(table["image_id"])
    return table.append_column("sha256", sha256)


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
    wanted, parts = _Wanted(len(questions)), list[StoredPart]()
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
    asked = _contents_for(fused, "images", "texts").of_queries(ids)
    first = ids.take(pa.array(rows_of(asked, asked)))
    once = pc.if_else(pc.equal(ids, first), asked, pa.scalar(None, pa.string()))
    start = np.repeat(np.cumsum([0, *rows[:-1]]), rows)
    return once, np.repeat(np.arange(len(rows)), rows), np.arange(sum(rows)) - start, parts


@dataclass(frozen=True)
class Tokens:
    """Of these ``pictures``, ascending, from whose cache and where there."""

    pictures: np.ndarray
    cache: np.ndarray
    row: np.ndarray
    caches: list[TokenCache]

    def left(self, pictures: range) -> list[int]:
        """Those of these pictures that nobody has kept."""
        rows = np.arange(pictures.start, pictures.stop)
        left: list[int] = rows[~np.isin(rows, self.pictures)].tolist()
        return left

    def fill(self, tokens: np.ndarray, pictures: range) -> None:
        """Into ``tokens`` of these pictures, those that are known."""
        start, stop = np.searchsorted(self.pictures, [pictures.start, pictures.stop])
        place, cache = self.pictures[start:stop] - pictures.start, self.cache[start:stop]
        for number in np.unique(cache):
            mine, one = cache == number, self.caches[number]
            out = np.empty((int(mine.sum()), *one.shape), dtype=np.float32)
            one.read(self.row[start:stop][mine], out)
            tokens[place[mine]] = out


def find_tokens(kept: KeptTokens, pictures: Distinct) -> Tokens:
    """Those of the pictures that are kept with another list of images."""
    every = relatives(kept, apart_from=["images"], kind=KeptTokens)
    wanted, caches = _Wanted(len(pictures)), list[TokenCache]()
    found = [np.empty((3, 0), dtype=np.int64)]
    for sha256, rows, kept_there in wanted.read(every, _tokens):
        some, place = wanted.take(rows_of(sha256, pictures.table["sha256"]))
        found.append(np.stack([some, np.full(len(some), len(caches)), rows[place]]))
        caches.append(kept_there)
    mine, cache, row = np.concatenate(found, axis=1)
    order = np.argsort(mine)
    return Tokens(mine[order], cache[order], row[order], caches)


def which_tokens(kept: KeptTokens, pictures: Distinct) -> np.ndarray:
    """The pictures of ``find_tokens``, if all that is kept is whole: that is far too much to be
    hashed just to count it."""
    every = relatives(kept, apart_from=["images"], kind=KeptTokens)
    wanted = _Wanted(len(pictures))
    found = [
        wanted.take(rows_of(sha256, pictures.table["sha256"]))[0]
        for sha256, _ in wanted.read(every, _usable)
    ]
    return np.concatenate([np.empty(0, dtype=np.int64), *found])


def _tokens(kept: KeptTokens) -> tuple[pa.ChunkedArray, np.ndarray, TokenCache]:
    return *_usable(kept), TokenCache(kept)


def _usable(kept: KeptTokens) -> tuple[pa.ChunkedArray, np.ndarray]:
    """The sha256 of usable pictures, and their rows."""
    table = _contents_for(kept, "images").pictures.table
    is_bad = pc.is_in(table["image_id"], kept.read("problems")["item"].combine_chunks())
    rows = np.flatnonzero(~is_bad.to_numpy())
    return table["sha256"].take(pa.array(rows)), rows


@dataclass(frozen=True)
class Scores:
    """Final ones, by key, ascending: a number (``picture * questions + question``), with the cosine
    that the score is made of, where it is (``with_cosines``)."""

    key: np.ndarray
    score: np.ndarray
    with_cosines: bool = False

    @property
    def number(self) -> np.ndarray:
        """Each once, ascending, whatever its cosines."""
        return np.unique(self.key.real.astype(np.int64))

    def at(self, number: np.ndarray, cosine: np.ndarray) -> np.ndarray:
        """The score of each number; NaN of those that are not known, or with another cosine."""
        key = keys_of(number, cosine if self.with_cosines else None)
        place = np.searchsorted(self.key, key)
        there = np.append(self.key, -1)[place] == key
        found: np.ndarray = np.where(there, np.append(self.score, np.nan)[place], np.nan)
        return found.astype(np.float32)


def keys_of(number: np.ndarray, cosine: np.ndarray | None) -> np.ndarray:
    """A key for each number, or for each number and cosine: complex numbers are sorted by their
    real parts, then by the others, and a number below 2**53 is exact as one."""
    return number if cosine is None else number + 1j * cosine.astype(np.float64)


NO_SCORES = Scores(_NONE, np.empty(0, dtype=np.float32))


def find_scores(
    scored: Scored,
    fused: Fused | None,
    questions: pa.ChunkedArray,
    pictures: Distinct,
    *,
    cosines: bool,
    wanted: np.ndarray | None = None,
) -> Scores:
    """Those of the questions (``Contents.of_questions``) and pictures that the same models have
    scored, for whatever candidates; of these ``wanted`` keys, ascending, or of all. With their
    ``cosines`` where the scores are made of them, too. ``fused`` is the z_t that was, or is to be,
    read."""
    apart_from = [*CHOSEN, Ingested.stage, Fused.stage]
    every = [
        one
        for kind in (Scored, DroppedScores)
        for one in relatives(scored, apart_from=apart_from, kind=kind)
    ]
    found = [(keys_of(_NONE, np.empty(0) if cosines else None), np.empty(0, dtype=np.float32))]
    for contents, table in _readable(every, partial(_scores, fused=fused, cosines=cosines)):
        asked = rows_of(contents.of_queries(contents.queries["query_id"]), questions)
        seen = rows_of(contents.images["sha256"], pictures.table["sha256"])
        question = np.append(asked, -1)[rows_of(table["query_id"], contents.queries["query_id"])]
        picture = np.append(seen, -1)[rows_of(table["image_id"], contents.images["image_id"])]
        there = (question >= 0) & (picture >= 0)
        cosine = table["cosine"].to_numpy() if cosines else None
        key = keys_of(picture * len(questions) + question, cosine)
        if wanted is not None:
            place = np.searchsorted(wanted, key)
            there &= np.append(wanted, -1)[place] == key
            wanted = np.delete(wanted, place[there])
        found.append((key[there], table["stage2_score"].to_numpy()[there]))
        if wanted is not None and not len(wanted):
            break
    key, first = np.unique(np.concatenate([keys for keys, _ in found]), return_index=True)
    return Scores(key, np.concatenate([scores for _, scores in found])[first], cosines)


def _scores(scored: Scored, *, fused: Fused | None, cosines: bool) -> tuple[Contents, pa.Table]:
    """What the ids stand for, and the scores, with a column of ``cosines`` if these are wanted;
    none where the z_t was made in another way."""
    table, contents = scored.read("scores"), Contents.of(scored.made_of(Ingested))
    if fused is not None and _way_of_z_t(scored.made_of(Fused)) != _way_of_z_t(fused):
        table = table.slice(0, 0)
    if not cosines:
        return contents, table
    chosen = Retrieved if Retrieved.stage in scored.identity()["inputs"] else Dropped
    candidates = scored.made_of(chosen).read("candidates", ["query_id", "image_id", "stage1_score"])
    pair = ["query_id", "image_id"]
    once = candidates.group_by(pair).aggregate([("stage1_score", "first")])
    return contents, table.join(once, pair, join_type="inner").rename_columns(
        {"stage1_score_first": "cosine"}
    )


def _contents_for(view: View, *roles: str) -> Contents:
    """What a view's ids stand for, by the first split of its digests in these roles that can be
    read. Raises StoreCorrupt where there is none any more."""
    for contents in _readable(ingested_for(view, *roles), Contents.of):
        return contents
    raise StoreCorrupt(
        "what an artifact's ids stand for is not known any more",
        item=str(view.folder),
        cause="the artifact of the ingested images and queries is gone, or damaged",
        remedy="repeat the command that made it, or leave it",
    )


def _way_of_z_t(fused: Fused) -> str:
    return way(fused, apart_from=["images", "texts"])


class _Wanted:
    """Which of so many things nobody was found to have yet."""

    def __init__(self, count: int) -> None:
        self._is_left = np.ones(count, dtype=bool)

    def read(self, every: Iterable[Viewed], read: Callable[[Viewed], Found]) -> Iterator[Found]:
        """As long as anything is wanted."""
        if self._is_left.any():
            for found in _readable(every, read):
                yield found
                if not self._is_left.any():
                    return

    def take(self, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of what somebody has, by the number of each thing (-1: it is not asked for), those that
        are wanted, ascending, and the first place of each; they are not wanted any more."""
        mine, place = np.unique(number, return_index=True)
        new = (mine >= 0) & self._is_left[mine]
        self._is_left[mine[new]] = False
        return mine[new], place[new]


def _readable(every: Iterable[Viewed], read: Callable[[Viewed], Found]) -> Iterator[Found]:
    """What is read of each; what cannot be is left out."""
    for one in every:
        try:
            yield read(one)
        except StoreCorrupt as error:
            _log.warning("nothing is taken over from %s: %s", one.folder, error.in_a_line)
