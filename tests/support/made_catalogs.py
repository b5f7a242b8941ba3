"""Runs as a catalog shows them, made up: no artifacts lie behind them."""

from dataclasses import asdict
from typing import Any

import pyarrow as pa

from cir_core.metrics.galleries import searched
from cir_core.types import ImageId
from storage import schemas
from storage.catalog import PublishedRun

QUERIES = schemas.QUERIES.append(pa.field("target_stage1_rank", pa.int32())).append(
    pa.field("recall_targets", pa.list_(pa.string()))
)
GALLERY = searched("dress", [ImageId(image) for image in "abc"], {ImageId(i): i for i in "abc"})


def asked(
    name: str, category: str, target: str | None, rank: int | None, subset: str = ""
) -> dict[str, Any]:
    return {
        "query_id": name,
        "category": category,
        "reference_id": "r",
        "text": "is red",
        "targets": target and [target],
        "recall_targets": target and [target],
        "subset": list(subset) or None,
        "target_stage1_rank": rank,
    }


def ranked(name: str, pool: str, stage1: str, stage2: str) -> list[dict[str, Any]]:
    """One query's candidates: the letters of ``stage1`` are images, best first."""
    return [
        {
            "query_id": name,
            "pool": pool,
            "image_id": image,
            "stage1_rank": row + 1,
            "stage1_score": 1 - row / 10,
            "stage2_score": -float(stage2.index(image)),
            "rank": stage2.index(image) + 1,
        }
        for row, image in enumerate(stage1)
    ]


def published(
    run_id: str, queries: list[dict[str, Any]], rankings: list[dict[str, Any]], *, k: int = 3
) -> PublishedRun:
    candidates = [{name: row[name] for name in schemas.CANDIDATES.names} for row in rankings]
    members = [
        {"gallery": "dress", "position": row, "image_id": image} for row, image in enumerate("abc")
    ]
    files = pa.table(
        {
            "path": [f"images/{image}.png" for image in "abc"],
            "sha256": list("abc"),
            "width": pa.array([8] * 3, pa.int32()),
            "height": pa.array([9] * 3, pa.int32()),
        }
    )
    gallery = pa.Table.from_pylist(members, schemas.GALLERY)
    for name in files.column_names:
        gallery = gallery.append_column(name, files[name])
    return PublishedRun(
        row={
            "run_id": run_id,
            "dataset": "fiq",
            "split": "val",
            "protocol": "p",
            "k": k,
            "first_stage": "stage1",
            "vector_index": "exact",
            "encoder_precision": "fp32",
            "stage1_precision": "fp32",
            "precision": "fp32",
            "prior": 0.0,
            "images": 3,
            "queries": len(queries),
            "problems": 0,
            "gallery_images": 3,
            "gallery_missing": 0,
            "gallery_sha256": GALLERY.sha256,
            "stage1_sha256": "1",
            "stage2_sha256": "2",
            "created_at": "2026-01-02T03:04:05+00:00",
        },
        tables={
            "gallery_members": gallery,
            "galleries": pa.Table.from_pylist(
                [asdict(GALLERY) | {"gallery": "dress"}],
                schemas.GALLERIES.append(schemas.CATEGORIES.field("gallery")),
            ),
            "queries": pa.Table.from_pylist(queries, QUERIES),
            "candidates": pa.Table.from_pylist(candidates, schemas.CANDIDATES),
            "rankings": pa.Table.from_pylist(rankings, schemas.RANKINGS),
            "metrics": schemas.METRICS.empty_table(),
            "problems": schemas.PROBLEMS.empty_table(),
        },
    )


def two_categories(run_id: str = "run") -> PublishedRun:
    """K = 3. dress: one target rises 3 -> 1, one is no candidate (rank 7). shirt: one falls 1 -> 2.
    One query has no label, one no candidates at all (its reference was lost)."""
    return published(
        run_id,
        [
            asked("d1", "dress", "c", 3),
            asked("d2", "dress", "z", 7),
            asked("s1", "shirt", "a", 1),
            asked("s2", "shirt", None, None),
            asked("d3", "dress", "a", None),
            asked("d4", "dress", "b", 1),
        ],
        [
            *ranked("d1", "gallery", "abc", "cab"),
            *ranked("d2", "gallery", "abc", "bca"),
            *ranked("s1", "gallery", "abc", "cab"),
            *ranked("s2", "gallery", "abc", "abc"),
            *ranked("d4", "gallery", "bac", "bca"),
        ],
    )


def with_subset() -> PublishedRun:
    return published(
        "sub",
        [
            asked("1", "cirr", "b", 2, "abcde"),
            asked("2", "cirr", "e", 9, "abcde"),
            asked("3", "cirr", "z", None, "abc"),  # its target's file is missing
        ],
        [
            *ranked("1", "gallery", "abc", "cab"),
            *ranked("1", "subset", "abcde", "bacde"),
            *ranked("2", "gallery", "abc", "abc"),
            *ranked("2", "subset", "abcde", "abedc"),
            *ranked("3", "gallery", "abc", "abc"),
            *ranked("3", "subset", "abc", "abc"),
        ],
    )
