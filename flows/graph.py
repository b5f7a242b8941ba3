"""The stages of a run, and what each of them is made of."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flows.ends import MADE
from flows.first_stage import choosing_of, require_no_prior
from flows.inputs import Inputs
from storage.views import Evaluated, Fitted, Ingested, Pair
from tasks.machine import Machine
from tasks.models.opening import read_reranker_config, read_retriever_config
from tasks.results.report.report import Report
from tasks.results.takeaway import Takeaway
from tasks.stages.choosing import IMAGES, Choosing
from tasks.stages.drop import Drop
from tasks.stages.encode import Encode
from tasks.stages.evaluate import Evaluate
from tasks.stages.first_pass import FirstPass
from tasks.stages.fit import Fit
from tasks.stages.fuse import Fuse, weight_of
from tasks.stages.ingest import Ingest
from tasks.stages.output import Output
from tasks.stages.over_pictures import OverPictures
from tasks.stages.probe import Probe
from tasks.stages.publish import Publish
from tasks.stages.rank import LateFusion, Rank
from tasks.stages.read_embeddings import ReadEmbeddings
from tasks.stages.rerank import Rerank, RerankDropped
from tasks.stages.retrieve import Retrieve
from tasks.stages.stage import Stage
from tasks.stages.tokens import Tokens

STAGES = (
    *(Ingest, Tokens, Encode, Fuse, Retrieve, Rerank, Rank, Evaluate),
    *(Drop, RerankDropped, Probe),
    *(Publish, Report, Takeaway),
)
"""All that a run of two models may make, in its order."""

Declared = type[Stage[Any]] | type[Output]
"""A stage's class, or an output's."""


def name_of(stage: Declared) -> str:
    """As a plan, and what a run has made, tell it."""
    return stage.name if issubclass(stage, Output) else str(stage.makes.stage)


@dataclass(frozen=True)
class Filtering:
    """Stage 1: what leads to candidates; ``read`` is made before these are chosen."""

    encode: Encode
    fuse: Fuse
    retrieve: Choosing
    read: tuple[Stage[Any], ...] = ()

    @property
    def first_pass(self) -> FirstPass:
        return FirstPass((self.encode, self.fuse))


@dataclass(frozen=True)
class Graph:
    """What a run makes once its split is ingested, as far as it goes: ``later`` stages follow the
    first pass."""

    filtering: Filtering
    later: tuple[Stage[Any], ...]
    outputs: tuple[Output, ...]

    @property
    def stages(self) -> Sequence[Stage[Any]]:
        return *self.filtering.first_pass.stages, *self.later

    @property
    def over_pictures(self) -> Sequence[OverPictures[Any]]:
        """Those that see images."""
        return [stage for stage in self.stages if isinstance(stage, OverPictures)]

    @property
    def rerank(self) -> Rerank | None:
        """None of a run that ends before."""
        return next((stage for stage in self.later if isinstance(stage, Rerank)), None)

    def keeping(self, machine: Machine) -> Machine:
        """With image tokens kept from the first pass on, if stage 2 must have them and may have the
        same encoder: takes pictures as stage 1's does."""
        rerank = self.rerank
        if rerank is None or rerank.pictures != self.filtering.encode.pictures:
            return machine
        return rerank.keeping(machine)

    @property
    def evaluated(self) -> Evaluated | None:
        """None of a run that ends before."""
        return next((one.made for one in self.later if isinstance(one, Evaluate)), None)


def filtering_of(inputs: Inputs, ingested: Ingested, models: Pair) -> Filtering:
    """``models`` says which stage 1 was checked."""
    store, model = inputs.store, models.digest("stage1")
    retriever = read_retriever_config(inputs.stage1)
    seen = (ingested, inputs.stage1, inputs.data_root, model, retriever.pictures)
    weight = weight_of(retriever, inputs.text_weight, str(inputs.stage1))
    seeing, reading = inputs.precision.encoder, inputs.precision.stage1
    encode = Encode(store, *seen, encoder_precision=seeing, precision=reading)
    fuse = Fuse(store, *seen, weight, encoder_precision=seeing, precision=reading)
    read, retrieve = choosing_of(inputs, ingested, encode, fuse)
    return Filtering(encode, fuse, retrieve, tuple(read))


def graph_of(
    inputs: Inputs, ingested: Ingested, models: Pair, fitted: Fitted | None = None
) -> Graph:
    """Whether or not anything of it is there. ``fitted`` is the weight of a late fusion that is to
    be fitted."""
    store, wanted = inputs.store, MADE[inputs.until]
    first = filtering_of(inputs, ingested, models)
    stages: list[Stage[Any]] = [*first.read, first.retrieve]
    candidates, fused, encoded = first.retrieve.made, first.fuse.made, first.encode.made
    ranked, rerank = None, None
    if inputs.stage2 is not None:
        model, prior = models.digest("stage2"), models.setting("prior")
        require_no_prior(inputs, prior)
        reranker = read_reranker_config(inputs.stage2)
        seen = (ingested, inputs.stage2, inputs.data_root, model, reranker.pictures)
        asked = (fused if reranker.state_width else None, reranker.reads_references)
        seeing, scoring = inputs.precision.encoder, inputs.precision.stage2
        rerank = Rerank(store, *seen, *asked, candidates, prior, scoring, encoder_precision=seeing)
        rank = Rank(store, ingested, candidates, rerank.made, _late_fusion(inputs, fitted))
        stages += [rerank, rank]
        ranked = rank.made
    evaluate = Evaluate(store, ingested, encoded, candidates, ranked, first.retrieve.k)
    stages += [evaluate, *_probes(inputs, first, evaluate, rerank)]
    outputs: list[Output] = [
        Publish(evaluate.made),
        Report(evaluate.made, inputs.data_root, command=inputs.command),
    ]
    if inputs.dataset.writes_ranked:
        outputs.append(Takeaway(evaluate.made))
    return Graph(
        first,
        tuple(stage for stage in stages if stage.name in wanted),
        tuple(output for output in outputs if output.name in wanted),
    )


def _probes(
    inputs: Inputs, first: Filtering, evaluate: Evaluate, rerank: Rerank | None
) -> list[Stage[Any]]:
    """What a run is asked beside; without stage 2, of nothing that was dropped."""
    store, retrieve, encode = inputs.store, first.retrieve, first.encode
    ingested, fused = encode.ingested, first.fuse.made
    embedded = next((one.made for one in first.read if isinstance(one, ReadEmbeddings)), None)
    stages: list[Stage[Any]] = []
    dropped = None
    if rerank is not None:
        chosen = (ingested, encode.made, fused, IMAGES, retrieve.made, embedded)
        drop = Drop(store, *chosen)
        fields = {field.name: getattr(rerank, field.name) for field in dataclasses.fields(rerank)}
        score = RerankDropped(**{**fields, "candidates": drop.made})
        stages, dropped = [drop, score], (drop.made, score.made)
    seen = (evaluate.made, ingested, encode.made, fused, embedded, dropped)
    model = (encode.folder, encode.model)
    by_file = inputs.candidates is not None
    probe = Probe(store, *seen, *model, by_file, inputs.precision.stage1)
    return [*stages, probe]


def _late_fusion(inputs: Inputs, fitted: Fitted | None) -> LateFusion | None:
    weight = fitted if inputs.late_fusion == "fit" else inputs.late_fusion
    if weight is None:
        assert inputs.late_fusion is None, "it is fitted before"
        return None
    return LateFusion(weight, inputs.late_fusion_scores)


def fit_of(inputs: Inputs, ingested: Ingested, graph: Graph) -> Fit:
    """The weight that the queries of another run's graph give."""
    assert graph.rerank is not None, "it goes on to scores"
    scored = graph.rerank.made
    candidates = graph.filtering.retrieve.made
    return Fit(inputs.store, ingested, candidates, scored, inputs.late_fusion_scores)


def declared(graph: Graph) -> Sequence[Declared]:
    """All that this run may make, in its order."""
    return Ingest, Tokens, *map(type, graph.stages), *map(type, graph.outputs)
