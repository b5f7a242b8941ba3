"""What ``scale_units.py`` measures with: files, tables of many rows, and memory."""

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image
from retrieval import resident

from storage import schemas
from tasks.feed.pictures import Distinct, distinct_pictures

K, IMAGES_PER_QUERY = 100, 100

Units = dict[str, float]
"""By what is counted, as the table tells it."""


class Drawn(NamedTuple):
    """Candidates by chance, of as many pictures as there are rows."""

    table: pa.Table
    pictures: Distinct
    queries: pa.ChunkedArray


def write_files(root: Path, images: int) -> None:
    """Pictures of their own bytes, and a query for each hundred."""
    root.mkdir()
    Image.new("RGB", (8, 8)).save(root / "one.png")
    content = (root / "one.png").read_bytes()
    (root / "one.png").unlink()
    for row in range(images):
        (root / f"{row:09d}.png").write_bytes(content + row.to_bytes(4, "big"))
    with (root / "queries.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["reference", "text", "target"])
        for row in range(0, images, IMAGES_PER_QUERY):
            table.writerow([f"{row:09d}.png", "is red", f"{images - 1 - row:09d}.png"])


def images_table(images: int) -> pa.Table:
    names = [f"{number:09d}.jpg" for number in range(images)]
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    sizes = np.full(images, 640, dtype=np.int32)
    return pa.table([names, names, digests, sizes, sizes], schemas.IMAGES)


def draw_candidates(rows: int) -> Drawn:
    """K for each query."""
    rng = np.random.default_rng(0)
    pictures = distinct_pictures(images_table(rows))
    ids = pa.array([f"query-{number:09d}" for number in range(rows // K)])
    asked = pa.array(np.repeat(np.arange(rows // K), K))
    table = pa.table(
        {
            "query_id": pa.chunked_array([ids.take(asked)]),
            "image_id": pa.chunked_array(
                [pictures.ids.take(pa.array(rng.integers(rows, size=rows)))]
            ),
            "stage1_score": rng.standard_normal(rows, dtype=np.float32),
        }
    )
    return Drawn(table, pictures, pa.chunked_array([ids]))


def all_columns(candidates: pa.Table) -> dict[str, pa.Array | pa.ChunkedArray]:
    """And those of scores and rankings, by name."""
    rng, rows = np.random.default_rng(1), candidates.num_rows
    ranks = np.tile(np.arange(1, K + 1, dtype=np.int32), (rows // K, 1))
    return {
        "query_id": candidates["query_id"],
        "pool": pa.array(["gallery"]).take(pa.array(np.zeros(rows, dtype=np.int64))),
        "image_id": candidates["image_id"],
        "stage1_rank": pa.array(ranks.ravel()),
        "stage1_score": candidates["stage1_score"],
        "stage2_score": pa.array(rng.standard_normal(rows, dtype=np.float32)),
        "rank": pa.array(rng.permuted(ranks, axis=1).ravel()),
    }


def peak_of(work: Callable[[], object]) -> float:
    """The bytes that it takes at most beside what there was."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    kept = work()
    peak = (resident("VmHWM") - before) * 2**20
    del kept
    return peak
