"""Gallery embeddings: every image, once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

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
from tasks.shards import part_name
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

        def for_shard(shard: str) -> _Embedding | None:
            parts = {kind: part_name(kind, shard) for kind in view.holds}
            lacks = {kind: part for kind, part in parts.items() if view.lacks(part)}
            return _Embedding(view, model, ids, lacks) if lacks else None

        return OpenStage(self.name, 0, for_shard)


@dataclass(frozen=True)
class _Embedding:
    """Of a shard's pictures; ``ids`` are each picture's images, ``lacks`` the missing parts."""

    view: Encoded
    model: Retriever
    ids: list[list[str]]
    lacks: dict[str, str]
    gallery: list[pa.Table] = field(default_factory=list)
    problems: list[dict[str, str]] = field(default_factory=list)
    asked = 0

    def look(self, seen: Seen, counter: Counter) -> Iterable[ReadyPart]:
        """What holds for a picture holds for each of its images."""
        for row, problem in seen.problems.items():
            self.problems.extend(problem.row(one) for one in self.ids[row])
        if seen.rows:
            ids = [self.ids[row] for row in seen.rows]
            self.gallery.append(_embed(self.model, ids, seen.tokens))
        return ()

    def close(self) -> Iterator[ReadyPart]:
        schema = schemas.of_width(schemas.EMBEDDINGS, self.model.config.embedding)
        tables = {
            "embeddings": pa.concat_tables([schema.empty_table(), *self.gallery]),
            "problems": pa.Table.from_pylist(self.problems, schemas.PROBLEMS),
        }
        for kind, part in self.lacks.items():
            yield ReadyPart(self.view, part, tables[kind])


@torch.inference_mode()
def _embed(model: Retriever, ids: list[list[str]], states: Tensor) -> pa.Table:
    """Each picture is embedded once, so that its images tie whatever the batch."""
    vectors = model.embed(states).float().cpu().numpy()
    require_finite(vectors, "gallery embeddings")
    each = vectors.repeat([len(copies) for copies in ids], axis=0)
    names = list(chain.from_iterable(ids))
    schema = schemas.of_width(schemas.EMBEDDINGS, vectors.shape[1])
    return pa.table([names, vector_column(each)], schema=schema)
