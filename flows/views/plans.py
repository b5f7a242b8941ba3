"""What a run would do, and what it would take."""

from dataclasses import asdict, astuple
from typing import Any

from cir_core.planning.effort import Effort
from flows.plan import Plan
from flows.views.quantities import counted, duration, prefixed
from flows.views.tables import Column, Console, print_line, print_table

PLAN_HEADER = ["stage", "state", "images", "queries", "pairs", "FLOP", "disk", "time"]


def print_plan(plan: Plan, console: Console) -> None:
    """A row per stage and one for all, why a stage is not done, and what a run takes."""
    *_, flops, disk, time = _effort(plan.total)
    total = ["all", "", "", "", "", flops, disk, time]  # stages see the same images and pairs
    columns = [
        Column(name, right=name not in PLAN_HEADER[:2], whole=True, footer=sum_of_all)
        for name, sum_of_all in zip(PLAN_HEADER, total, strict=True)
    ]
    rows = [[planned.stage, planned.state, *_effort(planned.effort)] for planned in plan.stages]
    print_table(console, columns, rows, title="What a run would do")
    for line in _plan_lines(plan):
        print_line(console, line)
    if not plan.fits:
        told = "the disk is too small: free space, or move the store: --store"
        print_line(console, told, "bold red")


def plan_summary(plan: Plan) -> dict[str, Any]:
    """All of it, for programs."""
    return asdict(plan) | {"total": asdict(plan.total), "seconds": plan.seconds}


def _effort(effort: Effort) -> list[str]:
    """Empty where there is nothing to do."""
    told = [counted(number) for number in (effort.images, effort.queries, effort.pairs)]
    told += [prefixed(effort.flops), f"{prefixed(effort.bytes)}B", duration(effort.seconds)]
    return [cell if number else "" for cell, number in zip(told, astuple(effort), strict=True)]


def _plan_lines(plan: Plan) -> list[str]:
    stages: dict[str, list[str]] = {}
    for planned in plan.stages:
        stages.setdefault(planned.why, []).append(planned.stage)
    lines = [f"{', '.join(names)}: {why}" for why, names in stages.items() if why]
    lines = lines or ["nothing to do: every stage is there already"]
    lines += [
        f"time: {duration(plan.seconds)} on {plan.device}, {duration(plan.start)} of it to start "
        "and to look what is there",
        f"disk: {prefixed(plan.total.bytes)}B of {prefixed(plan.free)}B free",
    ]
    if plan.assumed_k:
        lines.append(
            f"pairs are counted as {plan.assumed_k} candidates a query: with -k auto their number "
            "is known once images and queries are encoded (`cir-pipeline encode`)"
        )
    if plan.with_cache:
        seconds, size = plan.start + plan.with_cache.seconds, plan.with_cache.bytes
        lines.append(f"with --tokens cache: {duration(seconds)}, {prefixed(size)}B")
    if plan.published_flops:
        published = prefixed(plan.published_flops)
        lines.append(f"the published loop would spend {published}FLOP on the same pairs")
    return lines
