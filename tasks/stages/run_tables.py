"""A finished run as the catalog shows it: tables, read from the artifacts that it is made of."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cir_core.metrics.galleries import SearchedGallery, together
from cir_core.metrics.recall import AVERAGE
from storage import schemas
from storage.catalog import PublishedRun
from storage.runs import probes_of
from storage.views import Evaluated, Ranked, Retrieved, Thresholds
from tasks.stages.costs import cost_table, lineage
from tasks.stages.gallery import usable_images

OF_STAGE2 = (
    *("precision", "prior", "stage2_sha256", "reads_z_t"),
    *("late_fusion", "late_fusion_scores", "late_fusion_fitted_on"),
)
"""Columns of the table ``runs`` that are NULL where nothing was re-ranked."""

OF_ADAPTIVE_K = "coverage_asked", "k_calibrated_by", "k_guarantee"
"""Columns of the table ``runs`` that are NULL where K is a number."""


def read_run(evaluated: Evaluated) -> PublishedRun:
    """Raises StoreCorrupt where it, or what it is made of, is damaged or was made of other bytes
    than are there now."""
    evaluated.require_current()
    source, retrieved = evaluated.ingested, evaluated.candidates
    encoded, ranked = retrieved.encoded, evaluated.ranked if evaluated.is_reranked else None
    images = usable_images(source, encoded)
    problems = pa.concat_tables(
        [source.read("problems"), encoded.read("problems"), retrieved.fused.read("unfused")]
    )
    galleries = evaluated.read("galleries")
    everything = together(AVERAGE, [SearchedGallery(**row) for row in galleries.to_pylist()])
    queries = source.read("queries")
    label = evaluated.label
    row = {
        "run_id": evaluated.run_id,
        "name": label.name,
        "tags": label.tags or None,
        "dataset": source.setting("dataset"),
        "split": source.setting("split"),
        "protocol": evaluated.setting("protocol"),
        "k": evaluated.deepest,
        **_of_adaptive_k(retrieved.thresholds),
        "first_stage": retrieved.first_stage,
        "first_stage_sha256": retrieved.first_stage_sha256,
        "vector_index": retrieved.identity()["settings"].get("index"),
        "encoder_precision": encoded.encoder_precision,
        "stage1_precision": retrieved.fused.precision,
        "images": images.num_rows,
        "queries": queries.num_rows,
        "problems": problems.num_rows,
        "gallery_images": everything.images,
        "gallery_missing": everything.missing,
        "gallery_sha256": everything.sha256,
        "stage1_sha256": encoded.digest("model"),
        "created_at": evaluated.created_at(),
        "text_weight": retrieved.fused.text_weight,
        **_of_stage2(ranked),
    }
    return PublishedRun(
        row=row,
        tables={
            "gallery_members": source.read("gallery").join(images, "image_id"),
            "artifacts": _artifacts(evaluated),
            "galleries": galleries.join(source.read("categories"), "category"),
            "queries": _with_target_rank(
                queries,
                retrieved.read("targets"),
                first_only=source.protocol.recall_on == "first",
            ),
            "target_ranks": retrieved.read("targets"),
            "candidates": retrieved.read("candidates"),
            "rankings": (
                schemas.RANKINGS.empty_table() if ranked is None else ranked.read("rankings")
            ),
            "metrics": evaluated.read("metrics"),
            "costs": cost_table(evaluated),
            "late_fusion_curve": _curve(ranked),
            **_adaptive_k(retrieved),
            "problems": problems,
            **_probes(evaluated),
        },
    )


def _artifacts(evaluated: Evaluated) -> pa.Table:
    rows = [
        {"stage": one.stage, "folder": f"artifacts/{one.stage}/{one.fingerprint}"}
        for one in lineage(evaluated)
    ]
    return pa.Table.from_pylist(rows)


def _probes(evaluated: Evaluated) -> dict[str, pa.Table]:
    """Of a run that was analysed."""
    probed = probes_of(evaluated)
    if probed is None:
        return {}
    return {"probes": probed.read("probes"), "dropped_pairs": probed.read("dropped")}


def _of_adaptive_k(thresholds: Thresholds | None) -> dict[str, Any]:
    """Its columns of the table ``runs``."""
    if thresholds is None:
        return dict.fromkeys(OF_ADAPTIVE_K)
    return {
        "coverage_asked": thresholds.setting("coverage"),
        "k_calibrated_by": thresholds.calibrated_by,
        "k_guarantee": thresholds.guarantee,
    }


def _adaptive_k(retrieved: Retrieved) -> dict[str, pa.Table]:
    """Empty where K is a number."""
    found = retrieved.thresholds
    parts = {"adaptive_k": "thresholds", "calibration": "calibration"}
    return {
        table: Thresholds.holds[part].empty_table() if found is None else found.read(part)
        for table, part in parts.items()
    }


def _curve(ranked: Ranked | None) -> pa.Table:
    """Of a fitted late fusion."""
    fitted = None if ranked is None else ranked.fitted
    return schemas.FUSION_CURVE.empty_table() if fitted is None else fitted.read("curve")


def _of_stage2(ranked: Ranked | None) -> dict[str, Any]:
    """Its columns of the table ``runs``; all NULL where it was not run."""
    if ranked is None:
        return dict.fromkeys(OF_STAGE2)
    scored, fitted = ranked.scored, ranked.fitted
    weight, scale = ranked.late_fusion or (None, None)
    return {
        "late_fusion": weight,
        "late_fusion_scores": scale,
        "late_fusion_fitted_on": None if fitted is None else fitted.fitted_on,
        "precision": scored.setting("precision"),
        "prior": scored.setting("prior"),
        "stage2_sha256": scored.digest("model"),
        "reads_z_t": scored.reads_z_t,
    }


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
