"""The tables of docs/settings.md: ``python -m tests.support.settings_page`` writes them anew."""

import re
from collections.abc import Iterable, Iterator

from pydantic import BaseModel

from flows.ablation_settings import AblationSettings
from flows.about import Setting, settings_of
from flows.comparison_settings import ComparisonSettings
from flows.settings import Settings
from flows.training_settings import TrainingSettings
from tests.support.documents import ROOT

PAGE = ROOT / "docs" / "settings.md"
TABLES: dict[str, type[BaseModel]] = {
    "Settings of a run": Settings,
    "Settings of a training": TrainingSettings,
    "Settings of an ablation": AblationSettings,
    "Settings of a comparison": ComparisonSettings,
}
_HEAD = ("| setting | terminal | default | changes results | meaning |", "|---|---|---|---|---|")


def rendered(page: str) -> str:
    """The page, with each table as the declarations are now.

    Raises ValueError where a heading is lost.
    """
    for title, settings in TABLES.items():
        table = "\n".join(table_of(settings_of(settings)))
        section = re.compile(rf"^## {title}\n\n((\|.*\n)+\n)?", re.MULTILINE)
        new = f"## {title}\n\n{table}\n\n"
        page, count = section.subn(lambda _, new=new: new, page)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"the page has {count} headings '## {title}'")
    return page


def table_of(settings: Iterable[Setting]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield from _HEAD
    for one in settings:
        words = one.default_words
        default = "" if words is None else words if one.about.default else f"`{words}`"
        flags = " ".join(f"`{flag}`" for flag in one.flags)
        changes = "yes" if one.about.changes_results else "no"
        yield f"| `{one.name}` | {flags} | {default} | {changes} | {one.about.help} |"


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
