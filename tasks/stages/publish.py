"""Every evaluated run of the store into ``cir.duckdb``."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cir_core.errors import StoreCorrupt
from cir_core.metrics.galleries import SearchedGallery, together
from cir_core.metrics.recall import AVERAGE
from cir_core.protocols import PROTOCOLS
from storage.artifacts import Artifact, Made, finished, left_out
from storage.catalog import (
    CATALOG_FILE,
    BrokenRuns,
    PublishedRun,
    catalog_product,
    run_id_of,
    write_catalog,
)
from storage.runs import read_as_ours, warn_of
from tasks.stages.gallery import usable_images

_log = logging.getLogger(__name__)


def publish(store: Path, evaluated: str) -> Made:
    """Bring ``<store>/cir.duckdb`` up to date with the store; nothing to do when it is what was
    written, and this run is in it as the store has it.

    The file is always built from Parquet, so a deleted or damaged one comes back whole. Other runs
    whose artifacts are gone, damaged, another version's, or were made of bytes that are not there
    any more, are left out with a warning. Raises StoreCorrupt when that is true of this run, or
    when its tables contradict each other.
    """
    path = store / CATALOG_FILE
    run_id, content = run_id_of(evaluated), Artifact(store, "evaluate", evaluated).content
    if catalog_product(path).holds(run_id, content):
        return Made(evaluated, reused=True)
    runs = dict(_readable_runs(store, evaluated))
    try:
        write_catalog(path, [run for run, _ in runs.values()])
    except BrokenRuns as error:
        if run_id in error.faults:
            raise
        _log.warning("left out of the catalog: %s", error)
        runs = {name: run for name, run in runs.items() if name not in error.faults}
        write_catalog(path, [run for run, _ in runs.values()])
    catalog_product(path).record({name: content for name, (_, content) in runs.items()})
    return Made(evaluated, reused=False)


def _readable_runs(store: Path, evaluated: str) -> Iterator[tuple[str, tuple[PublishedRun, str]]]:
    """Each run's id, its tables, and the content that they are read from."""
    Artifact(store, "evaluate", evaluated).require_current()
    warn_of(left_out(store, "evaluate"))
    for artifact in finished(store, "evaluate"):
        try:
            with read_as_ours(artifact):
                run = _read_run(store, artifact)
            yield run_id_of(artifact.fingerprint), (run, artifact.content)
        except StoreCorrupt as error:
            if artifact.fingerprint == evaluated:
                raise
            told = error.in_a_line
            _log.warning("run %s is left out of the catalog: %s", artifact.fingerprint, told)


def _read_run(store: Path, evaluated: Artifact) -> PublishedRun:
    evaluated.require_current()
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
        "vector_index": retrieved.identity()["settings"]["index"],
        "precision": scored.identity()["settings"]["precision"],
        "prior": scored.identity()["settings"]["prior"],
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
            "gallery_members": source.read("gallery").join(images, "image_id"),
            "galleries": galleries.join(source.read("categories"), "category"),
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
