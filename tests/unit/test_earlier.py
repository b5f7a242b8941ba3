"""What earlier artifacts have of a split that shares some images and queries with theirs."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storage import schemas
from storage.identities import Identity
from storage.relatives import relatives
from storage.store import LocalStore
from storage.tables import read_table
from storage.view import Viewed
from storage.views import Fused, Ingested, Retrieved, Scored
from tasks.stages.contents import Contents
from tasks.stages.earlier.fusions import find_fusions
from tasks.stages.earlier.scores import find_scores, keys_of

FUSED = schemas.of_width(schemas.FUSED_QUERIES, 1)


@dataclass(frozen=True)
class Store:
    """Artifacts that are made by hand."""

    store: LocalStore

    def make(
        self,
        kind: type[Viewed],
        inputs: Mapping[str, str],
        parts: Mapping[str, Iterable[Mapping[str, Any]]],
        *,
        width: int = 1,
    ) -> Viewed:
        identity = Identity(kind.stage, 1, {}, inputs)
        made = kind.named(self.store, identity)
        if made.is_whole:
            return made
        for name, rows in parts.items():
            schema = schemas.of_width(kind.holds[name.partition("-")[0]], width)
            made.write(name, pa.Table.from_pylist([*rows], schema))
        made.finish(identity, parts)
        return made

    def ingest(self, name: str, words: str, gallery: str = "") -> Ingested:
        """A split of one image, which all have, and queries of so many words; ids are its own, of
        whatever gallery."""
        image: dict[str, Any] = {
            "image_id": f"{name}-i",
            "path": "",
            "sha256": "a",
            "width": 1,
            "height": 1,
        }
        of_all = {"category": "", "reference_id": f"{name}-i"}
        asked = [
            {"query_id": f"{name}-{row}", "text": one, **of_all} for row, one in enumerate(words)
        ]
        parts = {"images": [image], "queries": asked}
        return self.make(Ingested, {"images": name, "texts": name, "gallery": gallery}, parts)

    def score(self, name: str, cosine: float | None, score: float) -> Scored:
        """Of the one image, which is asked "a"."""
        ingested = self.ingest(name, "a")
        of_pair = {"query_id": f"{name}-0", "image_id": f"{name}-i"}
        inputs = {"ingest": ingested.fingerprint, "model": "m"}
        if cosine is not None:
            chosen = {**of_pair, "pool": "global", "stage1_rank": 1, "stage1_score": cosine}
            target = {**of_pair, "stage1_rank": 1}
            parts = {"candidates": [chosen], "targets": [target]}
            retrieved = self.make(Retrieved, {"ingest": ingested.fingerprint}, parts)
            inputs["retrieve"] = retrieved.fingerprint
        return self.make(Scored, inputs, {"scores": [{**of_pair, "stage2_score": score}]})

    def fuse(self, name: str, parts: Sequence[str]) -> Fused:
        """Of these words, two rows each; z_t tells which."""
        words = "".join(parts)
        self.ingest(name, words)
        each = [
            {"query_id": f"{name}-{row}", "embedding": [0.5], "question": row, "token_ids": [way],
             "length": 1, "z_t": f"{name}-{word}".encode()}
            for row, word in enumerate(words)
            for way in (1, 2)
        ]  # fmt: skip
        rows, start = list[list[dict[str, Any]]](), 0
        for part in parts:
            rows.append(each[start : start + 2 * len(part)])
            start += 2 * len(part)
        named = {f"queries-{number}": some for number, some in enumerate(rows)}
        return self.make(Fused, _of_fused(name), named)


def _of_fused(name: str) -> dict[str, str]:
    return {"images": name, "texts": name, "model": "m"}


@pytest.fixture
def made(tmp_path: Path) -> Store:
    return Store(LocalStore(tmp_path))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Sequence[str] | None]]:
    """The parts that are read, and which columns."""
    found = list[tuple[str, Sequence[str] | None]]()

    def reading(path: Path, columns: Sequence[str] | None = None, *, sha256: str) -> pa.Table:
        found.append((path.stem, columns))
        return read_table(path, columns, sha256=sha256)

    monkeypatch.setattr("storage.artifacts.read_table", reading)
    return found


# --- fusions


def test_known_z_t_is_read_where_it_is_needed_and_part_by_part(
    made: Store, read: list[tuple[str, Sequence[str] | None]]
) -> None:
    """All that is known may be more than memory, or one array of bytes, holds."""
    made.fuse("x", ["ba", "dc", "fe"])
    mine = made.ingest("mine", "abcdg")
    asked = Contents.of(mine).of_questions(mine.read("queries")["query_id"])
    read.clear()
    known = find_fusions(Fused.named(made.store, Identity("fuse", 1, {}, _of_fused("m"))), asked)
    looked_at = [columns for part, columns in read if part.startswith("queries-")]
    assert looked_at == [["query_id"]] * 3
    assert known.question.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert known.left(range(1, 5)).tolist() == [4]
    schema = pa.schema([one for one in FUSED if one.name != "query_id"])
    read.clear()
    rows = known.of(range(1, 3), schema).sort_by("question")
    assert read == [("queries-0", None), ("queries-1", None)]
    assert rows.schema == schema
    assert rows["question"].to_pylist() == [1, 1, 2, 2]
    assert rows["z_t"].to_pylist() == [b"x-b", b"x-b", b"x-c", b"x-c"]
    assert rows["token_ids"].to_pylist() == [[1], [2]] * 2
    known.of(range(2), schema)
    assert len(read) == 2, "a part that was just read is at hand"
    assert known.of(range(4, 5), schema).num_rows == 0


def test_of_queries_that_ask_the_same_one_has_the_rows(made: Store) -> None:
    made.fuse("x", ["abb", "c"])
    mine = made.ingest("mine", "b")
    asked = Contents.of(mine).of_questions(mine.read("queries")["query_id"])
    known = find_fusions(Fused.named(made.store, Identity("fuse", 1, {}, _of_fused("m"))), asked)
    np.testing.assert_array_equal(known.row, [2, 3])


# --- scores


def known_scores(made: Store, cosine: np.ndarray | None) -> list[float]:
    """Of the question "a" of the one image, which is number 0."""
    mine = made.ingest("mine", "a")
    asked = Contents.of(mine).of_questions(mine.read("queries")["query_id"])
    scored = Scored.named(made.store, Identity("rerank", 1, {}, {"ingest": "", "model": "m"}))
    zero, is_made_of = np.zeros(1, dtype=np.int64), cosine is not None
    pictures, at = Contents.of(mine).pictures, np.zeros(1) if cosine is None else cosine
    every, asked_for = (
        find_scores(scored, None, asked, pictures, cosines=is_made_of, wanted=wanted)
        for wanted in (None, keys_of(zero, cosine))
    )
    assert every.number.tolist() == [0]
    np.testing.assert_array_equal(asked_for.at(zero, at), every.at(zero, at))
    return [float(one) for one in every.at(zero, at)]


def test_a_score_of_another_cosine_does_not_hide_one_of_the_same(made: Store) -> None:
    for number, cosine in enumerate([0.25, 0.5, 0.75]):
        made.score(f"x{number}", cosine, number)
    for number, cosine in enumerate([0.25, 0.5, 0.75]):
        assert known_scores(made, np.array([cosine], dtype=np.float32)) == [number]
    (unknown,) = known_scores(made, np.array([0.3], dtype=np.float32))
    assert np.isnan(unknown)


def test_scores_of_no_cosine_are_known_whatever_stage_1_chose_them(made: Store) -> None:
    made.score("x", None, 2.5)
    assert known_scores(made, None) == [2.5]


# --- what an artifact was made of


def test_of_what_was_made_of_other_bytes_nothing_is_taken_over(made: Store) -> None:
    stale = made.score("x", 0.5, 1.0)
    assert [one.fingerprint for one in relatives_of(stale)] == [stale.fingerprint]
    shutil.rmtree(stale.made_of(Ingested).folder)
    made.ingest("x", "b")  # under the same name, with other bytes
    assert relatives_of(stale) == []


def relatives_of(scored: Scored) -> list[Scored]:
    other = Scored.named(scored.store, Identity("rerank", 1, {}, {"model": "m"}))
    return relatives(other, apart_from=["ingest", "retrieve"], kind=Scored)


def test_what_ids_stand_for_is_told_by_a_split_that_is_whole(
    made: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Where another one of the same images and texts is damaged."""
    made.fuse("x", ["a"])
    splits = [made.ingest("x", "a", gallery) for gallery in ("", "other")]
    mine = made.ingest("mine", "a")
    asked = Contents.of(mine).of_questions(mine.read("queries")["query_id"])
    fused = Fused.named(made.store, Identity("fuse", 1, {}, _of_fused("m")))
    for split in splits:
        (part,) = split.parts("images")
        there = part.path.read_bytes()
        part.path.write_bytes(b"damaged")
        assert find_fusions(fused, asked).question.tolist() == [0, 0]
        part.path.write_bytes(there)
    assert "nothing is taken over" in caplog.text
    for split in splits:
        split.parts("images")[0].path.write_bytes(b"damaged")
    assert find_fusions(fused, asked).question.tolist() == []
