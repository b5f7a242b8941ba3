"""Where does re-ranking move the targets?"""

from collections.abc import Mapping, Sequence
from typing import Any

from storage.answers import OpenCatalog
from tasks.results.analyses.analysis import (
    Analysis,
    Answered,
    Column,
    Figure,
    Numbers,
    asked,
    small_marked,
)
from tasks.results.wording import counted, is_reranked, late_fusion, of_run, part

STEPS = (1, 2, 5, 10, 20, 50)
"""Places moved, up or down, at which a bar of the histogram begins."""


def movement(catalog: OpenCatalog, run: Mapping[str, Any]) -> Analysis:
    """Of every labelled query whose best target is a candidate: its rank before and after."""
    name, question = "movement", "Where does re-ranking move the targets?"
    if not is_reranked(run):
        missing = (
            "Nothing was re-ranked: `cir-pipeline run` with the same settings and a stage 2 goes "
            "on from these candidates."
        )
        return Analysis(name, question, missing=missing)
    categories = asked(catalog, _categories_sql(run))
    if not categories["rows"]:
        missing = "No query has a label and its target among the candidates."
        return Analysis(name, question, missing=missing)
    totals = {
        field: sum(row[field] for row in categories["rows"])
        for field in ("n", "up", "same", "down", "mended", "broken")
    }
    return Analysis(
        name=name,
        question=question,
        answer=_answer(totals),
        advice=_advice(run, totals),
        figures=[_scatter(catalog, run), _histogram(catalog, run)],
        numbers=[_table(categories)],
    )


def _of_candidates(run: Mapping[str, Any]) -> str:
    return f"FROM rank_movement WHERE {of_run(run)} AND pool = 'gallery' AND is_candidate"


def _categories_sql(run: Mapping[str, Any]) -> str:
    return (
        "SELECT category, count(*) AS n, count(*) FILTER (places_gained > 0) AS up,\n"
        "       count(*) FILTER (places_gained = 0) AS same,\n"
        "       count(*) FILTER (places_gained < 0) AS down,\n"
        "       count(*) FILTER (stage1_rank > 1 AND stage2_rank = 1) AS mended,\n"
        "       count(*) FILTER (stage1_rank = 1 AND stage2_rank > 1) AS broken,\n"
        "       median(stage1_rank) AS median1, median(stage2_rank) AS median2\n"
        f"{_of_candidates(run)}\nGROUP BY category ORDER BY category"
    )


def _answer(totals: Mapping[str, int]) -> str:
    parts = {field: part(totals[field], totals["n"]) for field in ("up", "down", "same")}
    return (
        f"Of {counted(totals['n'], 'target')} among the candidates, stage 2 moves {parts['up']} "
        f"up, {parts['down']} down, and leaves {parts['same']} in place. It brings "
        f"{totals['mended']:,} to the first place, and takes {totals['broken']:,} from it."
    )


def _advice(run: Mapping[str, Any], totals: Mapping[str, int]) -> str:
    if totals["broken"] > totals["mended"]:
        return (
            "Stage 2 breaks more first places than it makes: is it the model for this stage 1, "
            "and trained for such queries? A late fusion "
            f"({late_fusion(run)}) keeps more of stage 1's order."
        )
    if 2 * totals["broken"] > totals["mended"] > 0:
        return (
            "What stage 2 takes from the first place is a large part of what it brings there: a "
            f"late fusion ({late_fusion(run)}) may keep both."
        )
    return ""


def _scatter(catalog: OpenCatalog, run: Mapping[str, Any]) -> Figure:
    sql = (
        "SELECT stage1_rank AS x, stage2_rank AS y, count(*) AS n,\n"
        "       CASE sign(places_gained) WHEN 1 THEN 'moved up' WHEN 0 THEN 'stayed'\n"
        "            ELSE 'moved down' END AS series\n"
        f"{_of_candidates(run)}\nGROUP BY ALL ORDER BY n DESC, x, y"
    )
    return Figure(
        kind="scatter",
        x="rank in stage 1",
        y="rank after stage 2",
        described="Each target's rank before and after re-ranking; below the diagonal it moved "
        "up. A larger point stands for more queries.",
        are_ranks=True,
        **asked(catalog, sql),
    )


def _histogram(catalog: OpenCatalog, run: Mapping[str, Any]) -> Figure:
    bars = [*_bars("up", STEPS[::-1]), ("stayed", "places_gained = 0"), *_bars("down", STEPS)]
    cases = "\n".join(
        f"            WHEN {condition} THEN {place}" for place, (_, condition) in enumerate(bars)
    )
    sql = (
        f"SELECT ({[told for told, _ in bars]})[bar + 1] AS x, count(*) AS y\n"
        f"FROM (SELECT CASE\n{cases}\n        END AS bar\n    {_of_candidates(run)})\n"
        "GROUP BY bar ORDER BY bar"
    )
    return Figure(
        kind="bars",
        x="places moved",
        y="targets",
        described="How many targets re-ranking moved up and down, by how many places.",
        **asked(catalog, sql),
    )


def _bars(way: str, steps: Sequence[int]) -> list[tuple[str, str]]:
    """The words and the condition of the bars of one way."""
    bars = []
    for step in steps:
        later = [one for one in STEPS if one > step]
        last = min(later) - 1 if later else None
        places = "places_gained" if way == "up" else "-places_gained"
        if last is None:
            bars.append((f"{way} {step} or more", f"{places} >= {step}"))
        elif last == step:
            bars.append((f"{way} {step}", f"{places} = {step}"))
        else:
            bars.append((f"{way} {step} to {last}", f"{places} BETWEEN {step} AND {last}"))
    return bars


def _table(categories: Answered) -> Numbers:
    columns = [
        Column("category", "category"),
        Column("n", "targets", "count"),
        Column("up", "up", "count"),
        Column("same", "stayed", "count"),
        Column("down", "down", "count"),
        Column("mended", "brought to first", "count"),
        Column("broken", "taken from first", "count"),
        Column("median1", "median rank, stage 1", "number"),
        Column("median2", "stage 2", "number"),
    ]
    title = "Of targets among the candidates, by category"
    return Numbers(title, columns, small_marked(categories["rows"]), categories["sql"])
