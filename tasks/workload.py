"""What an ingested split asks of both stages, counted from its tables."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.forecast import Expected, Pool, Workload, expect, known
from cir_core.models.config import TextConfig
from cir_core.rerank.cost import Load
from cir_core.retrieval.candidates import NONE_REMOVED
from storage.artifacts import Artifact
from storage.tables import rows_of
from tasks.gallery import usable_images
from tasks.models import tokenize
from tasks.protocol import protocol_of


def count_workload(
    store: Path,
    ingested: str,
    text: TextConfig,
    *,
    k: int,
    encoded: str | None,
    candidates: str | None,
) -> Workload:
    """Of the images and queries that can be used: could be decoded, too, where ``encoded`` tells.
    Pairs are counted from stage 1's ``candidates`` where it has chosen, and expected otherwise.
    Raises PreflightError as ``tokenize``."""
    source = Artifact(store, "ingest", ingested)
    removes_reference = protocol_of(source).removes_reference
    images = source.read("images")
    usable = images
    if encoded is not None:
        usable = usable_images(source, Artifact(store, "encode", encoded))
    texts = _texts(source.read("queries"), text)
    texts = texts.filter(pc.is_in(texts["reference_id"], usable["image_id"].combine_chunks()))
    gallery = source.read("gallery").join(
        usable.select(["image_id"]), "image_id", join_type="inner"
    )
    rows = rows_of(gallery["image_id"], images["image_id"])
    firsts = texts["is_first"].to_numpy()
    pools, compared, candidates_expected = [], 0, 0
    for category in source.identity()["settings"]["categories"]:
        here = rows[pc.equal(gallery["category"], category).to_numpy()]
        chosen = pc.equal(texts["category"], category).to_numpy()
        pool = _pool(texts.filter(chosen), here, images["image_id"], k, removes_reference)
        first = firsts[chosen]
        compared += int(first.sum()) * len(here)
        candidates_expected += int(pool.candidates[first].sum() + first[pool.asking].sum())
        pools.append(pool)
    expected = expect(pools, images.num_rows)
    if candidates is not None:
        table = Artifact(store, "retrieve", candidates).read("candidates")
        candidates_expected, expected = table.num_rows, _chosen(table, texts, images["image_id"])
    return Workload(
        images=images.num_rows,
        queries=int(firsts.sum()),
        galleries=len(pools),
        token_ids=texts["token_ids"].to_pylist(),
        references=rows_of(texts["reference_id"], images["image_id"]),
        compared=compared,
        candidates=candidates_expected,
        expected=expected,
    )


def _texts(queries: pa.Table, config: TextConfig) -> pa.Table:
    """A row per text; the other text of a query is not its first."""
    columns = ["query_id", "category", "reference_id", "subset"]
    ways = [
        queries.select(columns)
        .append_column("text", queries[name])
        .append_column("is_first", pa.array(np.full(len(queries), name == "text")))
        for name in ("text", "other_text")
    ]
    table = pa.concat_tables(ways)
    table = table.filter(pc.is_valid(table["text"]))
    ids = tokenize(config, table["query_id"].to_pylist(), table["text"].to_pylist())
    return table.append_column("token_ids", pa.array(ids, pa.list_(pa.int64())))


def _pool(
    texts: pa.Table,
    gallery: np.ndarray,
    images: pa.ChunkedArray,
    k: int,
    removes_reference: bool,
) -> Pool:
    """What the texts of one gallery ask of it; members of subsets that are not in it are not asked
    for."""
    references = rows_of(texts["reference_id"], images)
    removed = np.isin(references, gallery) & removes_reference
    subsets = texts["subset"].combine_chunks()
    asking = pc.list_parent_indices(subsets).to_numpy()
    members = rows_of(pc.list_flatten(subsets), images)
    inside = np.isin(members, gallery)
    return Pool(
        gallery=gallery,
        lengths=pc.list_value_length(texts["token_ids"]).to_numpy().astype(np.int64),
        removed=np.where(removed, references, NONE_REMOVED),
        candidates=np.minimum(k, np.maximum(0, len(gallery) - removed)),
        asking=asking[inside],
        members=members[inside],
    )


def _chosen(candidates: pa.Table, texts: pa.Table, images: pa.ChunkedArray) -> Expected:
    """A query's candidates are scored once for each of its texts, those of both pools once."""
    distinct = candidates.group_by(["query_id", "image_id"]).aggregate([])
    lengths = pc.list_value_length(texts["token_ids"])
    asked = pa.table({"query_id": texts["query_id"], "length": lengths})
    pairs = distinct.join(asked, "query_id", join_type="inner")
    rows = rows_of(pairs["image_id"], images)
    return known(Load.of(pairs["length"].to_numpy().astype(np.int64), rows, images=len(images)))
