"""Scores of questions and pictures that earlier artifacts hold."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from storage.relatives import relatives, way
from storage.tables import rows_of
from storage.views import Dropped, DroppedScores, Fused, Ingested, Retrieved, Scored
from tasks.feed.pictures import Distinct
from tasks.stages.contents import Contents
from tasks.stages.earlier.wanted import readable

CHOSEN = (Retrieved.stage, Dropped.stage)
"""Whose candidates may be scored."""


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


NO_SCORES = Scores(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))


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
    none, no_scores = NO_SCORES.key, NO_SCORES.score
    found = [(keys_of(none, no_scores if cosines else None), no_scores)]
    for contents, table in readable(every, partial(_scores, fused=fused, cosines=cosines)):
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


def _way_of_z_t(fused: Fused) -> str:
    return way(fused, apart_from=["images", "texts"])
