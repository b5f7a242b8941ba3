"""The table of an ablation: what each row's runs found, beside the first's, and what it cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cir_core.errors import PreflightError
from cir_core.metrics.comparison import Answers, recall_gain, recall_interval, recall_spread
from cir_core.protocols import Protocol
from cir_core.types import Depth, Pool
from flows.ablation.trials import Trial
from storage.views import Evaluated
from tasks.planning.scoring_cost import ScoringCost
from tasks.stages.target_ranks import labelled_ranks


@dataclass(frozen=True)
class Recall:
    """Macro averages over categories, as fractions: the mean over seeds with its 95 % interval, the
    standard deviation from seed to seed, and the paired difference to the first row."""

    value: float
    low: float
    high: float
    spread: float | None
    gain: float
    gain_low: float
    gain_high: float


@dataclass(frozen=True)
class TrainingCost:
    """Means over seeds; ``since_step`` is above 0 where the first steps of a training were made by
    a version that kept no time."""

    seconds: float
    validation_seconds: float
    peak_memory: int
    since_step: int
    steps: int


@dataclass(frozen=True)
class TableRow:
    """``scoring`` is None of stage 1, and ``training`` of what was not trained here."""

    name: str
    seeds: Sequence[int]
    runs: Sequence[str]
    models: Sequence[str]
    k: Depth | None
    precision: str | None
    recall: Mapping[tuple[Pool, int], Recall]
    scoring: ScoringCost | None
    training: TrainingCost | None


@dataclass(frozen=True)
class Table:
    """``queries`` are the labelled ones behind every recall."""

    dataset: str
    split: str
    protocol: str
    queries: int
    galleries: Mapping[str, Mapping[str, Any]]
    rows: Sequence[TableRow]

    @property
    def measures(self) -> Sequence[tuple[Pool, int]]:
        """Of which every row has the recall."""
        return [*self.rows[0].recall]


@dataclass(frozen=True)
class Finished:
    """A trial and the run that measured it; ``model`` names the bytes of its stage 2."""

    trial: Trial
    evaluated: Evaluated
    k: Depth


def table_of(finished: Sequence[Finished], costs: Mapping[str, ScoringCost]) -> Table:
    """``finished`` in the table's order, the seeds of a row together; ``costs`` by run. Raises
    PreflightError when two rows answered other queries, or searched other galleries."""
    rows: dict[str, list[Finished]] = {}
    for one in finished:
        rows.setdefault(one.trial.row.name, []).append(one)
    first = finished[0].evaluated
    _require_comparable(finished)
    measured = {one.evaluated: labelled_ranks(one.evaluated) for one in finished}
    if not measured[first][0]:
        raise PreflightError(
            "an ablation's queries have no labels",
            item=first.run_id,
            cause="recall is counted over queries whose target is known",
            remedy="choose a labelled split in [data]",
        )
    answers = {
        name: {pool: _answers(several, measured, pool) for pool in measured[first][1]}
        for name, several in rows.items()
    }
    protocol, before = first.ingested.protocol, next(iter(answers.values()))
    return Table(
        dataset=first.ingested.setting("dataset"),
        split=first.ingested.setting("split"),
        protocol=protocol.name,
        queries=len(measured[first][0]),
        galleries=_galleries(first),
        rows=[
            _row(name, several, _recalls(protocol, before, answers[name]), costs)
            for name, several in rows.items()
        ],
    )


def _row(
    name: str,
    several: Sequence[Finished],
    recall: Mapping[tuple[Pool, int], Recall],
    costs: Mapping[str, ScoringCost],
) -> TableRow:
    one, reranks = several[0], several[0].trial.row.stage > 1
    scoring = costs[one.evaluated.run_id] if reranks else None
    return TableRow(
        name=name,
        seeds=[each.trial.seed for each in several if each.trial.seed is not None],
        runs=[each.evaluated.run_id for each in several],
        models=[each.evaluated.ranked.scored.digest("model") for each in several if reranks],
        k=one.k if reranks else None,
        precision=one.trial.run.precisions.told if reranks else None,
        recall=recall,
        scoring=scoring,
        training=_training([each.trial for each in several]),
    )


def _training(trials: Sequence[Trial]) -> TrainingCost | None:
    ledgers = [trial.ledger for trial in trials]
    known = [ledger for ledger in ledgers if ledger is not None]
    if not known:
        return None
    spent, count = [ledger.spent for ledger in known], len(known)
    return TrainingCost(
        seconds=sum(one.steps for one in spent) / count,
        validation_seconds=sum(one.validations for one in spent) / count,
        peak_memory=max(one.peak_memory for one in spent),
        since_step=max(one.since for one in spent),
        steps=known[0].step,
    )


def _answers(
    several: Sequence[Finished],
    measured: Mapping[Evaluated, tuple[list[str], Mapping[Pool, Any]]],
    pool: Pool,
) -> Answers:
    ranks = [measured[one.evaluated][1][pool] for one in several]
    stage = f"stage{several[0].trial.row.stage}"
    return Answers(ranks[0].category, [getattr(one, stage) for one in ranks])


def _recalls(
    protocol: Protocol, before: Mapping[Pool, Answers], after: Mapping[Pool, Answers]
) -> dict[tuple[Pool, int], Recall]:
    ks = {"gallery": protocol.ks, "subset": protocol.subset_ks}
    return {
        (pool, k): Recall(
            *recall_interval(after[pool], k),
            recall_spread(after[pool], k),
            *recall_gain(before[pool], after[pool], k),
        )
        for pool in after
        for k in ks[pool]
    }


def _require_comparable(finished: Sequence[Finished]) -> None:
    """The same queries, asked of the same galleries under the same protocol."""
    first = finished[0]
    for other in finished[1:]:
        differing = [
            what
            for what, of in (
                ("the protocol", lambda run: run.ingested.protocol.name),
                ("the queries, their texts or their targets", _queries),
                ("the galleries", _galleries),
            )
            if of(other.evaluated) != of(first.evaluated)
        ]
        if differing:
            raise PreflightError(
                "two rows of an ablation do not compare",
                item=f"{first.trial.row.name!r} (run {first.evaluated.run_id}) and "
                f"{other.trial.row.name!r} (run {other.evaluated.run_id})",
                cause=f"{', '.join(differing)} differ: images or annotations may have changed "
                "between the two runs",
                remedy="run the same command again: what has changed is made anew",
            )


def _queries(run: Evaluated) -> Any:
    return run.ingested.read("queries").sort_by("query_id").to_pylist()


def _galleries(run: Evaluated) -> dict[str, dict[str, Any]]:
    rows = run.read("galleries").to_pylist()
    return {row["category"]: {n: v for n, v in row.items() if n != "category"} for row in rows}
