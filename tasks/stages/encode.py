"""Gallery embeddings: every image, once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cir_core.ordering import require_finite
from cir_core.planning.disk import FLOAT, Counts
from cir_core.planning.effort import Effort, Forecast
from cir_core.ports import Retriever, Widths
from storage import schemas
from storage.tables import vector_column
from storage.views import Encoded
from tasks.feed.image_tokens import Pictures, Seen
from tasks.progress import Counter
from tasks.shards import part_name, rows_in
from tasks.stages.earlier.embeddings import Embeddings, find_embeddings, joined
from tasks.stages.first_pass import OpenStage, PassStage
from tasks.stages.stage import ReadyPart


@dataclass(frozen=True)
class Encode(PassStage[Encoded]):
    """Parts embeddings-<shard>, and problems-<shard> with the images that cannot be decoded."""

    makes = Encoded

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        return forecast.first_pass()

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        return FLOAT * widths.embedding * counts.images

    def begin(self, model: Retriever, pictures: Pictures) -> OpenStage:
        view, ids = self.made, pictures.distinct.copies
        known = find_embeddings(view, pictures.distinct)
        wants = np.ones(len(ids), dtype=bool)
        wants[known.pictures] = False

        def for_shard(shard: str) -> _Embedding | None:
            parts = {kind: part_name(kind, shard) for kind in view.holds}
            lacks = {kind: part for kind, part in parts.items() if view.lacks(part)}
            rows = rows_in(shard)
            return _Embedding(view, model, ids, lacks, wants, known.of(rows)) if lacks else None

        return OpenStage(self.name, 0, wants, for_shard)


@dataclass(frozen=True)
class _Embedding:
    """Of a shard's pictures; ``ids`` are each picture's images, ``lacks`` the missing parts,
    ``wants`` the pictures without an embedding, ``known`` those that an earlier artifact has."""

    view: Encoded
    model: Retriever
    ids: list[list[str]]
    lacks: dict[str, str]
    wants: np.ndarray
    known: Embeddings
    embedded: list[Embeddings] = field(default_factory=list)
    problems: dict[int, list[dict[str, str]]] = field(default_factory=dict)
    asked = 0

    def look(self, seen: Seen, counter: Counter) -> Iterable[ReadyPart]:
        """What holds for a picture holds for each of its images."""
        for row, problem in seen.problems.items():
            if self.wants[row]:
                self.problems[row] = [problem.row(one) for one in self.ids[row]]
        rows = np.array(seen.rows, dtype=np.int64)
        wanted = self.wants[rows]
        if wanted.any():
            states = seen.tokens if wanted.all() else seen.tokens[torch.from_numpy(wanted)]
            names = [self.ids[row][0] for row in rows[wanted]]
            self.embedded.append(Embeddings(rows[wanted], _embed(self.model, states, names)))
        return ()

    def close(self) -> Iterator[ReadyPart]:
        problems = list(chain.from_iterable(self.problems[row] for row in sorted(self.problems)))
        tables = {
            "embeddings": self._table(),
            "problems": pa.Table.from_pylist(problems, schemas.PROBLEMS),
        }
        copied = {"embeddings": len(self.known.pictures)}
        for kind, part in self.lacks.items():
            yield ReadyPart(self.view, part, tables[kind], copied=copied.get(kind, 0))

    def _table(self) -> pa.Table:
        schema = schemas.of_width(schemas.EMBEDDINGS, self.model.config.embedding)
        every = joined([self.known, *self.embedded])
        if not len(every.pictures):
            return schema.empty_table()
        ids = [self.ids[row] for row in every.pictures.tolist()]
        each = every.vectors.repeat([len(copies) for copies in ids], axis=0)
        names = list(chain.from_iterable(ids))
        return pa.table([names, vector_column(each)], schema=schema)


@torch.inference_mode()
def _embed(model: Retriever, states: Tensor, names: Sequence[str]) -> np.ndarray:
    """Each picture is embedded once, so that its images tie whatever the batch. Raises
    NonFiniteError with the pictures' names."""
    vectors: np.ndarray = model.embed(states).float().cpu().numpy()
    require_finite(vectors, "gallery embeddings", names)
    return vectors
