"""What docs/scale.md multiplies: unit costs of tables, commits, manifests and memory, at two sizes.

    python benchmarks/scale_units.py           # a table; six minutes on two busy cores
    python benchmarks/scale_units.py --tiny    # whether it runs: its numbers say nothing

The proportions are those of 100 million images and a million queries with 100 candidates: a query
for a hundred images, a candidate for each. A time is the quickest of some rounds, memory the peak
beside what the process had, each in a process of its own. What grows faster than its count stands
out: its unit differs from one size to the other. The last column is, of memory, the slope between
both, without what any size takes.
"""

import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import pyarrow as pa
import typer
from machine import machine
from retrieval import Clock, made, write_inputs, write_scores
from scale_inputs import (
    IMAGES_PER_QUERY,
    K,
    Units,
    draw_candidates,
    images_table,
    peak_of,
    write_files,
)
from scale_store import (
    candidate_bytes,
    committed_parts,
    hashed_bytes,
    read_embeddings,
    read_manifest,
)

from cir_core.search.choice import IndexChoice
from flows.own import open_dataset
from flows.settings import Settings
from storage.catalog import CATALOG_FILE
from storage.store import LocalStore
from tasks.feed.pictures import Distinct, distinct_pictures
from tasks.feed.pixels import image_files
from tasks.stages.earlier.scores import NO_SCORES
from tasks.stages.evaluate import Evaluate
from tasks.stages.ingest import ingest
from tasks.stages.output import make_output
from tasks.stages.publish import Publish
from tasks.stages.rank import Rank
from tasks.stages.retrieve import Retrieve
from tasks.stages.scoring import pairs_of, read_rows

Result = TypeVar("Result")


def ingested_files(images: int) -> Units:
    """Files as small as a header, so that neither reading nor hashing them counts for much."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder / "data", images)
        settings = Settings(dataset="own", data_root=folder / "data", store=folder / "store")
        store, dataset = LocalStore(folder / "store"), open_dataset(settings)
        clock = Clock()
        peak = peak_of(
            lambda: clock.take(
                lambda: ingest(
                    store, folder / "data", dataset, "val", (), dataset.protocol(None).name
                )
            )
        )
        return {
            "ingest, s of CPU per million images": clock.cpu * 1e6 / images,
            "ingest, bytes of memory an image": peak / images,
        }


def encodes_list(images: int) -> Units:
    """What encode knows of all pictures before it sees one."""
    return _listed(images, "encode", lambda pictures: pictures.copies)


def reranks_list(images: int) -> Units:
    """The same of rerank, which names no copy of a picture."""
    return _listed(images, "rerank", lambda _: None)


def _listed(images: int, stage: str, more: Callable[[Distinct], object]) -> Units:
    table, clock = images_table(images), Clock()

    def know() -> object:
        pictures = distinct_pictures(table)
        return pictures, image_files(pictures.table), more(pictures)

    peak = peak_of(lambda: clock.take(know))
    return {
        f"{stage}'s list of pictures, s of CPU per million": clock.cpu * 1e6 / images,
        f"{stage}'s list of pictures, bytes of memory an image": peak / images,
    }


def candidate_rows(rows: int) -> Units:
    """``Rerank.open``, apart from models and z_t."""
    drawn = draw_candidates(rows)
    candidates, pictures, queries = drawn.table, drawn.pictures, rows // K
    written = candidate_bytes(candidates)
    asking = pa.table({"query_id": drawn.queries, "question": np.arange(queries)})
    clock = Clock()

    def read() -> object:
        read = read_rows(candidates, asking, pictures, questions=queries)
        return read, pairs_of(read, np.arange(queries), NO_SCORES, questions=queries)

    peak = peak_of(lambda: clock.take(read))
    return {
        "rerank's rows, s of CPU per million": clock.cpu * 1e6 / rows,
        "rerank's rows, bytes of memory a row": (peak + candidates.nbytes) / rows,
        **written,
    }


def run_tables(images: int) -> Units:
    """From candidates to the catalog, by the pipeline's own tasks."""
    units: Units = {}
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        ingested, encoded, fused = write_inputs(store, images // IMAGES_PER_QUERY, images)

        def step(name: str, work: Callable[[], Result]) -> Result:
            clock = Clock()
            results: list[Result] = []
            peak = peak_of(lambda: results.append(clock.take(work)))
            units[f"{name}, s of CPU per million candidates"] = clock.cpu * 1e6 / pairs
            units[f"{name}, bytes of memory a candidate"] = peak / pairs
            return results[0]

        pairs = images // IMAGES_PER_QUERY * K
        found = made(Retrieve(store, ingested, encoded, fused, K, IndexChoice())).made
        candidates = found.read("candidates")
        scored = write_scores(store, found, fused, candidates)
        ranking = Rank(store, ingested, found, scored)
        ranked = step("rank", lambda: made(ranking)).made
        evaluation = Evaluate(store, ingested, encoded, found, ranked, K)
        evaluated = step("evaluate", lambda: made(evaluation)).made
        step("publish", lambda: make_output(Publish(evaluated)))
        for view, kind in (
            (ingested, "images"),
            (ingested, "gallery"),
            (ingested, "queries"),
            (encoded, "embeddings"),
        ):
            parts = view.parts(kind)
            size = sum(part.path.stat().st_size for part in parts)
            units[f"{view.stage}'s {kind}, bytes a row"] = size / view.read(kind).num_rows
        catalog = store.local(CATALOG_FILE).stat().st_size
        units["catalog, bytes a candidate and image"] = catalog / pairs
    return units


SIZES: Mapping[Callable[[int], Units], tuple[int, int]] = {
    ingested_files: (10_000, 40_000),
    encodes_list: (250_000, 1_000_000),
    reranks_list: (250_000, 1_000_000),
    candidate_rows: (1_000_000, 4_000_000),
    read_embeddings: (51_200, 204_800),
    run_tables: (100_000, 300_000),
    committed_parts: (100, 100_000),
    read_manifest: (10_000, 100_000),
    hashed_bytes: (64, 256),
}
"""What is measured, with how many of what its argument counts."""

TINY = 50


def apart(measure: Callable[[int], Units], size: int) -> Units:
    """In a process of its own. A fork is quick, and safe before anything has started a thread."""
    with ProcessPoolExecutor(1, get_context("fork")) as processes:
        return processes.submit(measure, size).result()


def main(tiny: Annotated[bool, typer.Option(help="A hundredth and less.")] = False) -> None:
    """A row per unit, measured at both sizes."""
    print(machine())
    print("| what | at | | at | | from one to the other |\n|---|---|---|---|---|---|")
    for measure, sizes in SIZES.items():
        small, large = (max(1, size // TINY) if tiny else size for size in sizes)
        found = [apart(measure, size) for size in (small, large)]
        for name, value in found[0].items():
            other = found[1][name]
            more = (other * large - value * small) / (large - small) if "memory" in name else other
            row = f"{small:,} | {value:.3g} | {large:,} | {other:.3g} | {more:.3g}"
            print(f"| {name} | {row} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
