"""``cir-pipeline plan``: what a run would find, what it would make, and what that takes."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import disk_usage
from typing import Literal

import numpy as np

from cir_core.families import as_stage1, as_stage2, parse_config
from cir_core.layers.config import Stage1Config, Stage2Config
from cir_core.planning.effort import Effort, Left, Speeds, Workload, forecast, together
from cir_core.rerankers.dual.cost import Sizes, published_flops
from flows.engines.engine import InProcess
from flows.run import (
    Inputs,
    check_texts,
    ingest_split,
    problems_of,
    resolve_inputs,
    stop_on_problems,
)
from flows.settings import Settings
from storage.artifacts import Artifact, Identity, finished
from storage.catalog import CATALOG_FILE, catalog_product, run_id_of
from storage.differences import why_missing
from storage.lock import hold_store
from storage.models.folders import read_config
from tasks.feed.image_tokens import Pictures
from tasks.planning.calibrate import Sample, calibrate
from tasks.planning.workload import count_workload
from tasks.results.report import page_product
from tasks.results.takeaway import ranked_product
from tasks.stages import encode, evaluate, rank, rerank, retrieve
from tasks.stages.pair import check_pair
from tasks.stages.tokens import kept_images

State = Literal["done", "begun", "to do"]

STAGES = (
    *("ingest", "tokens", "encode", "fuse", "retrieve", "rerank"),
    *("rank", "evaluate", "publish", "report", "ranked"),
)

TEXTS_SAMPLED = 512
"""At most, that scoring is timed with: enough for every length to occur as often as it does."""


@dataclass(frozen=True)
class Planned:
    """A stage of the run. One that is done has no effort, but for ingest, which each run repeats;
    ``why`` tells why another is not."""

    stage: str
    state: State
    why: str
    effort: Effort


@dataclass(frozen=True)
class Plan:
    """``start`` is what a run takes, in seconds, before and between its stages: imports, the
    models' hashes, and finding out what is there. ``published_flops`` is what the published loop
    would spend on the pairs that are left; the stage ``rerank`` tells what the engine does, the ViT
    included. ``with_cache`` is all of the stages with ``--tokens cache``, None where that changes
    nothing. ``free`` bytes are on the disk."""

    stages: Sequence[Planned]
    device: str
    start: float
    free: int
    published_flops: int
    speeds: Speeds
    with_cache: Effort | None

    @property
    def total(self) -> Effort:
        """Of all stages, ``start`` not included."""
        return together(stage.effort for stage in self.stages)

    @property
    def seconds(self) -> float:
        return self.start + self.total.seconds

    @property
    def fits(self) -> bool:
        """Whether the disk has room for what is left."""
        return self.total.bytes <= self.free


@dataclass
class _Found:
    """What of a run is in its store, stage by stage, and what is left of the long ones."""

    store: Path
    images: int
    states: dict[str, State] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)

    def ask(self, identity: Identity) -> Artifact:
        """Note whether the artifact is there, and if not, why."""
        artifact = Artifact.of(self.store, identity)
        self.fingerprints[identity.stage] = artifact.fingerprint
        if artifact.is_done:
            self.note(identity.stage, done=True)
        elif artifact.folder.is_dir():
            self.note(identity.stage, done=False, why="what is there is not whole")
        else:
            self.note(identity.stage, done=False, why=why_missing(self.store, identity))
        return artifact

    def note(self, stage: str, *, done: bool, why: str = "") -> None:
        self.states[stage] = "done" if done else "to do"
        self.reasons[stage] = "" if done else why

    def note_shards(self, stage: str, left: int) -> None:
        """Of a stage that goes on from what an earlier run left."""
        if 0 < left < self.images:
            self.states[stage] = "begun"
            self.reasons[stage] = f"{self.images - left:,} of {self.images:,} images are done"

    def lacks(self, *stages: str) -> bool:
        return any(self.states[stage] != "done" for stage in stages)

    def made(self, *stages: str) -> list[str] | None:
        """The fingerprints, when all of them are there."""
        return None if self.lacks(*stages) else [self.fingerprints[stage] for stage in stages]


def make_plan(settings: Settings, *, started: float) -> Plan:
    """What ``run_pipeline`` would do with these settings, and a forecast of its time.

    Does what a run does before any model sees an image: the pair of models is checked, annotations
    and images are ingested (the demo is drawn), and what is damaged is set aside. Nothing else is
    made. What is left is counted; its time follows from a calibration on samples, which is skipped
    when the models have no work. ``started`` is what it took to get here, in seconds. Raises as
    ``run_pipeline`` would before it re-ranks, for what is known by now.
    """
    inputs, engine, store = resolve_inputs(settings), InProcess(), settings.store
    with hold_store(store):
        pair = engine.run(check_pair, store, inputs.stage1, inputs.stage2)
        if not pair.reused:  # the run will only hash them
            engine.run(check_pair, store, inputs.stage1, inputs.stage2)
        ingested = ingest_split(settings, inputs, engine).fingerprint
        check_texts(settings, inputs, ingested)
        began = time.perf_counter()
        found, left = _find(settings, inputs, pair.fingerprint, ingested)
        finding = time.perf_counter() - began
        encoded, retrieved = found.made("encode", "fuse"), found.made("retrieve")
        if encoded:
            stop_on_problems(problems_of(store, ingested, *encoded), settings.allow_missing)
        stage1, stage2 = _configs(inputs)
        work = count_workload(
            store,
            ingested,
            stage1.text,
            k=inputs.k,
            encoded=encoded[0] if encoded else None,
            candidates=retrieved[0] if retrieved else None,
        )
        speeds = Speeds()
        if found.lacks("encode", "fuse", "retrieve", "rerank"):
            speeds = _calibrate(settings, inputs, ingested, work)
    efforts = forecast(work, left, stage1, stage2, speeds, settings.tokens)
    cached = forecast(work, left, stage1, stage2, speeds, "cache")
    efforts["ingest"] = Effort(
        images=work.images, queries=work.queries, seconds=engine.seconds["ingest"]
    )
    rerank_left = work.expected.load.of_images(left.scored)
    return Plan(
        stages=[
            Planned(stage, found.states[stage], found.reasons[stage], efforts.get(stage, Effort()))
            for stage in STAGES
            if stage in found.states
        ],
        device=inputs.device,
        start=started + engine.seconds["check_pair"] + finding,
        free=disk_usage(store).free,
        published_flops=round(published_flops(Sizes.of(stage2), rerank_left)),
        speeds=speeds,
        with_cache=None if cached.items() <= efforts.items() else together(cached.values()),
    )


def _find(settings: Settings, inputs: Inputs, pair: str, ingested: str) -> tuple[_Found, Left]:
    """What is there, and what is left."""
    store = settings.store
    pictures = Pictures(store, inputs.data_root, ingested, settings.batch, inputs.workers)
    images = len(pictures.distinct)
    found = _Found(store, images)
    found.note("ingest", done=True)
    embed, fuse = encode.identities(store, ingested, pair)
    embedded, fused = found.ask(embed), found.ask(fuse)
    search = retrieve.identify(
        store, ingested, embed.fingerprint, fuse.fingerprint, k=inputs.k, index=inputs.index
    )
    retrieved = found.ask(search).fingerprint
    score = rerank.identify(
        store, ingested, fuse.fingerprint, retrieved, pair, precision=settings.precision
    )
    scored = found.ask(score)
    order = rank.identify(store, ingested, retrieved, scored.fingerprint)
    measure = evaluate.identify(
        store, ingested, retrieved, found.ask(order).fingerprint, k=inputs.k
    )
    evaluated = found.ask(measure).fingerprint
    products = [
        ("publish", catalog_product(store / CATALOG_FILE), "not in a sound catalog"),
        ("report", page_product(store, evaluated), "no sound page of this run"),
    ]
    if inputs.dataset.writes_ranked:
        products.append(("ranked", ranked_product(store, evaluated), "no sound files of this run"))
    for stage, product, why in products:
        done = not found.lacks("evaluate") and product.holds(
            run_id_of(evaluated), Artifact(store, "evaluate", evaluated).content
        )
        found.note(stage, done=done, why=why)
    to_embed = encode.shards_left(images, embedded, None) if found.lacks("encode") else []
    to_fuse = encode.shards_left(images, None, fused) if found.lacks("fuse") else []
    to_score = rerank.shards_left(images, scored) if found.lacks("rerank") else []
    kept = 0
    if to_embed or to_fuse or to_score:
        kept = kept_images(pictures, inputs.stage1)
        if settings.tokens == "cache" or kept == images:
            found.note("tokens", done=kept == images, why="to be kept")
    shards = {"encode": to_embed, "fuse": to_fuse, "rerank": to_score}
    for stage, rows in shards.items():
        found.note_shards(stage, sum(map(len, rows)))
    if "tokens" in found.states:
        found.note_shards("tokens", images - kept)
    return found, Left(
        stages=frozenset(stage for stage in found.states if found.lacks(stage)),
        encoded=_mask(images, to_embed),
        fused=_mask(images, to_fuse),
        scored=_mask(images, to_score),
        kept=kept,
        runs=sum(run.fingerprint != evaluated for run in finished(store, "evaluate")),
    )


def _mask(images: int, rows: Iterable[range]) -> np.ndarray:
    chosen = np.zeros(images, dtype=bool)
    for some in rows:
        chosen[some.start : some.stop] = True
    return chosen


def _configs(inputs: Inputs) -> tuple[Stage1Config, Stage2Config]:
    first, second = str(inputs.stage1), str(inputs.stage2)
    return (
        as_stage1(parse_config(read_config(inputs.stage1), first), first),
        as_stage2(parse_config(read_config(inputs.stage2), second), second),
    )


def _calibrate(settings: Settings, inputs: Inputs, ingested: str, work: Workload) -> Speeds:
    every = max(1, -(-len(work.token_ids) // TEXTS_SAMPLED))
    pairs, images = work.expected.pairs, work.expected.images
    sample = Sample(
        token_ids=[list(ids) for ids in work.token_ids[::every]],
        pairs_per_image=max(1, round(pairs / max(1.0, images))),
        gallery=work.compared // max(1, work.queries),
        k=inputs.k,
        index=inputs.index.kind,
    )
    pictures = Pictures(settings.store, inputs.data_root, ingested, settings.batch, inputs.workers)
    return calibrate(
        pictures,
        inputs.stage1,
        inputs.stage2,
        sample,
        device=inputs.device,
        memory=settings.memory,
        precision=settings.precision,
    )
