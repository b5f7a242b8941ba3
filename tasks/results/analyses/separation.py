"""Do easy and hard negatives separate? Both stages' scores of targets, kept and dropped images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cir_core.metrics.significance import Interval, gain_interval
from storage.answers import OpenCatalog
from tasks.results.analyses.analysis import Analysis, Column, Numbers, Row
from tasks.results.analyses.score_distributions import (
    KINDS,
    histogram,
    overlap_numbers,
    told_of_overlap,
)
from tasks.results.analyses.stage_agreement import (
    advice_on_correlation,
    correlations,
    disagreements,
    told_of_correlation,
    within_queries,
)
from tasks.results.wording import (
    counted,
    is_reranked,
    late_fusion,
    more_candidates,
    of_run,
    percent,
    points,
    sentences,
)

FEW = 0.01
"""Queries that would lose their first place: no more than a gain that few queries show."""

QUESTION = "Do easy and hard negatives separate?"

NOTHING = (
    "No labelled query has its target and another image among its candidates, and no query has two "
    "candidates that both stages tell apart."
)


@dataclass(frozen=True)
class _Beaten:
    """How often a query's target scores higher than its negatives of a kind: the mean over so many
    queries, of each stage, and the gain. Stage 2's are None where nothing was re-ranked.

    Stage 1 ranks a target that it has kept above all that it has dropped; so of dropped images
    there is no gain, but a ``risk``: the share of queries that would lose their right first answer
    to one of them, were the whole gallery re-ranked, at most. (It is how many would come before
    such a target, on average over all queries; several may come before one.)
    """

    negatives: str
    queries: int
    stage1: float | None
    stage2: float | None
    gain: Interval | None = None
    risk: float | None = None

    @property
    def row(self) -> Row:
        gain = self.gain
        return {
            "negatives": KINDS[self.negatives],
            "n": self.queries,
            "stage1": self.stage1,
            "stage2": self.stage2,
            "gain": None if gain is None else gain.value,
            "interval": None if gain is None else (gain.low, gain.high),
        }


def separation(catalog: OpenCatalog, run: Mapping[str, Any]) -> Analysis:
    """Shares are over labelled queries whose target is a candidate; correlations over all pairs."""
    reranked = is_reranked(run)
    stages = ("stage1", "stage2") if reranked else ("stage1",)
    beaten = [_beaten(rows) for rows in _by_kind(catalog, run)]
    overlaps = overlap_numbers(catalog, run, stages) if beaten else None
    correlated = correlations(catalog, run) if reranked else None
    correlation = None if correlated is None else within_queries(correlated)
    answer = sentences(
        _told_of_targets(beaten),
        "" if overlaps is None else told_of_overlap(overlaps),
        told_of_correlation(correlation),
        _told_of_dropped(beaten, reranked=reranked),
    )
    if not answer:
        return Analysis("separation", QUESTION, missing=NOTHING)
    return Analysis(
        name="separation",
        question=QUESTION,
        answer=answer,
        advice=_advice(run, beaten, correlation),
        figures=[histogram(catalog, run, stage) for stage in stages] if beaten else [],
        numbers=[
            *([_beaten_numbers(run, beaten), overlaps] if overlaps else []),
            *([correlated, disagreements(catalog, run)] if correlated else []),
        ],
    )


# --- targets against negatives


def _by_kind(catalog: OpenCatalog, run: Mapping[str, Any]) -> list[Sequence[Row]]:
    sql = f"""\
SELECT s.negatives, s.stage1, s.stage2,
       CASE WHEN m.stage2_rank = 1 THEN greatest(0, g.images - c.kept) ELSE 0 END AS at_risk
FROM separation s
JOIN rank_movement m ON m.run_id = s.run_id AND m.query_id = s.query_id AND m.pool = 'gallery'
JOIN galleries g ON g.run_id = s.run_id AND g.category = s.category
JOIN (SELECT run_id, query_id, count(*) AS kept FROM candidates WHERE pool = 'gallery'
      GROUP BY ALL) c ON c.run_id = s.run_id AND c.query_id = s.query_id
WHERE {of_run(run, "s.")} ORDER BY s.query_id"""
    kinds: dict[str, list[Row]] = {kind: [] for kind in KINDS}
    for row in catalog.rows(sql):
        kinds[row["negatives"]].append(row)
    return [rows for rows in kinds.values() if rows]


def _beaten(rows: Sequence[Row]) -> _Beaten:
    columns = {
        name: np.array([row[name] for row in rows], dtype=float)
        for name in ("stage1", "stage2", "at_risk")
        if rows[0][name] is not None
    }
    means = {name: float(column.mean()) for name, column in columns.items()}
    kind = rows[0]["negatives"]
    found = _Beaten(kind, len(rows), means.get("stage1"), means.get("stage2"))
    if kind == "dropped":
        risk = (1 - columns["stage2"]) * columns["at_risk"]
        return replace(found, risk=min(1.0, float(risk.mean())))
    if found.stage2 is None:
        return found
    return replace(found, gain=gain_interval([columns["stage2"] - columns["stage1"]]))


def _told_of_targets(beaten: Sequence[_Beaten]) -> str:
    return " ".join(
        f"A target scores higher than {_shares(one)} of its query's {KINDS[one.negatives]}"
        f"{_compared(one)}."
        for one in beaten
    )


def _compared(beaten: _Beaten) -> str:
    if beaten.risk is not None:
        return (
            f" (a sample; by it, at most {percent(beaten.risk)} of these queries would lose their "
            "first place to such an image, were the whole gallery re-ranked)"
        )
    return "" if beaten.gain is None else f": {points(beaten.gain)}"


def _shares(beaten: _Beaten) -> str:
    named = {"stage 1": beaten.stage1, "stage 2": beaten.stage2}
    told = [f"{percent(share)} (by {name})" for name, share in named.items() if share is not None]
    return " and ".join(told)


def _told_of_dropped(beaten: Sequence[_Beaten], *, reranked: bool) -> str:
    if not reranked or not beaten or any(one.negatives == "dropped" for one in beaten):
        return ""
    return "Of the images that stage 1 dropped none is scored: `cir-pipeline analyse` scores some."


def _beaten_numbers(run: Mapping[str, Any], beaten: Sequence[_Beaten]) -> Numbers:
    return Numbers(
        title="How often a target scores higher than a negative of its query (equal: one half)",
        columns=[
            Column("negatives", "negatives"),
            Column("n", "queries", "count"),
            Column("stage1", "stage 1", "percent"),
            Column("stage2", "stage 2", "percent"),
            Column("gain", "gain", "gain"),
            Column("interval", "95 %", "interval"),
        ],
        rows=[one.row for one in beaten],
        sql="SELECT negatives, count(*) AS n, avg(stage1) AS stage1, avg(stage2) AS stage2,\n"
        "       avg(stage2 - stage1) AS gain\n"
        f"FROM separation WHERE {of_run(run)} GROUP BY negatives ORDER BY negatives DESC",
    )


# --- what to do


def _advice(run: Mapping[str, Any], beaten: Sequence[_Beaten], correlation: Row | None) -> str:
    of = {one.negatives: one for one in beaten}
    return sentences(
        _advice_on_kept(run, of.get("kept")),
        _advice_on_dropped(run, of.get("dropped")),
        advice_on_correlation(run, correlation),
    )


def _advice_on_kept(run: Mapping[str, Any], kept: _Beaten | None) -> str:
    if kept is None or kept.gain is None:
        return ""
    if kept.gain.low > 0:
        return (
            "Stage 2 tells targets from hard negatives better than stage 1 does: it earns its time."
        )
    if kept.gain.high < 0:
        return (
            "Stage 2 tells targets from hard negatives worse than stage 1 does: train it on stage "
            "1's own candidates, check that the two models are a pair, or add stage 1's score "
            f"({late_fusion(run)})."
        )
    told = counted(kept.queries, "query", "queries")
    return (
        f"From {told}, it does not show whether stage 2 tells targets from hard negatives better "
        "or worse than stage 1."
    )


def _advice_on_dropped(run: Mapping[str, Any], dropped: _Beaten | None) -> str:
    if dropped is None or dropped.risk is None:
        return ""
    if dropped.risk > FEW:
        return (
            f"Easy negatives may fool stage 2: with {more_candidates(run)} some come before "
            "targets. Keep these candidates, or add stage 1's score "
            f"({late_fusion(run)})."
        )
    return (
        f"Easy negatives do not fool stage 2: as far as the sample tells, {more_candidates(run)} "
        "costs time alone."
    )
