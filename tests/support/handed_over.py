"""Candidates and embeddings as somebody else's tools write them."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.graph import Filtering
from tasks.stages.read_candidates import ReadCandidates
from tasks.stages.read_embeddings import ReadEmbeddings
from tasks.stages.stage import Stage

Row = tuple[Any, Any, Any]

HANDED_OVER: dict[type[Stage[Any]], str] = {
    ReadCandidates: "candidates",
    ReadEmbeddings: "embeddings",
}
"""What another first stage is made of, in place of ``Retrieve`` and before it; by which setting."""


def write_candidates(path: Path, rows: Iterable[Row]) -> Path:
    """Rows of query, image and score in the format of the file's name."""
    columns, rows = ("query", "image", "score"), list(rows)
    if path.suffix == ".parquet":
        pq.write_table(
            pa.table({name: [row[at] for row in rows] for at, name in enumerate(columns)}), path
        )
    elif path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
        path.write_text("\n".join(lines))
    else:
        path.write_text("".join(f"{q} Q0 {i} 1 {s:.9g} x\n" for q, i, s in rows))
    return path


def write_vectors(path: Path, ids: Sequence[str], vectors: Iterable[Any], **names: str) -> Path:
    """A file of ids and vectors, as numpy arrays of any float."""
    columns, vectors = {"id": "id", "vector": "vector"} | names, list(vectors)
    lists = pa.array(
        [list(one) for one in vectors], pa.list_(pa.from_numpy_dtype(vectors[0].dtype))
    )
    pq.write_table(pa.table({columns["id"]: ids, columns["vector"]: lists}), path)
    return path


def hand_over(filtering: Filtering, folder: Path) -> dict[str, Path]:
    """By setting, what a finished run's own first stage would hand over."""
    found = filtering.retrieve.made.read("candidates").to_pylist()
    rows = [
        (row["query_id"], row["image_id"], row["stage1_score"])
        for row in found
        if row["pool"] == "gallery"
    ]
    embeddings = folder / "embeddings"
    embeddings.mkdir()
    images = filtering.encode.made.read("embeddings")
    pq.write_table(images, embeddings / "gallery.parquet")
    queries = filtering.fuse.made.read("queries", ["query_id", "embedding"])
    pq.write_table(queries, embeddings / "queries.parquet")
    candidates = write_candidates(folder / "candidates.run", rows)
    return {"candidates": candidates, "embeddings": embeddings}
