"""What else a run's queries are asked: with one half of them, and what of a reference is left."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from cir_core.planning.disk import Counts
from cir_core.planning.effort import Effort, Forecast, together
from cir_core.ports import ReadsTexts, Retriever, Widths
from cir_core.types import Precision
from storage import schemas
from storage.views import (
    Embedded,
    Encoded,
    Evaluated,
    Fused,
    Ingested,
    Probed,
    Retrieved,
    Scored,
)
from tasks.feed.pictures import distinct_pictures
from tasks.machine import Machine
from tasks.models.opening import open_retriever
from tasks.stages.gallery import shards_by_gallery
from tasks.stages.probing import (
    mean_states,
    read_references,
    reference_ranks,
    reference_vectors,
    target_neighbours,
    target_ranks,
    text_vectors,
)
from tasks.stages.questions import read_questions
from tasks.stages.searching import Search, searches
from tasks.stages.stage import ReadyPart, Stage, Work
from tasks.stages.target_ranks import counted
from tasks.stages.vectors import Vectors, vectors_of

SEARCHES = 7
"""Ranks by six kinds of vectors, and neighbours of targets, each as long as a search at most."""


@dataclass(frozen=True)
class Probe(Stage[Probed]):
    """Parts probes and dropped. No picture is seen again.

    Targets are ranked as the protocol wants it (``composed_rank``: by the exact search, whatever
    index the run has), among the vectors that the run searched; where a file chose the candidates,
    among stage 1's. What of a reference is left is asked in stage 1's own space. ``dropped`` is
    None of a run without stage 2. Texts are read in the ``precision``, which the names of z_t tell.
    Raises as ``open_retriever``.
    """

    evaluated: Evaluated
    ingested: Ingested
    encoded: Encoded
    fused: Fused
    embedded: Embedded | None
    dropped: tuple[Retrieved, Scored] | None
    folder: Path
    model: str
    is_chosen_by_file: bool = False
    precision: Precision = "fp32"

    makes = Probed
    version = 1

    def settings(self) -> Mapping[str, Any]:
        return {}

    def inputs(self) -> Mapping[str, str]:
        views = [self.evaluated, self.ingested, self.encoded, self.fused, *(self.dropped or ())]
        views += [] if self.embedded is None else [self.embedded]
        return {**{view.stage: view.fingerprint for view in views}, "model": self.model}

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        work, speeds = forecast.work, forecast.speeds
        flops = forecast.stage1.asking_flops(work.lengths)  # at most: a text alone is less
        seconds = (
            speeds.open_stage1 + flops * speeds.fusion + SEARCHES * work.compared * speeds.search
        )
        asked = Effort(queries=work.queries, flops=flops, seconds=seconds)
        compared = Effort(flops=2 * SEARCHES * forecast.stage1.embedding * work.compared)
        return together([asked, compared])

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        """Nine columns of four bytes a query."""
        return 36 * counts.queries

    @contextmanager
    def open(self, machine: Machine) -> Iterator[Work]:
        model = open_retriever(self.folder, sha256=self.model, precision=self.precision)
        model = model.to(machine.device)
        yield partial(self._probe, model, machine.batch)

    def _probe(self, model: Retriever, batch: int, shards: Sequence[str]) -> Iterator[ReadyPart]:
        tables = [schemas.PROBES.empty_table(), *self._probes(model, batch)]
        probes, sample = pa.concat_tables(tables), self._sample()
        effort = Effort(queries=probes.num_rows)
        yield ReadyPart(self.made, "probes", probes, effort)
        yield ReadyPart(self.made, "dropped", sample, Effort(pairs=sample.num_rows))

    def _probes(self, model: Retriever, batch: int) -> Iterator[pa.Table]:
        """A gallery's queries after the other's."""
        queries = self.ingested.read("queries")
        pictures = distinct_pictures(self.ingested.read("images"))
        own_images, own_asked = vectors_of(self.encoded, self.fused, None)
        images, asked = own_images, own_asked
        if self.embedded is not None:
            images, asked = vectors_of(self.encoded, self.fused, self.embedded)
        texts = None
        if self.embedded is None and isinstance(model, ReadsTexts):
            texts = text_vectors(model, read_questions(model.config, queries, pictures), batch)
        halves = {
            "composed_rank": asked,
            "image_rank": reference_vectors(queries, images),
            "text_rank": texts,
        }
        read = partial(read_references, queries=queries, images=own_images, pictures=pictures)
        states = mean_states(self.fused)
        wholes = {
            "reference_rank": own_asked,
            "reference_rank_mapped": read(own_asked),
            "reference_rank_z_t": None if states is None else read(states),
        }
        for here, own in zip(
            self._searches(images, asked),
            self._searches(own_images, own_asked.among(asked.ids)),
            strict=True,
        ):
            removed = here.removed(removes_reference=self.ingested.protocol.removes_reference)
            ids, cosines = target_neighbours(self._counted(own), own)
            yield pa.table(
                [
                    here.queries["query_id"],
                    *(target_ranks(self._counted(here), one, removed) for one in halves.values()),
                    *(reference_ranks(own, one, own_images, pictures) for one in wholes.values()),
                    ids,
                    cosines,
                ],
                schema=schemas.PROBES,
            )

    def _searches(self, images: Vectors, asked: Vectors) -> Iterator[Search]:
        shards = shards_by_gallery(self.ingested).values()
        return searches(self.ingested, images, asked, [*shards])

    def _counted(self, search: Search) -> Search:
        """With the targets that count for recall."""
        return replace(search, queries=counted(self.ingested.protocol, search.queries))

    def _sample(self) -> pa.Table:
        """Both stages' scores of what was dropped."""
        if self.dropped is None:
            return schemas.DROPPED_PAIRS.empty_table()
        chosen, scored = self.dropped
        keys = ["query_id", "image_id"]
        cosines = chosen.read("candidates", [*keys, "stage1_score"])
        if self.is_chosen_by_file:
            nothing = pa.nulls(len(cosines), pa.float32())
            cosines = cosines.set_column(2, "stage1_score", nothing)
        joined = cosines.join(scored.read("scores"), keys, join_type="inner").sort_by(
            [(key, "ascending") for key in keys]
        )
        return joined.select(schemas.DROPPED_PAIRS.names).cast(schemas.DROPPED_PAIRS)
