"""z_t and the embedding of every question whose reference has been seen."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cir_core.errors import UsageError
from cir_core.ordering import require_finite
from cir_core.planning.disk import FLOAT, Counts
from cir_core.planning.effort import Effort, Forecast, together
from cir_core.ports import Retriever, RetrieverConfig, Weighed, Weighing, Widths
from storage import schemas, z_t
from storage.tables import rows_taken
from storage.views import Fused
from tasks.feed.image_tokens import Pictures, Seen
from tasks.progress import Counter
from tasks.shards import Part, Shard, part_name, parts, rows_in
from tasks.stages.contents import Contents
from tasks.stages.earlier.fusions import Fusions, find_fusions
from tasks.stages.first_pass import OpenStage, PassStage
from tasks.stages.questions import Questions, read_questions
from tasks.stages.stage import ReadyPart

PART = 2**11
"""Questions per part of ``queries`` at most, where many are asked of few pictures: z_t of as many
texts as Fashion-IQ's is 86 MiB at full size, and a minute's work of two cores."""

AT_ONCE = 2**11
"""Questions whose texts are sorted by length together, for less padding; one part's."""

Fusion = dict[str, Any]
"""A row of the table ``queries``, but for the query."""


@dataclass(frozen=True)
class Fuse(PassStage[Fused]):
    """Parts queries-<shard>, or several where a shard has more than ``PART`` questions; and
    unfused-<shard> for the queries whose reference cannot be decoded, or whose text is too long.

    ``text_weight`` is the text's share of a query where it is not the model's own (``weight_of``).
    """

    text_weight: float | None = None

    makes = Fused

    def settings(self) -> Mapping[str, Any]:
        weight = {} if self.text_weight is None else {"text_weight": self.text_weight}
        precision = {} if self.precision == "fp32" else {"precision": self.precision}
        return {**super().settings(), **weight, **precision}

    def inputs(self) -> Mapping[str, str]:
        return {**super().inputs(), "texts": self.ingested.digest("texts")}

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        """Where gallery embeddings are there, the pass is for the queries alone."""
        fusing = forecast.fusing()
        if "encode" in forecast.left.stages:
            return fusing
        return together([forecast.first_pass(), fusing])

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        return FLOAT * (widths.embedding * counts.queries + widths.z_t * counts.tokens)

    def begin(self, model: Retriever, pictures: Pictures) -> OpenStage:
        view, queries = self.made, self.ingested.read("queries")
        if self.text_weight is not None and isinstance(model, Weighed):
            model = model.weighed(self.text_weight)
        questions = read_questions(model.config, queries, pictures.distinct)
        asked_before = Contents.of(self.ingested).of_questions(questions.first_queries)
        known = find_fusions(view, asked_before)
        wants = np.zeros(len(pictures.distinct), dtype=bool)
        wants[questions.picture[known.left(range(len(questions)))]] = True

        def for_shard(shard: str) -> _Fusing | None:
            rows = rows_in(shard)
            items = questions.of_pictures(rows.start, rows.stop - 1)
            every = parts(shard, len(items), PART)
            missing = [part for part in every if view.lacks(_name(part))]
            unfused = part_name("unfused", shard)
            if not missing and not view.lacks(unfused):
                return None
            asked = Shard(items, every, missing)
            return _Fusing(
                view, model, pictures, questions, known, asked, rows, unfused, [*missing]
            )

        return OpenStage(self.name, len(questions), wants, for_shard)


def weight_of(config: RetrieverConfig, asked: float | None, folder: str) -> float | None:
    """What a run's ``--text-weight`` changes: nothing where it is the model's own already. Raises
    UsageError where there is nothing to weigh."""
    if asked is None:
        return None
    if not isinstance(config, Weighing):
        raise UsageError(
            "this stage 1 does not weigh image and text, and --text-weight would be without effect",
            item=folder,
            cause=f"a model of kind {config.kind!r} makes one embedding of both",
            remedy="leave --text-weight out, or use a stage 1 of kind clip or siglip",
        )
    return None if asked == config.text_weight else asked


def _name(part: Part) -> str:
    return part_name("queries", part.name)


@dataclass(frozen=True)
class _Fusing:
    """Of the questions of a shard's pictures, in ``rows``: the rows of those that are not in a part
    yet, by question, and the parts that are still to come."""

    view: Fused
    model: Retriever
    pictures: Pictures
    questions: Questions
    known: Fusions
    shard: Shard
    rows: range
    unfused_part: str
    coming: list[Part]
    fused: dict[int, list[Fusion]] = field(default_factory=dict)
    unusable: dict[int, list[dict[str, str]]] = field(default_factory=dict)

    @property
    def asked(self) -> int:
        return sum(len(self.known.left(self.shard.of(part))) for part in self.shard.missing)

    def look(self, seen: Seen, counter: Counter) -> Iterator[ReadyPart]:
        self._note(seen)
        batch = self.pictures.machine.batch
        asked = self.questions, self.known, self.shard
        for question, fusions in fuse_seen(self.model, seen, *asked, batch):
            counter.update(1)
            self.fused[question] = fusions
            yield from self._complete_parts()

    def close(self) -> Iterator[ReadyPart]:
        """The parts of no question, and of those that are known."""
        yield from self._complete_parts()
        if self.view.lacks(self.unfused_part):
            too_long = self.questions.too_long
            rows = sorted(row for row in {*too_long, *self.unusable} if row in self.rows)
            unfused = [[*too_long.get(row, []), *self.unusable.get(row, [])] for row in rows]
            every = pa.Table.from_pylist(list(chain.from_iterable(unfused)), schemas.PROBLEMS)
            yield ReadyPart(self.view, self.unfused_part, every)

    def _complete_parts(self) -> Iterator[ReadyPart]:
        """Questions are fused in their order, so that the last one of a part completes it."""
        while self.coming:
            items = self.shard.of(self.coming[0])
            left: list[int] = self.known.left(items).tolist()
            if left and left[-1] not in self.fused:
                return
            own = [self.fused.pop(question) for question in left]
            yield self._part(self.coming.pop(0), items, list(chain.from_iterable(own)))

    def _part(self, part: Part, items: range, fusions: list[Fusion]) -> ReadyPart:
        """What holds for a question holds for each of its queries."""
        schema = schemas.of_width(schemas.FUSED_QUERIES, self.model.config.embedding)
        of_question = pa.schema([one for one in schema if one.name != "query_id"])
        known = self.known.of(items, of_question)
        rows = pa.concat_tables([known, pa.Table.from_pylist(fusions, of_question)])
        order = np.argsort(rows["question"].to_numpy(), kind="stable")
        ids = [self.questions.query_ids[one] for one in rows["question"].to_numpy()[order].tolist()]
        table = rows_taken(rows, order.repeat([len(some) for some in ids]), at_once=PART)
        names = pa.array(list(chain.from_iterable(ids)), pa.string())
        table = table.add_column(0, "query_id", names).cast(schema)
        copied = self._queries(known["question"].to_pylist())
        return ReadyPart(self.view, _name(part), table, self._effort(fusions), copied=copied)

    def _effort(self, fusions: list[Fusion]) -> Effort:
        """Of some questions' rows; their pictures were seen for all that is made of them."""
        lengths = np.array([one["length"] for one in fusions], dtype=np.int64)
        queries = self._queries(one["question"] for one in fusions)
        return Effort(queries=queries, flops=int(self.model.config.asking_flops(lengths)))

    def _queries(self, questions: Iterable[int]) -> int:
        """How many ask these questions."""
        return sum(len(self.questions.query_ids[one]) for one in set(questions))

    def _note(self, seen: Seen) -> None:
        """The queries whose references cannot be seen."""
        for row in seen.problems:
            reference = self.pictures.distinct.copies[row][0]
            self.unusable[row] = [
                _unfused(query, reference)
                for question in self.questions.of_pictures(row, row)
                for query in self.questions.query_ids[question]
            ]


def _unfused(query_id: str, reference: str) -> dict[str, str]:
    return {
        "item": query_id,
        "kind": "reference_unusable",
        "message": f"{reference} cannot be decoded",
    }


class _Asked(NamedTuple):
    """A text of a question; ``place`` is its reference's in the batch of images."""

    place: int
    question: int
    token_ids: list[int]


@torch.inference_mode()
def fuse_seen(
    model: Retriever,
    seen: Seen,
    questions: Questions,
    known: Fusions,
    shard: Shard,
    batch: int,
) -> Iterator[tuple[int, list[Fusion]]]:
    """Each missing question of the batch of images that is not known, in the questions' order, with
    its rows: one for each of its texts, none where its reference could not be decoded.

    What is fused together, ``batch`` texts at most, depends on the images and on what is known
    alone, not on the parts, since together with other texts a number may have other last bits:
    where some of it is missing, all is fused again.
    """
    rows = [*seen.rows, *seen.problems]
    between = known.left(questions.of_pictures(min(rows), max(rows)))
    here = between[np.isin(questions.picture[between], rows)]
    for start in range(0, len(here), AT_ONCE):
        some = here[start : start + AT_ONCE]
        missing = shard.is_missing(some)
        if missing.any():
            fused = fuse_each(model, seen, questions, some, batch)
            yield from ((one, fused[one]) for one in some[missing].tolist())


def fuse_each(
    model: Retriever, seen: Seen, questions: Questions, some: np.ndarray, batch: int
) -> dict[int, list[Fusion]]:
    """By question; all rows of a question are here, since they have the same reference."""
    place = {row: number for number, row in enumerate(seen.rows)}
    asked = [
        _Asked(place[reference], question, token_ids)
        for question, reference in zip(some.tolist(), questions.picture[some].tolist(), strict=True)
        if reference in place
        for token_ids in questions.texts[question]
    ]
    asked.sort(key=lambda one: len(one.token_ids))
    fused: dict[int, list[Fusion]] = defaultdict(list)
    for start in range(0, len(asked), batch):
        for fusion in _fuse(model, seen.tokens, asked[start : start + batch]):
            fused[fusion["question"]].append(fusion)
    return {question: _with_one_embedding(fused[question]) for question in some.tolist()}


def _with_one_embedding(ways: list[Fusion]) -> list[Fusion]:
    """A question that is asked both ways has one embedding: their mean, of unit length."""
    if len(ways) <= 1:
        return ways
    mean = np.mean([one["embedding"] for one in ways], axis=0)
    return [one | {"embedding": mean / np.linalg.norm(mean)} for one in ways]


def _fuse(model: Retriever, states: Tensor, asked: list[_Asked]) -> list[Fusion]:
    answers = model.ask([one.token_ids for one in asked], states[[one.place for one in asked]])
    vectors = answers.embeddings.float().cpu().numpy()
    require_finite(vectors, "query embeddings")
    none = np.empty((len(asked), 0, 0))
    hidden = none if answers.z_t is None else answers.z_t.float().cpu().numpy()
    return [
        {
            "question": one.question,
            "embedding": vector,
            "token_ids": one.token_ids,
            "length": len(one.token_ids),
            "z_t": z_t.pack(state[: len(one.token_ids)]),
        }
        for one, vector, state in zip(asked, vectors, hidden, strict=True)
    ]
