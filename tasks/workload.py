"""What an ingested split asks of both stages, counted from its tables."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.forecast import Pairs, Pool, Workload, expect_pairs
from cir_core.metrics.protocols import PROTOCOLS
from cir_core.models.config import TextConfig
from storage.artifacts import Artifact
from tasks.models import tokenize


def count_workload(
    store: Path, ingested: str, text: TextConfig, *, k: int, candidates: str | None
) -> Workload:
    """Of the images and queries that can be used; pairs are counted from stage 1's ``candidates``
    where there are any, and expected otherwise. Raises PreflightError as ``tokenize``."""
    source = Artifact(store, "ingest", ingested)
    images, gallery, queries = (source.read(part) for part in ("images", "gallery", "queries"))
    usable = images["image_id"]
    queries = queries.filter(pc.is_in(queries["reference_id"], usable.combine_chunks()))
    gallery = gallery.filter(pc.is_in(gallery["image_id"], usable.combine_chunks()))
    asked = _texts(queries)
    token_ids = tokenize(text, asked["query_id"].to_pylist(), asked["text"].to_pylist())
    lengths = np.array([len(ids) for ids in token_ids], dtype=np.int64)
    protocol = PROTOCOLS[source.identity()["settings"]["protocol"]]
    sizes = _counts(gallery["category"])
    pools = [
        _pool(asked, lengths, category, size, k, removed=protocol.removes_reference)
        for category, size in sizes.items()
    ]
    pairs = expect_pairs(pools)
    if candidates is not None:
        pairs = _chosen(Artifact(store, "retrieve", candidates).read("candidates"), asked, lengths)
    return Workload(
        images=images.num_rows,
        queries=queries.num_rows,
        token_ids=token_ids,
        compared=sum(
            sizes.get(category, 0) * asking
            for category, asking in _counts(queries["category"]).items()
        ),
        pairs=pairs,
    )


def _texts(queries: pa.Table) -> pa.Table:
    """A row per text, with the number of images in its query's subset."""
    both = queries.select(["query_id", "category"]).append_column(
        "subset", pc.fill_null(pc.list_value_length(queries["subset"]), 0)
    )
    ways = [both.append_column("text", queries[name]) for name in ("text", "other_text")]
    table = pa.concat_tables(ways)
    return table.filter(pc.is_valid(table["text"]))


def _pool(
    asked: pa.Table, lengths: np.ndarray, category: str, size: int, k: int, *, removed: bool
) -> Pool:
    mine = pc.equal(asked["category"], category).to_numpy()
    subset = asked["subset"].to_numpy()[mine]
    return Pool(lengths[mine], min(k, max(0, size - removed)) + subset, size)


def _chosen(candidates: pa.Table, asked: pa.Table, lengths: np.ndarray) -> Pairs:
    """A query's candidates are scored once for each of its texts, those of both pools once."""
    distinct = candidates.group_by(["query_id", "image_id"]).aggregate([])
    images = distinct["image_id"].combine_chunks().dictionary_encode()
    numbered = pa.table({"query_id": distinct["query_id"], "image": images.indices})
    texts = pa.table({"query_id": asked["query_id"], "length": lengths})
    joined = numbered.join(texts, "query_id", join_type="inner")
    return Pairs(joined["length"].to_numpy(), joined["image"].to_numpy().astype(np.int64))


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    counted = pc.value_counts(column)
    names, counts = counted.field("values").to_pylist(), counted.field("counts").to_pylist()
    return dict(zip(names, counts, strict=True))
