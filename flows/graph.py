"""The stages of a run, and what each of them is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flows.first_stage import choosing_of, require_no_prior
from flows.inputs import Inputs
from storage.views import Ingested, Pair
from tasks.models.opening import read_reranker_config, read_retriever_config
from tasks.results.report import Report
from tasks.results.takeaway import Takeaway
from tasks.stages.choosing import Choosing
from tasks.stages.encode import Encode
from tasks.stages.evaluate import Evaluate
from tasks.stages.first_pass import FirstPass
from tasks.stages.fuse import Fuse
from tasks.stages.ingest import Ingest
from tasks.stages.output import Output
from tasks.stages.over_pictures import OverPictures
from tasks.stages.publish import Publish
from tasks.stages.rank import Rank
from tasks.stages.read_candidates import ReadCandidates
from tasks.stages.read_embeddings import ReadEmbeddings
from tasks.stages.rerank import Rerank
from tasks.stages.retrieve import Retrieve
from tasks.stages.stage import Stage
from tasks.stages.tokens import Tokens, tokens_of

STAGES = (
    *(Ingest, Tokens, Encode, Fuse, Retrieve, Rerank, Rank, Evaluate),
    *(Publish, Report, Takeaway),
)
"""All that a run of two models may make, in its order."""

HANDED_OVER: dict[type[Stage[Any]], str] = {
    ReadCandidates: "candidates",
    ReadEmbeddings: "embeddings",
}
"""What another first stage is made of, in place of ``Retrieve`` and before it; by which setting."""


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
    """All stages of a run after its split is ingested."""

    filtering: Filtering
    rerank: Rerank
    rank: Rank
    evaluate: Evaluate
    outputs: tuple[Output, ...]

    @property
    def stages(self) -> Sequence[Stage[Any]]:
        first = self.filtering
        chosen = *first.read, first.retrieve
        return first.encode, first.fuse, *chosen, self.rerank, self.rank, self.evaluate

    @property
    def over_pictures(self) -> Sequence[OverPictures[Any]]:
        """Those that see images."""
        return self.filtering.encode, self.filtering.fuse, self.rerank


def filtering_of(inputs: Inputs, ingested: Ingested, models: Pair) -> Filtering:
    """``models`` says which stage 1 was checked."""
    store, model = inputs.store, models.digest("stage1")
    pictures = read_retriever_config(inputs.stage1).pictures
    seen = (ingested, inputs.stage1, inputs.data_root, model, pictures)
    encode, fuse = Encode(store, *seen), Fuse(store, *seen)
    read, retrieve = choosing_of(inputs, ingested, encode, fuse)
    return Filtering(encode, fuse, retrieve, tuple(read))


def graph_of(inputs: Inputs, ingested: Ingested, pair: Pair) -> Graph:
    """Whether or not anything of it is there."""
    store = inputs.store
    first = filtering_of(inputs, ingested, pair)
    candidates, fused, encoded = first.retrieve.made, first.fuse.made, first.encode.made
    model, prior = pair.digest("stage2"), pair.setting("prior")
    require_no_prior(inputs, prior)
    seen = (ingested, inputs.stage2, inputs.data_root, model)
    reranker = read_reranker_config(inputs.stage2)
    asked = (fused if reranker.state_width else None, reranker.reads_references)
    rerank = Rerank(store, *seen, *asked, candidates, prior, inputs.precision)
    rank = Rank(store, ingested, candidates, rerank.made)
    evaluate = Evaluate(store, ingested, encoded, candidates, rank.made, first.retrieve.k)
    outputs: list[Output] = [Publish(evaluate.made), Report(evaluate.made, inputs.data_root)]
    if inputs.dataset.writes_ranked:
        outputs.append(Takeaway(evaluate.made))
    return Graph(first, rerank, rank, evaluate, tuple(outputs))


def declared(graph: Graph) -> Sequence[Declared]:
    """All that this run may make, in its order."""
    return Ingest, Tokens, *map(type, graph.stages), *map(type, graph.outputs)


def tokens_in(inputs: Inputs, ingested: Ingested) -> Tokens:
    """The image tokens that a run may keep; opens stage 1."""
    return tokens_of(ingested, inputs.stage1, inputs.data_root, "fp32")
