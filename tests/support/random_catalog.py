"""Catalogs without a store: made-up scores of made-up queries, as ``publish`` would write them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from storage import schemas
from storage.catalog import PublishedRun, write_catalog
from storage.catalog_tables import CATALOG

TEXTS = ("is red", "has no sleeves and is longer", "isn't red, but blue")


@dataclass(frozen=True)
class Made:
    """One category "c" of a gallery i0, i1, ... (``copies`` of each picture stand side by side).
    Query qN starts from image iN; scores are rows of queries and columns of images."""

    stage1: np.ndarray
    stage2: np.ndarray | None
    targets: Sequence[Sequence[int] | None]
    k: int
    texts: Sequence[str] = ()
    copies: int = 1
    probes: Mapping[str, Sequence[int | None]] = field(default_factory=dict)
    """Columns of the table, a number for each query."""
    dropped: Sequence[tuple[int, int]] = ()
    """Queries and images that are no candidates, and scored all the same."""
    reads_z_t: bool = True
    vector_index: str = "exact"

    @property
    def queries(self) -> int:
        return len(self.stage1)

    @property
    def images(self) -> int:
        return self.stage1.shape[1]

    def order(self, query: int) -> np.ndarray:
        """The gallery, as stage 1 ranks it."""
        return np.argsort(-self.stage1[query], kind="stable")

    def kept(self, query: int) -> np.ndarray:
        return self.order(query)[: self.k]

    def final(self, query: int) -> np.ndarray:
        """The candidates in the last order; ties by the gallery's."""
        kept = self.kept(query)
        if self.stage2 is None:
            return kept
        return kept[np.lexsort((kept, -self.stage2[query, kept]))]


def random_run(
    seed: int, *, queries: int = 12, images: int = 20, k: int = 8, levels: int = 6, **changes: Any
) -> Made:
    """Few levels: many ties."""
    rng = np.random.default_rng(seed)
    shape = queries, images
    targets = [
        rng.choice(images, size=1 + query % 2, replace=False).tolist() for query in range(queries)
    ]
    made: dict[str, Any] = {
        "stage1": (rng.integers(levels, size=shape) / levels).astype(np.float32),
        "stage2": rng.integers(levels, size=shape).astype(np.float32),
        "targets": targets,
        "k": k,
    }
    return Made(**{**made, **changes})


def write_made(path: Path, **runs: Made) -> Path:
    """Runs by their ids."""
    write_catalog(path, [published(name, run) for name, run in runs.items()])
    return path


def published(run_id: str, made: Made) -> PublishedRun:
    row = {
        **dict.fromkeys(("gallery_sha256", "stage1_sha256"), "1"),
        **dict.fromkeys(("images", "gallery_images"), made.images),
        **dict.fromkeys(("problems", "gallery_missing"), 0),
        **dict.fromkeys(("encoder_precision", "stage1_precision"), "fp32"),
        "run_id": run_id,
        "dataset": "own",
        "split": "val",
        "protocol": "own-kept",
        "k": made.k,
        "first_stage": "stage1",
        "vector_index": made.vector_index,
        "queries": made.queries,
        "created_at": "2026-01-02T03:04:05+00:00",
    }
    if made.stage2 is not None:
        row |= {"stage2_sha256": "2", "precision": "fp32", "reads_z_t": made.reads_z_t}
    return PublishedRun(row, {name: _rows(rows, name) for name, rows in _tables(made).items()})


def _rows(rows: Sequence[Mapping[str, Any]], name: str) -> pa.Table:
    return pa.Table.from_pylist([dict(row) for row in rows], schemas.bare(CATALOG[name]))


def _tables(made: Made) -> dict[str, list[dict[str, Any]]]:
    ranked = [row for query in range(made.queries) for row in _ranked(made, query)]
    candidates = [{name: row[name] for name in schemas.CANDIDATES.names} for row in ranked]
    targets = [
        {"query_id": f"q{query}", "image_id": f"i{image}", "stage1_rank": _rank(made, query, image)}
        for query, mine in enumerate(made.targets)
        for image in mine or ()
    ]
    return {
        "gallery_members": [_member(made, image) for image in range(made.images)],
        "galleries": [
            {
                "category": "c",
                "gallery": "c",
                "images": made.images,
                "missing": 0,
                "sha256": _hash(made),
            }
        ],
        "queries": [_query(made, query) for query in range(made.queries)],
        "target_ranks": targets,
        "candidates": candidates,
        "rankings": [] if made.stage2 is None else ranked,
        "probes": _probes(made) if made.probes else [],
        "dropped_pairs": [_scored(made, *pair) for pair in made.dropped],
    }


def _probes(made: Made) -> list[dict[str, Any]]:
    return [
        {"query_id": f"q{query}", **{name: each[query] for name, each in made.probes.items()}}
        for query in range(made.queries)
    ]


def _rank(made: Made, query: int, image: int) -> int:
    return 1 + made.order(query).tolist().index(image)


def _query(made: Made, query: int) -> dict[str, Any]:
    mine = made.targets[query]
    named = None if mine is None else [f"i{image}" for image in mine]
    return {
        "query_id": f"q{query}",
        "category": "c",
        "reference_id": f"i{query % made.images}",
        "text": (made.texts or TEXTS)[query % len(made.texts or TEXTS)],
        "targets": named,
        "recall_targets": named,
        "subset": None,
        "other_text": None,
        "target_stage1_rank": None
        if mine is None
        else min(_rank(made, query, one) for one in mine),
    }


def _ranked(made: Made, query: int) -> list[dict[str, Any]]:
    final = made.final(query).tolist()
    return [
        _scored(made, query, image)
        | {"pool": "gallery", "stage1_rank": place + 1, "rank": final.index(image) + 1}
        for place, image in enumerate(made.kept(query).tolist())
    ]


def _scored(made: Made, query: int, image: int) -> dict[str, Any]:
    return {
        "query_id": f"q{query}",
        "image_id": f"i{image}",
        "stage1_score": made.stage1[query, image],
        "stage2_score": None if made.stage2 is None else made.stage2[query, image],
    }


def _member(made: Made, image: int) -> dict[str, Any]:
    return {
        "gallery": "c",
        "position": image,
        "image_id": f"i{image}",
        "path": f"{image}.png",
        "sha256": str(image // made.copies),
        "width": 1,
        "height": 1,
    }


def _hash(made: Made) -> str:
    """As the view ``integrity_galleries`` wants it."""
    lines = (f"{image // made.copies} i{image}\n" for image in range(made.images))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
