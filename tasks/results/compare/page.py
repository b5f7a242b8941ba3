"""A comparison as a page: all pairs, and the queries that differ most, with pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.results.album import Album
from tasks.results.compare.answers import Answers
from tasks.results.compare.cells import Told, called
from tasks.results.compare.comparison import Comparison
from tasks.results.compare.examples import OF_A_PAIR, OF_MANY, Example, differ_most
from tasks.results.report.page import Page

STYLES = "page.css", "compare.css"


@dataclass(frozen=True)
class Group:
    """Queries that the run called ``better`` answers better than ``worse``; ``names`` and ``runs``,
    their ids, are in the order of the comparison."""

    better: str
    worse: str
    names: tuple[str, str]
    runs: tuple[str, str]
    examples: Sequence[Example]


def render(
    comparison: Comparison, told: Told, root: Path | None, *, is_beside_reports: bool
) -> str:
    """``told`` of every pair; examples of the pairs with the first run; links to the runs' reports,
    where these lie beside it."""
    groups = _groups(comparison) if comparison.standings else []
    content = {
        "told": told,
        "groups": groups,
        "pictures": _pictures(comparison.answers[0], groups, root),
        "runs": [(called(each), each.run.run_id) for each in comparison.answers],
        "is_beside_reports": is_beside_reports,
        "has_root": root is not None,
    }
    title = f"cir-pipeline: {' and '.join(called(each) for each in comparison.answers)}"
    return Page().render("compare.html.j2", content, title=title, styles=STYLES)


def _groups(comparison: Comparison) -> list[Group]:
    first, *others = comparison.answers
    rows = first.run.ingested.read("queries").to_pylist()
    queries = {row["query_id"]: row for row in rows}
    each_way = OF_A_PAIR if len(others) == 1 else OF_MANY
    groups = []
    for other in others:
        names = called(first), called(other)
        ways = differ_most(first, other, queries, each_way)
        groups += [
            Group(*better, names, (first.run.run_id, other.run.run_id), examples)
            for better, examples in zip((names, names[::-1]), ways, strict=True)
            if examples
        ]
    return groups


def _pictures(first: Answers, groups: Sequence[Group], root: Path | None) -> dict[str, str]:
    """Small ones within the page, by image; none without ``root``."""
    if root is None:
        return {}
    shown = (one for group in groups for example in group.examples for one in example.images)
    images = list(dict.fromkeys(shown))
    drawn = Album(first.run.ingested.read("images"), root).pictures(images, root, files=0)
    return {image: picture.inline for image, picture in zip(images, drawn, strict=True)}
