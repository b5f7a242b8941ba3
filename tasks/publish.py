"""Every evaluated run of the store into ``cir.duckdb``."""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cir_core.errors import StoreCorrupt
from cir_core.metrics.galleries import SearchedGallery, together
from cir_core.metrics.protocols import PROTOCOLS
from cir_core.metrics.recall import AVERAGE
from storage.artifacts import Artifact, Made, finished
from storage.catalog import CATALOG_FILE, PublishedRun, published_runs, run_id_of, write_catalog
from tasks.gallery import usable_images

_log = logging.getLogger(__name__)


def publish(store: Path, evaluated: str) -> Made:
    """Bring ``<store>/cir.duckdb`` up to date with the store; nothing to do if the run is in it.

    The file is always built from Parquet, so a deleted or damaged one comes back whole. Older runs
    whose artifacts are gone are left out with a warning.
    """
    path = store / CATALOG_FILE
    if run_id_of(evaluated) in published_runs(path):
        return Made(evaluated, reused=True)
    runs = []
    for artifact in finished(store, "evaluate"):
        try:
            runs.append(_read_run(store, artifact))
        except StoreCorrupt as error:
            if artifact.fingerprint == evaluated:
                raise
            _log.warning("run %s is left out of the catalog: %s", artifact.fingerprint, error.what)
    write_catalog(path, runs)
    return Made(evaluated, reused=False)


def _read_run(store: Path, evaluated: Artifact) -> PublishedRun:
    identity = evaluated.identity()
    inputs = identity["inputs"]
    source = Artifact(store, "ingest", inputs["ingest"])
    retrieved = Artifact(store, "retrieve", inputs["retrieve"])
    ranked = Artifact(store, "rank", inputs["rank"])
    scored = Artifact(store, "rerank", ranked.identity()["inputs"]["rerank"])
    encoded = Artifact(store, "encode", retrieved.identity()["inputs"]["encode"])
    images = usable_images(source, encoded)
    fused = Artifact(store, "fuse", retrieved.identity()["inputs"]["fuse"])
    problems = pa.concat_tables(
        [source.read("problems"), encoded.read("problems"), fused.read("unfused")]
    )
    galleries = evaluated.read("galleries")
    everything = together(AVERAGE, [SearchedGallery(**row) for row in galleries.to_pylist()])
    queries = source.read("queries")
    settings = source.identity()["settings"]
    row = {
        "run_id": run_id_of(evaluated.fingerprint),
        "dataset": settings["dataset"],
        "split": settings["split"],
        "protocol": identity["settings"]["protocol"],
        "k": identity["settings"]["k"],
        # runs from before there was a choice do not say
        "vector_index": retrieved.identity()["settings"].get("index", "exact"),
        "precision": scored.identity()["settings"].get("precision", "fp32"),
        "images": images.num_rows,
        "queries": queries.num_rows,
        "problems": problems.num_rows,
        "gallery_images": everything.images,
        "gallery_missing": everything.missing,
        "gallery_sha256": everything.sha256,
        "stage1_sha256": encoded.identity()["inputs"]["model"],
        "stage2_sha256": scored.identity()["inputs"]["model"],
        "created_at": evaluated.created_at(),
    }
    return PublishedRun(
        row=row,
        tables={
            "gallery": source.read("gallery").join(images, "image_id"),
            "galleries": galleries,
            "queries": _with_target_rank(
                queries,
                retrieved.read("targets"),
                first_only=PROTOCOLS[settings["protocol"]].recall_on == "first",
            ),
            "target_ranks": retrieved.read("targets"),
            "candidates": retrieved.read("candidates"),
            "rankings": ranked.read("rankings"),
            "metrics": evaluated.read("metrics"),
            "problems": problems,
        },
    )


def _with_target_rank(queries: pa.Table, targets: pa.Table, *, first_only: bool) -> pa.Table:
    """Queries with the targets that count for recall, and stage 1's rank of the best of these.
    Arrow does not join tables that have list columns, so the rank is looked up."""
    counted = pc.list_slice(queries["targets"], 0, 1) if first_only else queries["targets"]
    labels = pa.table(
        {
            "query_id": queries["query_id"].take(pc.list_parent_indices(counted)),
            "image_id": pc.list_flatten(counted),
        }
    )
    targets = targets.join(labels, ["query_id", "image_id"], join_type="inner")
    best = targets.group_by("query_id").aggregate([("stage1_rank", "min")])
    place = pc.index_in(queries["query_id"], value_set=best["query_id"].combine_chunks())
    ranks: Any = best["stage1_rank_min"].take(place)
    return queries.append_column("recall_targets", counted).append_column(
        "target_stage1_rank", ranks
    )
