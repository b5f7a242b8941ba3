"""Stage 1 at scale: exact search beside bare FAISS, and its tables to Parquet and DuckDB.

    python benchmarks/retrieval.py search                                  # 200,000 x 2,000
    python benchmarks/retrieval.py search --images 1000000 --queries 10000
    python benchmarks/retrieval.py tables                                  # 2 million candidates

Ratios are what counts: both searches are measured in turn on the same vectors, in the same process;
the quickest round of each counts. Where other work runs beside, CPU seconds tell more.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import faiss
import numpy as np
import pyarrow as pa
import typer

from cir_core.search.candidates import NONE_REMOVED
from cir_core.search.choice import IndexChoice
from cir_core.search.exact import ExactIndex
from cir_core.search.ranks import target_ranks
from cir_core.search.scores import Gallery
from storage import schemas
from storage.artifacts import Artifact
from storage.catalog import CATALOG_FILE
from storage.identities import Identity
from storage.store import LocalStore, Store
from storage.tables import vector_column
from storage.views import Encoded, Fused, Ingested, Retrieved, Scored
from tasks.machine import Machine
from tasks.results.takeaway import Takeaway
from tasks.stages.evaluate import Evaluate
from tasks.stages.output import make_output
from tasks.stages.publish import Publish
from tasks.stages.rank import Rank
from tasks.stages.retrieve import Retrieve
from tasks.stages.stage import Stage, make, make_here

app = typer.Typer(help=__doc__, add_completion=False)

WIDTH = 256

Result = TypeVar("Result")
AnyStage = TypeVar("AnyStage", bound=Stage[Any])


@app.command()
def search(
    images: Annotated[int, typer.Option(help="Of the gallery.")] = 200_000,
    queries: Annotated[int, typer.Option(help="Asked.")] = 2_000,
    k: Annotated[int, typer.Option("-k", help="Candidates per query.")] = 200,
    rounds: Annotated[int, typer.Option(help="Of both, in turn.")] = 2,
) -> None:
    """Our exact search against bare FAISS flat: time, memory, and whether they find the same."""
    rng = np.random.default_rng(0)
    gallery, asked = Gallery(unit(rng, images)), unit(rng, queries)
    removed = np.full(queries, NONE_REMOVED)
    index, flat = ExactIndex(gallery), faiss.IndexFlatIP(WIDTH)
    exact, bare = Clock(), Clock()
    with memory("exact search, beside the vectors, with its answers"):
        found = exact.take(lambda: index.search(asked, k=k, removed=removed))
    with memory("FAISS, with its copy of the vectors"):
        flat.add(gallery.vectors)
        _, rows = bare.take(lambda: flat.search(asked, k))
    for _ in range(rounds - 1):
        exact.take(lambda: index.search(asked, k=k, removed=removed))
        bare.take(lambda: flat.search(asked, k))
    ours, theirs = (
        found.queries * images + found.images,
        np.arange(queries)[:, None] * images + rows,
    )
    print(f"FAISS's candidates that are ours: {np.isin(theirs, ours).mean():.4%}")
    work = 2 * WIDTH * images * queries / 1e9
    for name, clock in (("exact", exact), ("FAISS", bare)):
        speed = f"{work / clock.cpu:.0f} GFLOP a second of CPU"
        print(f"{name:6} {clock.wall:7.2f} s, {clock.cpu:7.2f} s of CPU: {speed}")
    print(f"exact / FAISS: {exact.wall / bare.wall:.2f}; of CPU {exact.cpu / bare.cpu:.2f}")
    targets = rng.integers(images, size=queries)
    with told("ranks of a target per query, nearly all beyond K"):
        target_ranks(
            asked,
            gallery,
            found,
            removed=removed,
            target_queries=np.arange(queries),
            target_images=targets,
        )


@app.command()
def tables(
    queries: Annotated[int, typer.Option(help="Asked, with a target each.")] = 10_000,
    k: Annotated[int, typer.Option("-k", help="Candidates per query.")] = 200,
    images: Annotated[int, typer.Option(help="Of the gallery.")] = 5_000,
) -> None:
    """Every table of candidates on its way to DuckDB, by the pipeline's own tasks."""
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        ingested, encoded, fused = write_inputs(store, queries, images)
        with told("retrieve: search, candidates to Parquet"):
            found = made(Retrieve(store, ingested, encoded, fused, k, IndexChoice())).made
        candidates = found.read("candidates")
        with told("  of it candidates to Parquet"):
            Artifact(store, "again", "0").write_part("candidates", candidates)
        scored = write_scores(store, found, fused, candidates)
        with told("rank: rankings to Parquet"):
            ranked = made(Rank(store, ingested, found, scored)).made
        with told("evaluate"):
            evaluated = made(Evaluate(store, ingested, encoded, found, ranked, k)).made
        with told("publish: all tables to DuckDB"):
            make_output(Publish(evaluated))
        with told("ranked.jsonl and ranked.parquet"):
            make_output(Takeaway(evaluated))
        size = store.local(CATALOG_FILE).stat().st_size >> 20
    print(f"{candidates.num_rows:,} candidates, catalog {size} MiB")
    print(f"peak memory of the process {resident('VmHWM'):.0f} MiB")


class Clock:
    """The quickest of several takes."""

    def __init__(self) -> None:
        self.wall = self.cpu = float("inf")

    def take(self, work: Callable[[], Result]) -> Result:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.wall = min(self.wall, time.perf_counter() - wall)
        self.cpu = min(self.cpu, time.process_time() - cpu)
        return result


@contextmanager
def told(what: str) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{what:50} {wall:6.2f} s, {cpu:6.2f} s of CPU")


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    vectors = rng.standard_normal((count, WIDTH), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


@contextmanager
def memory(what: str) -> Iterator[None]:
    """The most that was taken meanwhile, as Linux counts it."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    yield
    print(f"{what:50} {resident('VmHWM') - before:6.0f} MiB")


def resident(line: str) -> float:
    """Now (VmRSS) or at the peak (VmHWM), in MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    (kib,) = (one.split()[1] for one in status if one.startswith(line))
    return int(kib) / 2**10


def write_inputs(store: Store, queries: int, images: int) -> tuple[Ingested, Encoded, Fused]:
    """Artifacts as ingest, encode and fuse leave them; no picture is needed below these."""
    rng = np.random.default_rng(0)
    names = [f"B{number:09d}" for number in range(images)]
    asked = [
        {
            "query_id": f"dress-{number:06d}",
            "category": "dress",
            "reference_id": names[rng.integers(images)],
            "text": "is red and has longer sleeves",
            "targets": [names[rng.integers(images)]],
        }
        for number in range(queries)
    ]
    members = [
        {"gallery": "dress", "position": row, "image_id": name} for row, name in enumerate(names)
    ]
    files = [
        {
            "image_id": name,
            "path": name,
            "sha256": hashlib.sha256(name.encode()).hexdigest(),
            "width": 1,
            "height": 1,
        }
        for name in names
    ]
    settings = {
        "dataset": "fiq",
        "split": "val",
        "categories": ["dress"],
        "protocol": "fiq-original-kept",
    }
    none = schemas.PROBLEMS.empty_table()
    ingested = write(
        store,
        Identity("ingest", 0, settings, {}),
        {
            "queries": pa.Table.from_pylist(asked, schemas.QUERIES),
            "gallery": pa.Table.from_pylist(members, schemas.GALLERY),
            "categories": pa.table([["dress"], ["dress"]], schema=schemas.CATEGORIES),
            "images": pa.Table.from_pylist(files, schemas.IMAGES),
            "problems": none,
        },
    )
    schema = schemas.of_width(schemas.EMBEDDINGS, WIDTH)
    embeddings = pa.table([names, vector_column(unit(rng, images))], schema)
    encoded = write(
        store,
        Identity("encode", 0, {}, {"ingest": ingested, "model": "0"}),
        {"embeddings": embeddings, "problems": none},
    )
    ids = [one["query_id"] for one in asked]
    schema = schemas.of_width(schemas.QUERY_EMBEDDINGS, WIDTH)
    vectors = pa.table([ids, vector_column(unit(rng, queries))], schema)
    fused = write(
        store, Identity("fuse", 0, {}, {"ingest": ingested}), {"queries": vectors, "unfused": none}
    )
    return Ingested(store, ingested), Encoded(store, encoded), Fused(store, fused)


def write_scores(store: Store, found: Retrieved, fused: Fused, candidates: pa.Table) -> Scored:
    """The artifact that rerank leaves, with random scores."""
    drawn = np.random.default_rng(1).standard_normal(len(candidates), dtype=np.float32)
    columns = [candidates["query_id"], candidates["image_id"], pa.array(drawn)]
    identity = Identity(
        "rerank",
        0,
        {"precision": "fp32", "prior": 0.0},
        {"retrieve": found.fingerprint, "fuse": fused.fingerprint, "model": "0"},
    )
    return Scored(store, write(store, identity, {"scores": pa.table(columns, schemas.SCORES)}))


def made(stage: AnyStage) -> AnyStage:
    """The stage, when its artifact is there."""
    make(stage, Machine(), make_here)
    return stage


def write(store: Store, identity: Identity, parts: Mapping[str, pa.Table]) -> str:
    artifact = Artifact.of(store, identity)
    for name, table in parts.items():
        artifact.write_part(name, table)
    artifact.finish(identity, parts)
    return identity.fingerprint


if __name__ == "__main__":
    app()
