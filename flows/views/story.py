"""One query's story, on the terminal."""

from collections.abc import Sequence
from itertools import zip_longest

from flows.views.tables import Cell, Column, Console, print_line, print_table
from storage.views import ADAPTIVE
from tasks.results.story import PoolStory, Row, Story

TARGET = "bold green"

POOLS = {"gallery": "in the gallery", "subset": "in the subset"}


def pictured(told: Story) -> dict[str, str]:
    """The images that tell most, by what they are: reference, target, and the first answer, where
    there are such, and it is another."""
    query, gallery = told.query, next((one for one in told.pools if one.pool == "gallery"), None)
    images = {"reference": query["reference_id"]}
    targets = query["recall_targets"] or []
    images |= {"target": targets[0]} if targets else {}
    ranking = (gallery.after or gallery.before) if gallery else ()
    if ranking and ranking[0]["image_id"] not in targets:
        images["first"] = ranking[0]["image_id"]
    return images


def print_story(told: Story, console: Console) -> None:
    """What was asked, why it failed if it did, and both stages' first candidates side by side."""
    query, run = told.query, told.run
    name = f"{run['name']!r}, " if run.get("name") else ""
    k = run["k"] if run.get("coverage_asked") is None else ADAPTIVE
    print_line(console, f"query {query['query_id']}", "bold")
    lines = {
        "run": f"{run['run_id']} ({name}{run['protocol']}, K = {k})",
        "category": query["category"],
        "reference": query["reference_id"],
        "text": query["text"],
        "or": query["other_text"],
        "target": ", ".join(query["targets"] or []) or "none: the query has no label",
    }
    for heading, line in lines.items():
        if line:
            print_line(console, f"{heading:<11}{line}")
    for problem in told.problems:
        what = f"{problem['item']}: {problem['kind']}, {problem['message']}"
        print_line(console, f"problem    {what}", "bold red")
    if not told.pools:
        print_line(console, "It has no candidates.")
    for pool in told.pools:
        print_line(console, "")
        print_line(console, _verdict(pool, reranked=bool(pool.after)))
        if pool.failed is not None:
            answered = pool.failed["answered"] or "nothing"
            print_line(console, f"{pool.failed['reason']}: {answered} is first")
        _print_candidates(pool, console)


def _verdict(pool: PoolStory, *, reranked: bool) -> str:
    """Where the best target stands."""
    where, placed = POOLS[pool.pool], pool.placed
    if placed is None:
        return f"{pool.candidates} candidates {where}"
    first = _place(placed["stage1_rank"])
    told = f"{where}, its target is {first} after stage 1"
    if reranked:
        told += f" and {_place(placed['stage2_rank'])} in the end"
    margin = pool.margin2 if reranked else pool.margin1
    if margin is not None:
        told += (
            f"; it scores {abs(margin):.4g} {'more' if margin > 0 else 'less'} than the best other"
        )
    return told


def _place(rank: int | None) -> str:
    return "ranked by nobody" if rank is None else f"no. {rank}"


def _print_candidates(pool: PoolStory, console: Console) -> None:
    heads = [Column("", right=True), Column("stage 1", whole=True), Column("score", right=True)]
    if not pool.after:
        rows: Sequence[Sequence[Cell]] = [_cells(row, "stage1") for row in pool.before]
        print_table(console, heads, rows)
        return
    columns = [*heads, *heads[:1], Column("stage 2", whole=True), heads[2], Column("moved")]
    both = zip_longest(pool.before, pool.after)
    print_table(
        console,
        columns,
        [
            [
                *(_cells(before, "stage1") if before else [""] * 3),
                *(_cells(after, "stage2") if after else [""] * 3),
                _arrow(after, console) if after else "",
            ]
            for before, after in both
        ],
    )


def _cells(row: Row, stage: str) -> list[Cell]:
    """Rank, image and score; a target stands out, also without colours."""
    style = TARGET if row["is_target"] else ""
    mark = " = target" if row["is_target"] else " = reference" if row["is_reference"] else ""
    rank = row["stage1_rank" if stage == "stage1" else "rank"]
    cells = (str(rank), row["image_id"] + mark, f"{row[f'{stage}_score']:.4f}")
    return [(cell, style) for cell in cells]


def _arrow(row: Row, console: Console) -> Cell:
    """By how many places re-ranking moved it."""
    moved = row["moved"]
    if not moved:
        return ""
    try:
        "↑↓".encode(console.encoding)
    except UnicodeEncodeError:
        return f"{moved:+}"
    return f"{'↑' if moved > 0 else '↓'} {abs(moved)}"
