"""The composition: from annotations and images to a published, reported run. Written once."""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from cir_core.datasets.registry import Dataset
from cir_core.datasets.selection import source_split
from cir_core.errors import ProblemsFound, UsageError
from cir_core.families import as_stage1, parse_config
from cir_core.rerankers.dual.precision import require_precision
from cir_core.search.choice import IndexChoice, count_lists
from cir_core.search.indexes import require_available
from flows.engines.engine import Engine
from flows.machine import find_device, find_workers
from flows.own import complete, open_dataset
from flows.settings import Settings, demo_root, shipped_model
from storage.artifacts import Artifact, Made
from storage.catalog import CATALOG_FILE, run_id_of
from storage.lock import hold_store
from storage.models.folders import read_config
from tasks.results.report import report
from tasks.results.takeaway import write_ranked
from tasks.stages.changes import find_changed, look_at_models
from tasks.stages.encode import encode
from tasks.stages.evaluate import evaluate
from tasks.stages.ingest import ingest
from tasks.stages.pair import check_pair
from tasks.stages.publish import publish
from tasks.stages.questions import TOO_LONG, text_problems
from tasks.stages.rank import rank
from tasks.stages.readings import Ingested
from tasks.stages.render import render_demo
from tasks.stages.rerank import rerank
from tasks.stages.retrieve import retrieve

PROBLEMS_SHOWN = 10

CONSEQUENCES = {"reference_unusable", "target_unusable"}
"""Problems of queries that follow from an image's, which is listed and counted itself."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """Settings with every choice made; without ``categories``, all are meant."""

    dataset: Dataset
    data_root: Path
    categories: tuple[str, ...]
    stage1: Path
    stage2: Path
    protocol: str
    k: int
    index: IndexChoice
    device: str
    workers: int


@dataclass(frozen=True)
class Found:
    """What stage 1 leaves: its artifacts, and how many problems images and queries had."""

    ingested: Ingested
    gallery: Made
    queries: Made
    candidates: Made
    problems: int


@dataclass(frozen=True)
class Run:
    """What a run leaves: its name, its files, the stages that had work to do, and which inputs have
    changed since they were used."""

    run_id: str
    evaluated: str
    catalog: Path
    report: Path
    problems: int
    ranked: tuple[Path, ...]
    made: tuple[str, ...]
    changed: tuple[str, ...] = ()


def resolve_inputs(settings: Settings) -> Inputs:
    """Fill in what the dataset implies: the demo brings its data and its models, own data may
    describe themselves.

    Raises UsageError when a data root or a model is needed and not given, all at once, or when the
    index cannot be meant; PreflightError when it needs FAISS or a GPU that is not there.
    """
    settings = complete(settings)
    dataset = open_dataset(settings)
    is_demo = settings.dataset == "demo"
    missing = [
        f"--{name.replace('_', '-')}"
        for name in ("data_root", "stage1", "stage2")
        if getattr(settings, name) is None and not is_demo
    ]
    if missing:
        raise UsageError(
            f"dataset {settings.dataset} needs {', '.join(missing)}",
            cause="only the demo brings its own images and models",
            remedy="see `cir-pipeline run --help`; convert published checkpoints with "
            "`cir-pipeline convert`",
        )
    device = find_device(settings.device)
    index = IndexChoice(settings.index, settings.nlist, settings.nprobe)
    require_available(index)
    require_precision(settings.precision, torch.device(device))
    return Inputs(
        dataset=dataset,
        data_root=settings.data_root or demo_root(settings.store),
        categories=settings.categories,
        stage1=settings.stage1 or shipped_model("stage1"),
        stage2=settings.stage2 or shipped_model("stage2"),
        protocol=dataset.protocol(settings.protocol).name,
        k=settings.k or dataset.k,
        index=index,
        device=device,
        workers=find_workers(settings.workers, device),
    )


def run_pipeline(settings: Settings, engine: Engine) -> Run:
    """Make what is missing, stage by stage, up to the catalog and the report.

    Holds the store meanwhile. Inputs are looked at again when all is written (``Run.changed``; see
    ``flows.drift``). Raises ProblemsFound before any scoring when more images or queries
    have problems than ``allow_missing``; what was made until then stays and is used next time.
    """
    inputs = resolve_inputs(settings)
    store, root = settings.store, inputs.data_root
    with hold_store(store):
        looks = look_at_models(stage1=inputs.stage1, stage2=inputs.stage2)
        pair = engine.run(check_pair, store, inputs.stage1, inputs.stage2)
        found = find_candidates(settings, inputs, pair, engine)
        ingested, candidates = found.ingested.fingerprint, found.candidates.fingerprint
        scored = engine.run(
            rerank,
            store,
            root,
            ingested,
            found.queries.fingerprint,
            candidates,
            pair.fingerprint,
            inputs.stage2,
            device=inputs.device,
            batch=settings.batch,
            workers=inputs.workers,
            tokens=settings.tokens,
            memory=settings.memory,
            precision=settings.precision,
        )
        ranked = engine.run(rank, store, ingested, candidates, scored.fingerprint)
        evaluated = engine.run(evaluate, store, ingested, candidates, ranked.fingerprint)
        published = engine.run(publish, store, evaluated.fingerprint)
        reported = engine.run(report, store, root, evaluated.fingerprint)
        ranked_files = (
            engine.run(write_ranked, store, evaluated.fingerprint)
            if inputs.dataset.writes_ranked
            else None
        )
        changed = engine.run(find_changed, store, found.ingested, pair.fingerprint, looks)
    made = {
        "ingest": found.ingested,
        "encode": found.gallery,
        "fuse": found.queries,
        "retrieve": found.candidates,
        "rerank": scored,
        "rank": ranked,
        "evaluate": evaluated,
        "publish": published,
        "report": reported.made,
    }
    if ranked_files:
        made["ranked"] = ranked_files.made
    return Run(
        run_id=run_id_of(evaluated.fingerprint),
        evaluated=evaluated.fingerprint,
        catalog=store / CATALOG_FILE,
        report=reported.page,
        problems=found.problems,
        ranked=ranked_files.files if ranked_files else (),
        made=_worked(made),
        changed=changed,
    )


def find_candidates(settings: Settings, inputs: Inputs, models: Made, engine: Engine) -> Found:
    """Stage 1: from annotations and images to candidates. The caller holds the store; ``models``
    is the artifact that says which stage 1 was checked. Raises ProblemsFound as ``run_pipeline``.
    """
    store, root = settings.store, inputs.data_root
    ingested = ingest_split(settings, inputs, engine)
    check_texts(settings, inputs, ingested.fingerprint)
    encoded = engine.run(
        encode,
        store,
        root,
        ingested.fingerprint,
        models.fingerprint,
        inputs.stage1,
        device=inputs.device,
        batch=settings.batch,
        workers=inputs.workers,
        tokens=settings.tokens,
    )
    problems = problems_of(
        store, ingested.fingerprint, encoded.gallery.fingerprint, encoded.queries.fingerprint
    )
    stop_on_problems(problems, settings.allow_missing)
    if problems:
        _log.warning("going on with %d problems: gallery or queries are short", len(problems))
    retrieved = engine.run(
        retrieve,
        store,
        ingested.fingerprint,
        encoded.gallery.fingerprint,
        encoded.queries.fingerprint,
        k=inputs.k,
        index=inputs.index,
    )
    return Found(ingested, encoded.gallery, encoded.queries, retrieved, len(problems))


def ingest_split(settings: Settings, inputs: Inputs, engine: Engine) -> Ingested:
    """The split's images, gallery and queries; the demo draws its own first. Raises UsageError when
    a gallery is too small for the index."""
    store, root = settings.store, inputs.data_root
    if settings.dataset == "demo" and settings.data_root is None:
        engine.run(render_demo, root, source_split(settings.split))
    ingested = engine.run(
        ingest, store, root, inputs.dataset, settings.split, inputs.categories, inputs.protocol
    )
    problems = Artifact(store, "ingest", ingested.fingerprint).read("problems").to_pylist()
    stop_on_problems(problems, settings.allow_missing)
    if inputs.index.kind == "ivf":
        gallery = Artifact(store, "ingest", ingested.fingerprint).read("gallery")
        for images in Counter(gallery["gallery"].to_pylist()).values():
            count_lists(images, inputs.index)  # hours before the index is made
    return ingested


def check_texts(settings: Settings, inputs: Inputs, ingested: str) -> None:
    """Raises ProblemsFound, before any picture is decoded, when texts that are too long for the
    model make it more problems than allowed."""
    folder = inputs.stage1
    config = as_stage1(parse_config(read_config(folder), str(folder)), str(folder))
    texts = text_problems(settings.store, ingested, config.text)
    problems = Artifact(settings.store, "ingest", ingested).read("problems").to_pylist()
    stop_on_problems(problems + texts, settings.allow_missing)


def _worked(made: dict[str, Made]) -> tuple[str, ...]:
    return tuple(stage for stage, result in made.items() if not result.reused)


def problems_of(store: Path, ingested: str, gallery: str, queries: str) -> list[dict[str, str]]:
    """Of images and queries, once all images have been decoded."""
    tables = (
        Artifact(store, "ingest", ingested).read("problems"),
        Artifact(store, "encode", gallery).read("problems"),
        Artifact(store, "fuse", queries).read("unfused"),
    )
    return [row for table in tables for row in table.to_pylist()]


def stop_on_problems(problems: list[dict[str, str]], allowed: int) -> None:
    """Raises ProblemsFound, which lists the first of them, when more than allowed are not merely
    the consequence of another."""
    causes = sum(row["kind"] not in CONSEQUENCES for row in problems)
    others = len(problems) - causes
    kinds = Counter(row["kind"] for row in problems)
    if causes > allowed:
        told = [f"{row['item']}: {row['kind']}: {row['message']}" for row in problems]
        if len(told) > PROBLEMS_SHOWN:
            told[PROBLEMS_SHOWN:] = [f"... and {len(told) - PROBLEMS_SHOWN} more"]
        raise ProblemsFound(
            f"{causes} images or queries cannot be used"
            + (f", nor {others} queries that need them" if others else ""),
            item="\n".join(told),
            cause=", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            + "; files are missing or damaged, or the tables or the layout name them otherwise"
            * bool(kinds.keys() - {TOO_LONG}),
            remedy="repair them (`cir-pipeline doctor` also looks beside where they should be), or "
            f"go on without: --allow-missing {causes} (then all are in the table problems of the "
            "catalog)",
        )
