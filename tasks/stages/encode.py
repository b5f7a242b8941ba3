"""One pass over the images: gallery embeddings, and z_t of every query whose reference it meets.

Encoding and fusing share the pass because the image tokens that a query's fusion needs are in hand
when its reference is encoded; they are far too large to keep.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from cir_core.layers.preprocess import TARGET_RATIO
from cir_core.ordering import require_finite
from cir_core.retrievers.blip.fusion import Stage1Model
from cir_core.types import Keeping
from storage import schemas
from storage.artifacts import Artifact, Identity, Made
from storage.tables import vector_column
from tasks.feed.image_tokens import Pictures, Seen
from tasks.feed.token_cache import see_images
from tasks.models.opening import open_stage1
from tasks.progress import Counter, count
from tasks.shards import Part, Shard, is_whole, parts, shard_name, shards
from tasks.stages.fuse import Fusion, fuse_seen
from tasks.stages.questions import Questions, read_questions

VERSION = 5
SHARD = 256
"""Pictures per part: the unit of commit and of loss when a run is killed."""

PART = 2**11
"""Questions per part of ``queries`` at most, where many are asked of few pictures: z_t of as many
texts as Fashion-IQ's is 86 MiB at full size, and a minute's work of two cores."""

GALLERY_PARTS, QUERY_PARTS = ("embeddings", "problems"), ("unfused",)
"""Kinds of parts of which each shard has one; ``queries`` may have several."""


@dataclass(frozen=True)
class Encoded:
    """``gallery`` holds embeddings of all images, ``queries`` embeddings and z_t."""

    gallery: Made
    queries: Made


def encode(
    store: Path,
    data_root: Path,
    ingested: str,
    pair: str,
    stage1: Path,
    *,
    device: str,
    batch: int,
    workers: int,
    tokens: Keeping,
) -> Encoded:
    """The artifacts ``encode`` (parts embeddings-*, problems-*) and ``fuse`` (parts queries-*, and
    unfused-* for the queries whose reference cannot be decoded, or whose text is too long).

    There is one part of a kind per gallery shard, and of ``queries`` several where the shard has
    more than ``PART`` questions. Parts that an interrupted run has committed are kept. Raises as
    ``open_stage1`` for a model other than the one that was checked, and as ``see_images``.
    """
    source = Artifact(store, "ingest", ingested)
    embed_identity, fuse_identity = identities(store, ingested, pair)
    embedded, fused = Artifact.of(store, embed_identity), Artifact.of(store, fuse_identity)
    gallery_done, queries_done = embedded.is_done, fused.is_done
    pictures = Pictures(store, data_root, ingested, batch, workers)
    if not (gallery_done and queries_done):
        model = open_stage1(stage1, sha256=embed_identity.inputs["model"]).to(device)
        questions = read_questions(model.config.text, source.read("queries"), pictures.distinct)
        missing = None if gallery_done else embedded, None if queries_done else fused
        every = [
            _open_shard(rows, questions, *missing) for rows in shards(len(pictures.distinct), SHARD)
        ]
        _encode_shards(pictures, questions, every, fused, model, tokens)
        if not gallery_done:
            embedded.finish(embed_identity, _names(every, GALLERY_PARTS))
        if not queries_done:
            names = [_name(part) for shard in every for part in shard.asked.parts]
            fused.finish(fuse_identity, [*names, *_names(every, QUERY_PARTS)])
    return Encoded(
        gallery=Made(embed_identity.fingerprint, gallery_done),
        queries=Made(fuse_identity.fingerprint, queries_done),
    )


def identities(store: Path, ingested: str, pair: str) -> tuple[Identity, Identity]:
    """What names the artifacts ``encode`` and ``fuse``."""
    model = Artifact(store, "pair", pair).identity()["inputs"]["stage1"]
    source = Artifact(store, "ingest", ingested).identity()["inputs"]
    settings, inputs = {"target_ratio": TARGET_RATIO}, {"images": source["images"], "model": model}
    return (
        Identity("encode", VERSION, settings, inputs),
        Identity("fuse", VERSION, settings, inputs | {"texts": source["texts"]}),
    )


def shards_left(pictures: int, embedded: Artifact | None, fused: Artifact | None) -> list[range]:
    """The rows that have yet to be seen for the artifacts that are not None, and not whole."""
    committed = fused.committed("queries") if fused else set()
    return [
        rows
        for rows in shards(pictures, SHARD)
        if _missing_parts(rows, embedded, fused) or (fused and not is_whole(committed, rows))
    ]


class _Shard(NamedTuple):
    """Of a shard of pictures the kinds of parts that it lacks, and where they go; and the parts of
    the questions whose references they are."""

    rows: range
    lacks: dict[str, Artifact]
    asked: Shard


def _open_shard(
    rows: range, questions: Questions, embedded: Artifact | None, fused: Artifact | None
) -> _Shard:
    """An artifact that is None is whole."""
    items = questions.of_pictures(rows.start, rows.stop - 1)
    every = parts(rows, len(items), PART)
    missing = [part for part in every if fused and not fused.has_part(_name(part))]
    return _Shard(rows, _missing_parts(rows, embedded, fused), Shard(items, every, missing))


def _missing_parts(
    rows: range, embedded: Artifact | None, fused: Artifact | None
) -> dict[str, Artifact]:
    """The kinds of which a shard has one part, and lacks it."""
    owners = dict.fromkeys(GALLERY_PARTS, embedded) | dict.fromkeys(QUERY_PARTS, fused)
    return {
        kind: artifact
        for kind, artifact in owners.items()
        if artifact is not None and not artifact.has_part(f"{kind}-{shard_name(rows)}")
    }


def _name(part: Part) -> str:
    return f"queries-{part.name}"


def _names(every: Sequence[_Shard], kinds: Iterable[str]) -> list[str]:
    return [f"{kind}-{shard_name(shard.rows)}" for kind in kinds for shard in every]


def _encode_shards(
    pictures: Pictures,
    questions: Questions,
    every: Sequence[_Shard],
    fused: Artifact,
    model: Stage1Model,
    tokens: Keeping,
) -> None:
    """Write the parts that are missing, each as soon as it is complete."""
    ids = pictures.distinct.copies
    left = [shard for shard in every if shard.lacks or shard.asked.missing]
    plans = [pictures.plan(shard.rows) for shard in left]
    total = len(ids) + len(questions)
    to_see = sum(len(shard.rows) for shard in left)
    to_fuse = sum(len(part.items) for shard in left for part in shard.asked.missing)
    with (
        see_images(pictures, model.vision, list(chain.from_iterable(plans)), tokens=tokens) as seen,
        count(
            "encoding", total, "pictures and questions", done=total - to_see - to_fuse
        ) as counter,
    ):
        for shard, plan in zip(left, plans, strict=True):
            found = _Found(model, ids, questions)
            fusions = _fuse_shard(found, islice(seen, len(plan)), shard, pictures.batch, counter)
            for part in shard.asked.missing:
                rows = chain.from_iterable(islice(fusions, len(part.items)))
                fused.write_part(_name(part), found.queries(rows))
            deque(fusions, maxlen=0)  # pictures behind the last such question's
            tables = found.tables()
            for kind, artifact in shard.lacks.items():
                artifact.write_part(f"{kind}-{shard_name(shard.rows)}", tables[kind])


def _fuse_shard(
    found: "_Found", images: Iterable[Seen], shard: _Shard, batch: int, counter: Counter
) -> Iterator[list[Fusion]]:
    """The rows of each missing question, in order; all else is noted on the way."""
    for seen in images:
        found.note(seen)
        counter.update(len(seen.rows) + len(seen.problems))
        for fusions in fuse_seen(found.model, seen, found.questions, shard.asked, batch):
            counter.update(1)
            yield fusions


@dataclass(frozen=True)
class _Found:
    """What was found of a shard's pictures; ``ids`` are each picture's images."""

    model: Stage1Model
    ids: list[list[str]]
    questions: Questions
    gallery: list[pa.Table] = field(default_factory=list)
    problems: list[dict[str, str]] = field(default_factory=list)
    unfused: list[dict[str, str]] = field(default_factory=list)

    def note(self, seen: Seen) -> None:
        """What holds for a picture holds for each of its images."""
        for row in sorted([*seen.rows, *seen.problems]):
            self.unfused.extend(self.questions.too_long.get(row, []))
        for row, problem in seen.problems.items():
            self.problems.extend(problem.row(one) for one in self.ids[row])
            self.unfused.extend(
                _unfused(query, self.ids[row][0])
                for question in self.questions.of_pictures(row, row)
                for query in self.questions.query_ids[question]
            )
        if seen.rows:
            self.gallery.append(
                _embed(self.model, [self.ids[row] for row in seen.rows], seen.tokens)
            )

    def queries(self, fusions: Iterable[Fusion]) -> pa.Table:
        """What holds for a question holds for each of its queries."""
        rows = [
            {"query_id": query, **fusion}
            for fusion in fusions
            for query in self.questions.query_ids[fusion["question"]]
        ]
        return pa.Table.from_pylist(rows, schemas.fused_queries(self.model.config.embedding))

    def tables(self) -> dict[str, pa.Table]:
        """By kind of part."""
        schema = schemas.embeddings(self.model.config.embedding)
        return {
            "embeddings": pa.concat_tables(self.gallery) if self.gallery else schema.empty_table(),
            "problems": pa.Table.from_pylist(self.problems, schemas.PROBLEMS),
            "unfused": pa.Table.from_pylist(self.unfused, schemas.PROBLEMS),
        }


def _unfused(query_id: str, reference: str) -> dict[str, str]:
    return {
        "item": query_id,
        "kind": "reference_unusable",
        "message": f"{reference} cannot be decoded",
    }


@torch.inference_mode()
def _embed(model: Stage1Model, ids: list[list[str]], image_tokens: Tensor) -> pa.Table:
    """Each picture is embedded once, so that its images tie whatever the batch."""
    vectors = model.embed_images(image_tokens).float().cpu().numpy()
    require_finite(vectors, "gallery embeddings")
    each = vectors.repeat([len(copies) for copies in ids], axis=0)
    names = list(chain.from_iterable(ids))
    return pa.table([names, vector_column(each)], schema=schemas.embeddings(vectors.shape[1]))
