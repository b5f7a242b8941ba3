"""``cir-pipeline plan``: what a run would find, what it would make, and what that takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import disk_usage
from typing import Literal

from cir_core.forecast import Effort, Left, Speeds, Workload, forecast, together
from cir_core.models.config import Stage1Config, Stage2Config
from cir_core.models.load import as_stage1, as_stage2, parse_config
from cir_core.rerank.cost import Sizes
from flows.engine import Timed
from flows.pipeline import Inputs, ingest_split, resolve_inputs
from flows.settings import Settings
from storage.artifacts import Artifact, Identity
from storage.catalog import CATALOG_FILE, published_runs, run_id_of
from storage.checkpoints import read_config
from storage.lock import hold_store
from storage.nearest import why_missing
from tasks import encode, evaluate, rank, ranked, report, rerank, retrieve
from tasks.calibrate import Sample, calibrate
from tasks.image_tokens import Pictures
from tasks.pair import check_pair
from tasks.workload import count_workload

State = Literal["done", "begun", "to do"]

TEXTS_SAMPLED = 512
"""Texts that scoring is timed with: enough for every length to occur as often as it does."""


@dataclass(frozen=True)
class Planned:
    """A stage of the run. One that is done has no effort; ``why`` tells why another is not."""

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


@dataclass
class _Found:
    """What of a run is in its store, stage by stage, and what is left of the long ones."""

    store: Path
    states: dict[str, State] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def ask(self, identity: Identity) -> Artifact:
        """Note whether the artifact is there, and if not, why."""
        artifact = Artifact.of(self.store, identity)
        if artifact.is_done:
            self.note(identity.stage, done=True)
        elif artifact.folder.is_dir():
            self.states[identity.stage] = "begun"
            self.reasons[identity.stage] = "interrupted: what is whole is kept"
        else:
            self.note(identity.stage, done=False, why=why_missing(self.store, identity))
        return artifact

    def note(self, stage: str, *, done: bool, why: str = "") -> None:
        self.states[stage] = "done" if done else "to do"
        self.reasons[stage] = "" if done else why

    def lacks(self, *stages: str) -> bool:
        return any(self.states[stage] != "done" for stage in stages)


def make_plan(settings: Settings, *, started: float) -> Plan:
    """What ``run_pipeline`` would do with these settings, and a forecast of its time.

    Does what a run does before any model sees an image: the pair of models is checked, and
    annotations and images are ingested (the demo is drawn). Nothing else is made. What is left is
    counted; its time follows from a calibration on samples, which is skipped when neither model has
    work. ``started`` is what it took to get here, in seconds. Raises as ``run_pipeline`` before it
    scores.
    """
    inputs, engine, store = resolve_inputs(settings), Timed(), settings.store
    with hold_store(store):
        pair = engine.run(check_pair, store, inputs.stage1, inputs.stage2).fingerprint
        ingested = ingest_split(settings, inputs, engine).fingerprint
        found, left, candidates = engine.run(_find, settings, inputs, pair, ingested)
        stage1, stage2 = _configs(inputs)
        work = count_workload(store, ingested, stage1.text, k=inputs.k, candidates=candidates)
        speeds = Speeds()
        if found.lacks("encode", "fuse", "retrieve", "rerank"):
            speeds = _calibrate(settings, inputs, ingested, work)
    kept, not_kept = (
        forecast(work, left, stage1, stage2, speeds, keeps_tokens=keeps) for keeps in (True, False)
    )
    efforts = kept if settings.tokens == "cache" else not_kept
    efforts["ingest"] = Effort(
        images=work.images, queries=work.queries, seconds=engine.seconds["ingest"]
    )
    planned = [
        Planned(stage, state, found.reasons[stage], efforts.get(stage, Effort()))
        for stage, state in found.states.items()
    ]
    if "tokens" in efforts:
        planned.insert(1, Planned("tokens", "to do", "to be kept", efforts["tokens"]))
    return Plan(
        stages=planned,
        device=inputs.device,
        start=started + engine.seconds["check_pair"] + engine.seconds["_find"],
        free=disk_usage(store).free,
        published_flops=round(left.scored * work.pairs.published_flops(Sizes.of(stage2))),
        speeds=speeds,
        with_cache=together(kept.values()) if "tokens" in kept and efforts is not_kept else None,
    )


def _find(
    settings: Settings, inputs: Inputs, pair: str, ingested: str
) -> tuple[_Found, Left, str | None]:
    """What is there, what is left, and stage 1's candidates when they are."""
    store = settings.store
    found = _Found(store)
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
    runs = published_runs(store / CATALOG_FILE)
    found.note("publish", done=run_id_of(evaluated) in runs, why="not in the catalog")
    found.note("report", done=report.is_reported(store, evaluated), why="no page of this run")
    if inputs.dataset.writes_ranked:
        written = ranked.is_written(store, evaluated)
        found.note("ranked", done=written, why="no files of this run")
    images = Artifact(store, "ingest", ingested).read("images").num_rows
    to_embed = encode.images_left(images, embedded, None) if found.lacks("encode") else 0
    to_fuse = encode.images_left(images, None, fused) if found.lacks("fuse") else 0
    to_score = sum(map(len, rerank.shards_left(scored, images))) if found.lacks("rerank") else 0
    left = Left(
        stages=frozenset(stage for stage in found.states if found.lacks(stage)),
        encoded=max(to_embed, to_fuse),
        fused=to_fuse / max(images, 1),
        scored=to_score / max(images, 1),
    )
    return found, left, None if found.lacks("retrieve") else retrieved


def _configs(inputs: Inputs) -> tuple[Stage1Config, Stage2Config]:
    first, second = str(inputs.stage1), str(inputs.stage2)
    return (
        as_stage1(parse_config(read_config(inputs.stage1), first), first),
        as_stage2(parse_config(read_config(inputs.stage2), second), second),
    )


def _calibrate(settings: Settings, inputs: Inputs, ingested: str, work: Workload) -> Speeds:
    every = max(1, len(work.token_ids) // TEXTS_SAMPLED)
    sample = Sample(
        token_ids=[list(ids) for ids in work.token_ids[::every]],
        pairs_per_image=work.pairs.per_image,
        gallery=work.compared // max(1, work.queries),
        k=inputs.k,
        index=inputs.index,
    )
    pictures = Pictures(settings.store, inputs.data_root, ingested, settings.batch, inputs.workers)
    return calibrate(
        pictures,
        inputs.stage1,
        inputs.stage2,
        sample,
        device=inputs.device,
        tokens=settings.tokens,
        memory=settings.memory,
        precision=settings.precision,
    )
