"""Section ``cost``: what the run took to make, and what its gain cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cir_core.metrics.recall import AVERAGE
from tasks.results.analyses.analysis import Column, Numbers
from tasks.results.report.source import Source
from tasks.results.titles import title_of
from tasks.results.wording import copied_words

STAGES = [
    *("ingest", "tokens", "encode", "fuse", "embeddings"),
    *("threshold", "retrieve", "rerank", "fit", "rank", "evaluate"),
]
"""In the order of a run."""

MINUTE, HOUR, GIB = 60, 3600, 2**30


@dataclass(frozen=True)
class Cost:
    """In words; what each stage took; and what the gain cost, where a whole re-ranking is recorded
    of which nothing was taken from earlier runs.
    There are no words where nothing is."""

    told: Sequence[str]
    stages: Numbers
    gains: Numbers | None


def cost(source: Source) -> Cost:
    stages, gains = _stages(source), _gains(source)
    return Cost([*words_of(stages.rows), *_told_of_gain(source, gains)], stages, gains)


def _stages(source: Source) -> Numbers:
    sql = (
        "SELECT c.stage, c.seconds, c.images, c.queries, c.pairs, nullif(c.copied, 0) AS copied,\n"
        "       coalesce(s.pairs_per_second, s.images_per_second, s.queries_per_second) AS speed,\n"
        f"       c.gflop, s.gflop_per_second, c.peak_memory / {GIB} AS memory,\n"
        f"       c.peak_gpu_memory / {GIB} AS gpu_memory, c.recorded, c.unfinished,\n"
        "       concat_ws(', ', c.device, c.processor,\n"
        "                 c.threads || if(c.threads = 1, ' thread', ' threads'),\n"
        "                 if(c.processes > 1, c.processes || ' processes', NULL)) AS machine\n"
        "FROM costs c JOIN speeds s USING (run_id, stage)\n"
        f"WHERE {source.of_run} ORDER BY list_position({STAGES}, c.stage)"
    )
    columns = [
        Column("stage", "stage"),
        Column("seconds", "seconds", "number"),
        Column("images", "images", "count"),
        Column("queries", "queries", "count"),
        Column("pairs", "pairs", "count"),
        Column("copied", "from earlier runs", "count"),
        Column("speed", "items per second", "number"),
        Column("gflop", "GFLOP", "number"),
        Column("gflop_per_second", "GFLOP per second", "number"),
        Column("memory", "memory, GiB", "number"),
        Column("gpu_memory", "GPU memory, GiB", "number"),
        Column("machine", "machine"),
    ]
    rows = source.rows(sql)
    kept = [one for one in columns if any(row[one.field] is not None for row in rows)]
    return Numbers("", kept, rows, sql)


def _gains(source: Source) -> Numbers | None:
    sql = (
        "SELECT metric, k, pool, petaflop, points, points_low, points_high\n"
        f"FROM gain_per_petaflop WHERE {source.of_run} AND category = coalesce(\n"
        f"    (SELECT any_value(category) FROM metrics\n"
        f"     WHERE {source.of_run} AND category = '{AVERAGE}'),\n"
        f"    (SELECT any_value(category) FROM metrics WHERE {source.of_run}))\n"
        "ORDER BY metric DESC, k"
    )
    rows = [
        {
            **row,
            "measure": title_of(row["metric"], row["k"]),
            "between": f"[{row['points_low']:,.4g}, {row['points_high']:,.4g}]",
        }
        for row in source.rows(sql)
    ]
    columns = [
        Column("measure", "gain in"),
        Column("points", "points per PetaFLOP", "number"),
        Column("between", "95 %"),
    ]
    title = "What the gain cost: percentage points per PetaFLOP of stage 2"
    return Numbers(title, columns, rows, sql) if rows else None


def words_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a run's stages took: nothing where no time is known, nor of a stage 2 that had nothing
    to score."""
    timed = [row for row in rows if row["seconds"] is not None]
    if not timed:
        return []
    total, longest = sum(row["seconds"] for row in timed), max(timed, key=lambda r: r["seconds"])
    memory = max(row["memory"] for row in timed)
    told = [
        f"What this run is made of took {duration(total)}, {longest['stage']} "
        f"{100 * longest['seconds'] / total:.0f} % of it, and {memory:.1f} GiB of memory at most."
    ]
    told += [
        f"Stage 2 scored {row['pairs']:,} pairs, {row['speed']:,.0f} a second, on {row['machine']}."
        for row in timed
        if row["stage"] == "rerank" and row["pairs"]
    ]
    partial = [row["stage"] for row in rows if row["recorded"] < 1]
    if partial:
        told.append(
            f"Of {', '.join(partial)} not all work is recorded: these numbers are too small."
        )
    copied = copied_words(rows)
    return told if copied is None else [*told, copied]


def _told_of_gain(source: Source, gains: Numbers | None) -> list[str]:
    """By the headline, where it is among the gains."""
    metric, k = source.protocol.headline
    return [
        f"Stage 2 computed {row['petaflop']:,.3g} PetaFLOP, and raised {row['measure']} by "
        f"{row['points']:,.4g} points for each, 95 % interval {row['between']}."
        for row in (gains.rows if gains else ())
        if (row["metric"], row["k"]) == (metric, k) and row["points"] > 0
    ]


def duration(seconds: float) -> str:
    """Of 7.25, 200 and 8000: 7.2 s, 3 min 20 s, 2 h 13 min."""
    if seconds < MINUTE:
        return f"{seconds:.1f} s"
    if seconds < HOUR:
        return f"{int(seconds // MINUTE)} min {int(seconds % MINUTE)} s"
    return f"{int(seconds // HOUR)} h {int(seconds % HOUR // MINUTE)} min"
