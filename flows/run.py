"""The composition: from annotations and images to a published, reported run. Written once."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from cir_core.datasets.selection import source_split
from cir_core.errors import ProblemsFound
from cir_core.families import require_precisions
from cir_core.search.choice import count_lists
from flows.ends import End
from flows.engines.engine import Engine
from flows.engines.runners import open_workers
from flows.first_stage import files_of
from flows.graph import Filtering, Graph, fit_of, graph_of
from flows.inputs import Inputs, resolve_inputs
from flows.labelling import give_label, require_name
from flows.leasing import leased
from flows.machine import warn_if_slow
from flows.settings import Settings
from storage.view import Made, View
from storage.views import Evaluated, Fitted, Ingested, Pair
from tasks.models.opening import read_reranker_config, read_retriever_config
from tasks.results.report.report import Report
from tasks.results.takeaway import Takeaway
from tasks.stages.asking import refuse_unread
from tasks.stages.changes import find_changed, look_at_models, note_files
from tasks.stages.fit import Fit
from tasks.stages.ingest import Reading, ingest
from tasks.stages.pair import check_pair, check_stage1
from tasks.stages.publish import Publish
from tasks.stages.questions import TOO_LONG, text_problems, unread_texts
from tasks.stages.render import render_demo

PROBLEMS_SHOWN = 10

CONSEQUENCES = {"reference_unusable", "target_unusable"}
"""Problems of queries that follow from an image's, which is listed and counted itself."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What a run leaves: an artifact of each stage and the files of each output, by name, as far as
    it went; the stages that had work to do, and which inputs have changed since they were used.

    ``evaluated``, ``run_id``, ``catalog`` and ``report`` raise LookupError where it ended before.
    """

    artifacts: Mapping[str, View]
    files: Mapping[str, tuple[Path, ...]]
    problems: int
    made: tuple[str, ...]
    changed: tuple[str, ...] = ()
    until: End = "report"

    @property
    def evaluated(self) -> Evaluated:
        evaluated = self.artifacts[Evaluated.stage]
        assert isinstance(evaluated, Evaluated)
        return evaluated

    @property
    def is_evaluated(self) -> bool:
        return Evaluated.stage in self.artifacts

    @property
    def run_id(self) -> str:
        return self.evaluated.run_id

    @property
    def catalog(self) -> Path:
        return self.files[Publish.name][0]

    @property
    def report(self) -> Path:
        return self.files[Report.name][0]

    @property
    def ranked(self) -> tuple[Path, ...]:
        """Of own data alone."""
        return self.files.get(Takeaway.name, ())


class Found(NamedTuple):
    """The stages that had anything to do, and how many problems images and queries have."""

    made: tuple[str, ...]
    problems: int


def run_pipeline(settings: Settings, engine: Engine) -> Run:
    """Make what is missing, stage by stage, up to where ``until`` says, by itself the report.

    Holds the store meanwhile. Inputs are looked at again when all is written (``Run.changed``; see
    ``flows.drift``). Raises ProblemsFound before any scoring when more images or queries
    have problems than ``allow_missing``; what was made until then stays and is used next time.
    """
    inputs = begin(settings)
    workers = open_workers(settings, inputs)
    with leased(inputs.store, settings.wait), engine.with_workers(workers):
        looks = look_at_models(**inputs.models)
        handed_over = note_files(files_of(inputs))
        models = check_models(inputs, engine).view
        reading = ingest_split(settings, inputs, engine)
        ingested = reading.ingested
        made = ("ingest",) * (not reading.reused)
        fit, fit_problems, fitted_on = None, 0, None
        if inputs.late_fusion == "fit":
            fit, fitting, fitted_on = fit_late_fusion(settings, models, engine)
            made, fit_problems = made + fitting.made, fitting.problems
        graph = graph_of(inputs, ingested, models, fit)
        check_reranker(inputs, graph)
        require_name(settings, graph.evaluated)
        inputs = replace(inputs, machine=graph.keeping(inputs.machine))
        found = make_stages(settings, inputs, ingested, graph, engine)
        made += found.made
        give_label(settings, graph.evaluated)
        for output in graph.outputs:
            made += engine.write(output)
        changed = engine.run(find_changed, reading, models, looks) + handed_over.changed()
        if fitted_on is not None:
            changed += engine.run(find_changed, fitted_on, models, {})
    views = [ingested, *([fit] if fit else []), *(stage.made for stage in graph.stages)]
    return Run(
        artifacts={view.stage: view for view in views},
        files={output.name: output.files for output in graph.outputs},
        problems=found.problems + fit_problems,
        made=made,
        changed=tuple(dict.fromkeys(changed)),
        until=inputs.until,
    )


def begin(settings: Settings) -> Inputs:
    """The inputs of a run, once what is to be known of them before it starts has been said. Raises
    as ``resolve_inputs``."""
    inputs = resolve_inputs(settings)
    used = inputs.precision if inputs.stage2 else replace(inputs.precision, stage2="fp32")
    warn_if_slow(used, inputs.machine.device)
    return inputs


def check_models(inputs: Inputs, engine: Engine) -> Made[Pair]:
    """The models of this run: a pair, or stage 1 alone. Raises UsageError for a precision that one
    of them does not have, too."""
    precision = inputs.precision
    require_precisions(
        read_retriever_config(inputs.stage1),
        [precision.encoder, precision.stage1],
        str(inputs.stage1),
    )
    if inputs.stage2 is not None:
        require_precisions(
            read_reranker_config(inputs.stage2),
            [precision.encoder, precision.stage2],
            str(inputs.stage2),
        )
    if inputs.stage2 is None:
        return engine.run(check_stage1, inputs.store, inputs.stage1)
    return engine.run(check_pair, inputs.store, inputs.stage1, inputs.stage2)


def make_stages(
    settings: Settings, inputs: Inputs, ingested: Ingested, graph: Graph, engine: Engine
) -> Found:
    """All artifacts of a run, from images and queries on. The caller holds the store. Raises
    ProblemsFound as ``run_pipeline``."""
    check_texts(settings, inputs, ingested)
    made = engine.make(graph.filtering.first_pass, inputs.machine)
    problems = problems_of(ingested, graph.filtering)
    stop_on_problems(problems, settings.allow_missing)
    if problems:
        _log.warning("going on with %d problems: gallery or queries are short", len(problems))
    for stage in graph.later:
        made += engine.make(stage, inputs.machine)
    return Found(made, len(problems))


def selection_of(settings: Settings) -> Settings:
    """The run whose scores a late fusion is fitted on: the same over the queries that no training
    has seen, in stage 2's own order; an adaptive K there is calibrated with these themselves."""
    mine = {"split": "selection", "until": "rerank", "late_fusion": 0, "run_name": None, "tags": ()}
    return settings.model_copy(update={**mine, "calibrate": None})


def find_fit(settings: Settings, models: Pair, engine: Engine) -> Fit:
    """The stage that fits a late fusion's weight, whether or not it is made."""
    asked = selection_of(settings)
    inputs = resolve_inputs(asked)
    ingested = ingest_split(asked, inputs, engine).ingested
    return fit_of(inputs, ingested, graph_of(inputs, ingested, models))


def fit_late_fusion(
    settings: Settings, models: Pair, engine: Engine
) -> tuple[Fitted, Found, Reading]:
    """The weight, what of the selection queries' run was made for it, and what these are. The
    caller holds the store. Raises as ``run_pipeline``."""
    asked = selection_of(settings)
    inputs = resolve_inputs(asked)
    _log.info("fitting the late fusion on the selection queries")
    reading = ingest_split(asked, inputs, engine)
    ingested = reading.ingested
    graph = graph_of(inputs, ingested, models)
    check_reranker(inputs, graph)
    inputs = replace(inputs, machine=graph.keeping(inputs.machine))
    fit = fit_of(inputs, ingested, graph)
    found = Found((), 0)
    if not fit.made.is_done:
        found = make_stages(asked, inputs, ingested, graph, engine)
    made = *(f"selection/{name}" for name in found.made), *engine.make(fit, inputs.machine)
    _log.info("late fusion: weight %g of %s scores", fit.made.weight, fit.scale)
    if settings.split in ("selection", "train"):
        _log.warning("the late fusion is fitted on queries that this run measures, too")
    return fit.made, Found(made, found.problems), reading


def ingest_split(settings: Settings, inputs: Inputs, engine: Engine) -> Reading:
    """The split's images, gallery and queries; the demo draws its own first. Raises UsageError when
    a gallery is too small for the index."""
    root = inputs.data_root
    if settings.dataset == "demo" and settings.data_root is None:
        engine.run(render_demo, root, source_split(settings.split))
    asked = (inputs.dataset, settings.split, inputs.categories, inputs.protocol)
    reading = engine.run(ingest, inputs.store, root, *asked)
    problems = reading.ingested.read("problems").to_pylist()
    stop_on_problems(problems, settings.allow_missing)
    if inputs.index.kind == "ivf":
        gallery = reading.ingested.read("gallery")
        for images in Counter(gallery["gallery"].to_pylist()).values():
            count_lists(images, inputs.index)  # hours before the index is made
    return reading


def check_texts(settings: Settings, inputs: Inputs, ingested: Ingested) -> None:
    """Raises ProblemsFound, before any picture is decoded, when texts that are too long for the
    model make it more problems than allowed."""
    texts = text_problems(ingested, read_retriever_config(inputs.stage1))
    problems = ingested.read("problems").to_pylist()
    stop_on_problems(problems + texts, settings.allow_missing)


def check_reranker(inputs: Inputs, graph: Graph) -> None:
    """A reranker that reads texts itself must be able to, as far as stage 1 is. Raises
    ProblemsFound."""
    if graph.rerank is None or graph.rerank.fused is not None:
        return
    ingested = graph.rerank.ingested
    unread = unread_texts(ingested, read_reranker_config(graph.rerank.folder))
    if unread:
        by_stage1 = unread_texts(ingested, read_retriever_config(inputs.stage1))
        known = {row["item"] for row in by_stage1}
        refuse_unread([row for row in unread if row["item"] not in known])


def problems_of(ingested: Ingested, filtering: Filtering) -> list[dict[str, str]]:
    """Of images and queries, once all images have been decoded."""
    tables = (
        ingested.read("problems"),
        filtering.encode.made.read("problems"),
        filtering.fuse.made.read("unfused"),
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
