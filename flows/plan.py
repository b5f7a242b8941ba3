"""``cir-pipeline plan``: what a run would find, what it would make, and what that takes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from cir_core.planning.effort import Effort, Forecast, Known, Speeds, Workload, together
from flows.engines.engine import InProcess
from flows.graph import STAGES, Declared, Filtering, Graph, declared, graph_of, name_of
from flows.inputs import Inputs, resolve_inputs
from flows.inventory import Inventory, take_inventory
from flows.labelling import require_name
from flows.leasing import leased
from flows.run import (
    begin,
    check_models,
    check_reranker,
    check_texts,
    find_fit,
    ingest_split,
    problems_of,
    selection_of,
    stop_on_problems,
)
from flows.settings import Settings
from storage.views import Ingested
from tasks.feed.image_tokens import Pictures
from tasks.models.opening import read_reranker_config, read_retriever_config
from tasks.planning.calibrate import calibrate
from tasks.planning.known import find_known
from tasks.planning.standing import State, standing_of
from tasks.planning.timing import Sample
from tasks.planning.workload import count_workload, reading_of_pairs
from tasks.stages.earlier.scores import NO_SCORES, Scores
from tasks.stages.ingest import Ingest
from tasks.stages.questions import Questions
from tasks.stages.read_candidates import ReadCandidates
from tasks.stages.retrieve_within import RetrieveWithin
from tasks.stages.threshold import Threshold
from tasks.stages.tokens import Tokens

MET = ("images", "queries", "pairs")
"""Counts of an effort that several stages share."""


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
    nothing. ``free`` bytes are on the disk. ``assumed_k`` candidates a query are counted where K is
    adaptive and stage 1 has not been run, which tells how many there are."""

    stages: Sequence[Planned]
    device: str
    start: float
    free: int
    published_flops: int
    speeds: Speeds
    with_cache: Effort | None
    assumed_k: int | None = None

    @property
    def total(self) -> Effort:
        """Of all stages, ``start`` not included."""
        return together(stage.effort for stage in self.stages)

    @property
    def as_one(self) -> Effort:
        """``total``, with images, queries and pairs counted once, however many stages meet them."""
        most = {name: max(getattr(stage.effort, name) for stage in self.stages) for name in MET}
        return replace(self.total, **most)

    @property
    def seconds(self) -> float:
        return self.start + self.total.seconds

    @property
    def fits(self) -> bool:
        """Whether the disk has room for what is left."""
        return self.total.bytes <= self.free


def make_plan(settings: Settings, *, started: float) -> Plan:
    """What ``run_pipeline`` would do with these settings, and a forecast of its time.

    Does what a run does before any model sees an image: the pair of models is checked, annotations
    and images are ingested (the demo is drawn), and what is damaged is set aside. Nothing else is
    made. What is left is counted; its time follows from a calibration on samples, which is skipped
    when the models have no work. ``started`` is what it took to get here, in seconds. Raises as
    ``run_pipeline`` would before it re-ranks, for what is known by now.
    """
    return _plan(settings, begin(settings), started)


def _plan(settings: Settings, inputs: Inputs, started: float) -> Plan:
    engine = InProcess()
    selection, fit = None, None
    if inputs.late_fusion == "fit":
        fitting = selection_of(settings)
        selection = _plan(fitting, resolve_inputs(fitting), 0.0)
    with leased(inputs.store, settings.wait):
        models = check_models(inputs, engine)
        if not models.reused:
            check_models(inputs, engine)  # the run will only hash them
        checking = engine.last
        if selection is not None:
            fit = find_fit(settings, models.view, engine)
        ingested = ingest_split(settings, inputs, engine).ingested
        check_texts(settings, inputs, ingested)
        began = time.perf_counter()
        graph = graph_of(inputs, ingested, models.view, None if fit is None else fit.made)
        check_reranker(inputs, graph)
        require_name(settings, graph.evaluated)
        inputs = replace(inputs, machine=graph.keeping(inputs.machine))
        found = take_inventory(inputs, ingested, graph)
        finding = time.perf_counter() - began
        stage1 = read_retriever_config(inputs.stage1)
        stage2 = None if inputs.stage2 is None else read_reranker_config(inputs.stage2)
        first = graph.filtering
        encoded = None if found.lacks("encode", "fuse") else first.encode.made
        if encoded is not None:
            stop_on_problems(problems_of(ingested, first), settings.allow_missing)
        k, chosen = first.retrieve.k, _chosen(found, first, is_encoded=encoded is not None)
        most = inputs.dataset.k if k == "auto" else k
        count = partial(
            count_workload,
            ingested,
            k=most,
            encoded=encoded,
            candidates=chosen,
            scores=_scores(found, graph),
        )
        work, reading = count(stage1), reading_of_pairs(stage1, stage2)
        asked = work if reading is stage1 else count(reading)
        speeds, known = Speeds(), _known(found, first, work)
        if found.lacks("encode", "fuse", "retrieve", "rerank", "dropped_scores", "probe"):
            speeds = _calibrate(inputs, ingested, work, most)
    of_run = Forecast(
        work, asked, found.left(graph), stage1, stage2, speeds, inputs.machine.tokens, known
    )
    with_tokens = (of_run, replace(of_run, tokens="cache"))
    efforts, cached = (efforts_of(one, declared(graph)) for one in with_tokens)
    with_cache = None if cached.items() <= efforts.items() else together(cached.values())
    published = of_run.published_flops()
    efforts["ingest"] = replace(Ingest.effort(of_run), seconds=engine.seconds["ingest"])
    planned = [
        Planned(name, one.state, one.why, efforts.get(name, Effort()))
        for name, one in found.standings.items()
    ]
    if fit is not None and selection is not None:
        standing = standing_of(fit)
        effort = Effort() if standing.is_done else selection.as_one
        planned.insert(1, Planned(fit.name, standing.state, standing.why, effort))
        if not standing.is_done:
            published += selection.published_flops
            if with_cache is not None:
                with_cache = together([with_cache, selection.with_cache or selection.total])
    return Plan(
        stages=planned,
        device=inputs.machine.device,
        start=started + checking + finding,
        free=inputs.store.free,
        published_flops=published,
        speeds=speeds,
        with_cache=with_cache,
        assumed_k=most if k == "auto" and chosen is None else None,
    )


def _known(found: Inventory, first: Filtering, work: Workload) -> Known:
    encode, fuse = first.encode, first.fuse
    return find_known(
        work,
        encode if found.lacks(encode.name) else None,
        fuse if found.lacks(fuse.name) else None,
    )


def _scores(found: Inventory, graph: Graph) -> Callable[[Questions], Scores]:
    """What is known of questions where stage 2 has yet to score."""
    rerank = graph.rerank
    if rerank is None or not found.lacks(rerank.name):
        return lambda _: NO_SCORES
    return lambda questions: rerank.known(questions.first_queries)


def _chosen(found: Inventory, first: Filtering, *, is_encoded: bool) -> pa.Table | None:
    """The candidates, as far as they are known."""
    stage = first.retrieve
    if found.has("retrieve"):
        return stage.made.read("candidates")
    if isinstance(stage, RetrieveWithin) and is_encoded:
        *before, threshold = first.read
        assert isinstance(threshold, Threshold)
        is_searchable = all(one.made.is_done for one in before)
        return stage.known(threshold.known()) if is_searchable else None
    return stage.known() if isinstance(stage, ReadCandidates) else None


def efforts_of(forecast: Forecast, stages: Sequence[Declared] = STAGES) -> dict[str, Effort]:
    """Of each stage that is left, but for ingest, which a plan does itself."""
    efforts = {}
    for stage in stages:
        name = name_of(stage)
        if name in forecast.left.stages or (stage is Tokens and forecast.to_keep):
            effort = stage.effort(forecast)
            efforts[name] = replace(
                effort,
                bytes=stage.disk(forecast.counts, forecast.widths),
                seconds=effort.seconds + stage.seconds_per_pair * effort.pairs,
            )
    return efforts


def _calibrate(inputs: Inputs, ingested: Ingested, work: Workload, k: int) -> Speeds:
    sample = Sample.of(work, k=k, index=inputs.index.kind)
    pictures = Pictures(ingested, inputs.data_root, inputs.machine)
    models = (inputs.stage1, inputs.stage2)
    return calibrate(pictures, *models, sample, precision=inputs.precision)
