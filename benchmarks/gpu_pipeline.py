"""The pipeline on a GPU: does the ViT wait for pictures, how long is a benchmark, what does a
precision change, and what does FAISS?"""

import csv
import tempfile
import time
from pathlib import Path
from typing import Any

import encoding
import numpy as np
import precision as precisions
import torch
from encoding import Measured
from gpu_scale import Found, Row, Scale
from plan import write_catalogue, write_models

from cir_core.search.candidates import NONE_REMOVED
from cir_core.search.choice import IndexChoice
from cir_core.search.scores import Gallery
from flows.engines.engine import InProcess
from flows.machine import find_workers
from flows.run import run_pipeline
from flows.settings import Settings

IMAGES, QUERIES, K = 15_415, 6_016, 100
"""Of Fashion-IQ val, with its 601,600 pairs."""

WORKED = ("encode", "rerank")
"""The passes over pictures: decoding, ViT, stage 1 and stage 2. Others are added to no goal."""


def encode(scale: Scale, seconds: float) -> Found:
    """Pictures decoded, fed and seen, against the ViT alone."""
    del seconds
    device, images = str(scale.device), scale.small(1024, 24)
    rows, numbers = [], dict[str, Any]()
    for precision in scale.wanted("fp32", "bf16"):
        workers, threads = find_workers(None, device), torch.get_num_threads()
        measured = Measured("full", device, threads, workers, 64)
        one = encoding.run("full", scale.vision, images, 1, measured, precision).told()
        words = (
            f"{one['fed_images_per_s']:.0f} images/s of {one['bare_images_per_s']:.0f} "
            f"({one['fed_of_bare']:.0%}), {workers} workers, "
            f"{one['decoding_cpu_ms_an_image']:.0f} ms of CPU to decode one: "
            f"{images / one['decoding']['clock']:.0f} images/s at most"
        )
        rows.append(Row(f"fed against a bare ViT, {precision}", words, "95 %"))
        numbers[precision] = one
    return Found(rows, numbers)


def whole(scale: Scale, seconds: float) -> Found:
    """Fashion-IQ val's work in bf16, and a tenth of it in fp32, after a small sample that loads
    what a process loads once; random weights, drawn photos, candidates by chance, so that images
    have as many pairs as there."""
    del seconds
    rows, numbers = [], dict[str, Any]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder, scale.vision, scale.text)
        work(folder, scale, "fp32", share=110 / IMAGES)
        for precision in scale.wanted("bf16", "fp32"):
            most = 1.0 if precision == "bf16" else 0.1
            found = work(folder, scale, precision, 110 / IMAGES if scale.tiny else most)
            numbers[precision] = found
            words = (
                f"{found['scaled']:.0f} s (encode {found['encode']:.1f}, rerank "
                f"{found['rerank']:.1f}) from {found['share']:.0%} of it, "
                f"{found['pairs']:,} pairs, {found['pairs'] / found['rerank']:,.0f} a second"
            )
            rows.append(Row(f"Fashion-IQ val's work, {precision}", words, "60 s"))
    return Found(rows, numbers)


def work(folder: Path, scale: Scale, precision: str, share: float) -> dict[str, Any]:
    """Seconds of a run of so much of it; ``scaled``: of all, were time proportional."""
    images, queries = round(share * IMAGES), round(share * QUERIES)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        data, candidates = Path(name) / "data", Path(name) / "candidates.run"
        write_catalogue(data, images, queries)
        write_candidates(candidates, images, queries)
        values = {
            "dataset": "own",
            "data_root": data,
            "store": Path(name) / "store",
            "stage1": folder / "stage1",
            "stage2": folder / "stage2",
            "candidates": candidates,
            "k": K,
            "precision": precision,
            "device": str(scale.device),
            "batch": scale.small(64, 32),
            "until": "evaluate",
        }
        timed = InProcess()
        run_pipeline(Settings.model_validate(values), timed)
    passes = {task: timed.seconds[task] for task in WORKED}
    return {
        **passes,
        "all": dict(timed.seconds),
        "share": share,
        "images": images,
        "pairs": queries * K,
        "scaled": sum(passes.values()) / share,
    }


def write_candidates(path: Path, images: int, queries: int) -> None:
    """For every query as many images by chance, as a TREC run."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        lines = csv.writer(file, delimiter=" ")
        for query in range(queries):
            chosen = rng.choice(images, K, replace=False).tolist()
            lines.writerows(
                (f"query-{query:05d}", "Q0", f"{image}.jpg", rank, -rank, "chance")
                for rank, image in enumerate(chosen, start=1)
            )


def demo(scale: Scale, seconds: float) -> Found:
    """The demo's recall in each precision, as long as there is time, and where that goes."""
    began, rows, numbers = time.perf_counter(), [], dict[str, Any]()
    every = ("fp32",) if scale.tiny else ("fp32", "bf16", "tf32", "fp16")
    with tempfile.TemporaryDirectory() as folder:
        store, expected, took = Path(folder), None, 0.0
        for precision in scale.wanted(*every):
            if time.perf_counter() - began + 1.2 * took > seconds:
                rows.append(Row(f"demo, {precision}", "no time was left"))
                continue
            turn, timed = time.perf_counter(), InProcess()
            device, k = str(scale.device), scale.small(50, 5)
            run = precisions.run(store, device, timed, k=k, precision=precision)
            took = time.perf_counter() - turn
            scores = precisions.scores(store, run)
            expected = expected or scores
            overlap, tau = precisions.agreement(expected, scores)
            words = f"{precisions.told(store, run)}; shared {overlap:.2%}, tau {tau:.4f}"
            words += f"; {took:.0f} s (encode {timed.seconds['encode']:.1f}, "
            words += f"rerank {timed.seconds['rerank']:.1f})"
            rows.append(Row(f"demo, {precision}", words, "R@1 77.70"))
            numbers[precision] = {"overlap": overlap, "tau": tau, "seconds": timed.seconds}
    return Found(rows, numbers)


def index(scale: Scale, seconds: float) -> Found:
    """``--index gpu`` against FAISS's flat index on the GPU, filled beforehand in both ways."""
    del seconds
    try:
        import faiss
    except ImportError:
        return Found([Row("--index gpu against bare FAISS", "FAISS is not there", "1.3")])
    if scale.device.type == "cpu" or not hasattr(faiss, "StandardGpuResources"):
        return Found([Row("--index gpu against bare FAISS", "no FAISS for a GPU here", "1.3")])
    from retrieval import WIDTH, unit

    from cir_core.search.faiss_index import FaissIndex

    rng = np.random.default_rng(0)
    vectors, asked = unit(rng, 200_000), unit(rng, 2_000)
    ours, removed = FaissIndex(Gallery(vectors), IndexChoice("gpu")), np.full(2_000, NONE_REMOVED)
    bare = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, faiss.IndexFlatIP(WIDTH))
    bare.add(vectors)
    best = {"ours": float("inf"), "bare": float("inf")}
    for _ in range(5):
        for name, search in (
            ("ours", lambda: ours.search(asked, k=200, removed=removed)),
            ("bare", lambda: bare.search(asked, 200)),
        ):
            began = time.perf_counter()
            search()
            best[name] = min(best[name], time.perf_counter() - began)
    words = f"{best['ours'] / best['bare']:.2f} ({best['ours']:.3f} and {best['bare']:.3f} s)"
    return Found([Row("--index gpu against bare FAISS, 200,000 x 2,000", words, "1.3")], best)
