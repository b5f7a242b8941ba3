"""Fewer pairs at equal recall: after an early layer of stage 2 a query's hopeless candidates are
let go. What recall that costs, and what FLOPs it saves, on the demo's validation queries.

    python benchmarks/cascade.py                       # every exit; two minutes on two cores
    python benchmarks/cascade.py --exit-after 1 --coverage 0.99 --store cir-store
    python benchmarks/cascade.py --exit-after 1 --within 0.995     # of the candidates of `-k auto`

An exit is fitted on half of the selection queries, which no training has seen, and its reach is
calibrated on the other half: for 1 - coverage of the queries, at most, a hit may be lost at any of
the k that are counted. Costs are the engine's, counted for the pairs that go on, image by image;
these are scored from their first layer again.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import torch
import typer
from machine import machine

from cir_core.cascade import below_best, cascade_ranks, reach_of_hits
from cir_core.conformal import Assurance, fold_of, threshold
from cir_core.metrics.comparison import Answers, recall_gain, recall_interval
from cir_core.ordering import grouped_best_first, with_prior
from cir_core.ports import FusedQueries, Load
from cir_core.rerankers.dual.engine import RerankEngine
from cir_core.rerankers.dual.exits import LeastSquares, first_layers
from cir_core.rerankers.dual.model import Stage2Model
from flows.engines.engine import InProcess
from flows.run import Run, run_pipeline
from flows.settings import Settings, demo_root, shipped_model
from storage.tables import rows_of
from storage.view import View
from storage.views import Fused, Ingested, Retrieved, Scored
from tasks.feed.image_tokens import Pictures, compute_tokens
from tasks.machine import Machine
from tasks.models.opening import open_stage2
from tasks.stages.asking import ask_with_z_t
from tasks.stages.scored import scored_candidates
from tasks.stages.target_ranks import labels_of

COVERAGES = (0.95, 0.98, 0.99, 0.995)
KS = (1, 5, 10)
"""At which hits shall be kept, as the demo's protocol counts them."""

NEVER = np.iinfo(np.int64).max
"""Rank of a target that is no candidate."""

CPU = torch.device("cpu")
Viewed = TypeVar("Viewed", bound=View)


@dataclass(frozen=True)
class Pairs:
    """The candidates of a split's queries, scored by all of stage 2. The demo's queries have a text
    each, and one target, which ``target`` says the row of (-1: it is no candidate)."""

    asked: FusedQueries
    tokens: torch.Tensor
    text: np.ndarray
    image: np.ndarray
    query: np.ndarray
    position: np.ndarray
    cosine: np.ndarray
    scores: np.ndarray
    target: np.ndarray
    query_ids: Sequence[str]
    category: Sequence[str]

    def ranks(self, scores: np.ndarray) -> np.ndarray:
        order, ranks = grouped_best_first(self.query, scores, self.position)
        return ranks[np.argsort(order)]

    def answers(self, ranks: np.ndarray) -> Answers:
        return Answers(self.category, [np.where(self.target < 0, NEVER, ranks[self.target])])

    def of_fold(self, fold: int) -> np.ndarray:
        """The queries of a half."""
        return np.array([fold_of(one) == fold for one in self.query_ids])

    def load(self, rows: np.ndarray) -> Load:
        images, image = np.unique(self.image[rows], return_inverse=True)
        return Load.of(self.asked.lengths[self.text[rows]], image, images=len(images))


def main(
    exit_after: Annotated[list[int] | None, typer.Option(help="Layers before the exit.")] = None,
    coverage: Annotated[
        list[float] | None, typer.Option(help="Of queries that lose no hit.")
    ] = None,
    within: Annotated[
        float | None, typer.Option(help="Exits see what stage 1's score leaves at this coverage.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Candidates a query.")] = 50,
    store: Annotated[Path | None, typer.Option(help="Where runs are kept.")] = None,
) -> None:
    """By exit and coverage: pairs that go on, FLOPs, recall and its paired difference. An exit
    after no layer is stage 1's score alone: what a cascade has to beat."""
    model = open_stage2(shipped_model("stage2"))
    with tempfile.TemporaryDirectory() as folder:
        seen, asked = (
            read_pairs(store or Path(folder), split, k, model) for split in ("selection", "val")
        )
    everything = entering = np.ones(len(asked.text), dtype=bool)
    full, whole = asked.answers(asked.ranks(asked.scores)), gflop(model, asked, everything)
    print(machine())
    print(
        f"demo val, K = {k}: {len(asked.category)} queries, {len(asked.text)} pairs, {whole:.4f} "
        f"GFLOP a query; {len(seen.category)} selection queries\n"
    )
    if within is not None:
        entering = staying(asked, asked.cosine, reaches(seen, seen.cosine), within)
        print(f"exits see {entering.mean():.1%} of the pairs: coverage {within} by stage 1's score")
    recalls = " | ".join(f"R@{k}" for k in KS)
    print(f"exit after | coverage | pairs | GFLOP a query | {recalls} | lose a hit")
    print(f"none | | 100% | {whole:.4f} | {' | '.join(recall(full, k) for k in KS)} | 0")
    for layers in exit_after or range(model.config.text.layers):
        first, known_scores, found = 0.0, seen.cosine, asked.cosine
        if layers:
            exit_model = fit_exit(model, layers, seen)
            first = gflop(exit_model, asked, entering)
            known_scores, found = score(exit_model, seen), score(exit_model, asked)
        known = reaches(seen, known_scores)
        for wanted in coverage or COVERAGES:
            goes_on = entering & staying(asked, found, known, wanted)
            answers = asked.answers(cascaded(asked, entering, found, goes_on))
            cost = first + gflop(model, asked, goes_on)
            print(
                f"{layers} | {wanted} | {goes_on.mean():.1%} | {cost:.4f} ({cost / whole:.1%}) | "
                + " | ".join(f"{recall(answers, k)} ({gain(full, answers, k)})" for k in KS)
                + f" | {losing(full, answers):.2%}",
                flush=True,
            )


def staying(
    asked: Pairs, exit_scores: np.ndarray, known: np.ndarray, coverage: float
) -> np.ndarray:
    """Who goes on by these scores, calibrated by the reaches that are known; all, where these are
    too few for the coverage."""
    reach = threshold(known, Assurance(coverage))
    return below_best(asked.query, exit_scores) <= (np.inf if reach is None else reach)


def cascaded(
    asked: Pairs, entering: np.ndarray, found: np.ndarray, goes_on: np.ndarray
) -> np.ndarray:
    """Ranks of all: those that went on by stage 2, then those that entered by the exit, then the
    others by stage 1's score."""
    by_exit = cascade_ranks(asked.query, entering, asked.cosine, found, asked.position)
    return cascade_ranks(asked.query, goes_on, -by_exit, asked.scores, asked.position)


def read_pairs(store: Path, split: str, k: int, model: Stage2Model) -> Pairs:
    """Of a run up to stage 2's scores; its images are seen once more."""
    settings = {"store": store, "split": split, "k": k, "until": "rerank", "device": "cpu"}
    run = run_pipeline(Settings.model_validate(settings), InProcess())
    ingested, candidates = view_of(run, Ingested), view_of(run, Retrieved)
    asking, queries = ask_with_z_t(view_of(run, Fused)), ingested.read("queries")
    table = scored_candidates(ingested, candidates, view_of(run, Scored))
    pictures = Pictures(ingested, demo_root(store), Machine())
    plan = pictures.plan(range(len(pictures.distinct)))
    with compute_tokens(pictures, model.vision, plan) as batches:
        tokens = torch.cat([seen.tokens for seen in batches])
    question = asking.table["question"].to_numpy()
    text_of_question = np.argsort(asking.of_text)
    query = rows_of(table["query_id"], queries["query_id"])
    image, labels = pictures.distinct.of(table["image_id"]), labels_of(queries)
    wanted = pictures.distinct.of(labels["image_id"])  # a label a query
    is_target = image == wanted[query]
    target = np.full(len(queries), -1)
    target[query[is_target]] = np.flatnonzero(is_target)
    return Pairs(
        asked=asking.queries,
        tokens=tokens,
        text=text_of_question[question[rows_of(table["query_id"], asking.table["query_id"])]],
        image=image,
        query=query,
        position=table["position"].to_numpy(),
        cosine=table["stage1_score"].to_numpy(),
        scores=table["stage2_score"].to_numpy(),
        target=target,
        query_ids=queries["query_id"].to_pylist(),
        category=queries["category"].to_pylist(),
    )


def view_of(run: Run, kind: type[Viewed]) -> Viewed:
    view = run.artifacts[kind.stage]
    assert isinstance(view, kind)
    return view


def fit_exit(model: Stage2Model, layers: int, seen: Pairs) -> Stage2Model:
    """On the first half of the selection queries."""
    rows = np.flatnonzero(seen.of_fold(0)[seen.query])
    engine = RerankEngine(first_layers(model, layers), seen.asked, device=CPU)
    states = engine.states(seen.tokens, seen.text[rows], seen.image[rows])
    fit = LeastSquares(states.shape[1]).add(states, seen.cosine[rows], seen.scores[rows])
    return first_layers(model, layers, fit.head())


def score(model: Stage2Model, pairs: Pairs) -> np.ndarray:
    engine = RerankEngine(model, pairs.asked, device=CPU)
    scores = engine.score(pairs.tokens, pairs.text, pairs.image)
    return with_prior(scores, pairs.cosine, model.config.prior)


def reaches(pairs: Pairs, exit_scores: np.ndarray) -> np.ndarray:
    """Of each query of the second half, so that it loses no hit."""
    there = pairs.target >= 0
    targets = pairs.target[there]
    found = np.zeros(len(there))
    found[there] = reach_of_hits(
        below_best(pairs.query, exit_scores)[targets],
        pairs.ranks(exit_scores)[targets],
        pairs.ranks(pairs.scores)[targets],
        KS,
    )
    return found[pairs.of_fold(1)]


def gflop(model: Stage2Model, pairs: Pairs, rows: np.ndarray) -> float:
    """A query; each query is begun once by the exit, and once more by all of stage 2."""
    config, texts = model.config, np.unique(pairs.text)
    flops = config.beginning_flops(pairs.asked.lengths[texts])
    flops += config.scoring_flops(pairs.load(rows))
    return flops / len(pairs.category) / 1e9


def losing(before: Answers, after: Answers) -> float:
    """The share of queries that lose a hit at any k: what coverage bounds."""
    lost = [before.hits(k) > after.hits(k) for k in KS]
    return float(np.any(lost, axis=0).mean())


def recall(answers: Answers, k: int) -> str:
    return f"{100 * recall_interval(answers, k).value:.2f}"


def gain(before: Answers, after: Answers, k: int) -> str:
    value, low, high = recall_gain(before, after, k)
    return f"{100 * value:+.2f}, {100 * low:+.2f} to {100 * high:+.2f}"


if __name__ == "__main__":
    typer.run(main)
