"""What the pipeline knows by name, told on the terminal: datasets and protocols."""

from collections.abc import Iterable
from textwrap import fill

from cir_core.datasets.registry import Dataset
from cir_core.protocols import Protocol
from flows.views.tables import Console, print_line, print_lines
from tasks.results.titles import title_of

INDENT = "  "


def print_protocols(protocols: Iterable[Protocol], console: Console) -> None:
    """A paragraph per protocol, its name to copy on a line of its own."""
    for one in protocols:
        print_line(console, one.name, "bold")
        print_lines(console, _paragraph(console, "", one.description))
        print_lines(console, _paragraph(console, "measures  ", _measures(one)))
        print_lines(console, _paragraph(console, "published by  ", one.source) + "\n")


def _paragraph(console: Console, title: str, text: str) -> str:
    """Indented below a heading. On a terminal its lines are broken between words."""
    if not console.file.isatty():
        return f"{INDENT}{title}{text}"
    hanging = INDENT + " " * len(title)
    return fill(
        text,
        console.width,
        initial_indent=INDENT + title,
        subsequent_indent=hanging,
        break_on_hyphens=False,
    )


def _measures(protocol: Protocol) -> str:
    measured = [title_of("recall", _ks(protocol.ks)), title_of("mrr", 0), "coverage@K"]
    measured += [title_of("recall_subset", _ks(protocol.subset_ks))] if protocol.subset_ks else []
    measured += [title_of("map", _ks(protocol.map_ks))] if protocol.map_ks else []
    return ", ".join(measured)


def _ks(ks: tuple[int, ...]) -> str:
    return "/".join(str(k) for k in ks)


def print_datasets(datasets: Iterable[Dataset], console: Console) -> None:
    """A paragraph per dataset: expected layout, licence, how to obtain it."""
    for dataset in datasets:
        about = dataset.about
        print_line(console, f"{dataset.name}: {about.title}", "bold")
        print_lines(console, f"licence  {about.licence}\nsource   {about.source_url}")
        print_line(console, f"K        {dataset.k} candidates per query by default")
        print_lines(console, f"expected below --data-root\n{_indented(about.layout)}")
        print_lines(console, f"images   {about.images}\n")


def _indented(text: str) -> str:
    return "\n".join(f"         {line}" for line in text.splitlines())
