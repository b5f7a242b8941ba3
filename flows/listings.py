"""What the pipeline knows by name, told on the terminal: datasets and protocols."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from cir_core.datasets.registry import Dataset
from cir_core.metrics.protocols import Protocol


def print_protocols(protocols: Iterable[Protocol], console: Console) -> None:
    """A row per protocol."""
    table = Table(show_lines=True)
    table.add_column("protocol", no_wrap=True)  # a name to copy is whole or useless
    for name in ("what it means", "measures", "published by"):
        table.add_column(name)
    for protocol in protocols:
        table.add_row(protocol.name, protocol.description, _measures(protocol), protocol.source)
    console.print(table)


def _measures(protocol: Protocol) -> str:
    measured = [f"R@{_ks(protocol.ks)}", "MRR", "coverage@K"]
    measured += [f"subset R@{_ks(protocol.subset_ks)}"] if protocol.subset_ks else []
    measured += [f"mAP@{_ks(protocol.map_ks)}"] if protocol.map_ks else []
    return ", ".join(measured)


def _ks(ks: tuple[int, ...]) -> str:
    return "/".join(str(k) for k in ks)


def print_datasets(datasets: Iterable[Dataset], console: Console) -> None:
    """A paragraph per dataset: expected layout, licence, how to obtain it."""
    for dataset in datasets:
        about = dataset.about
        console.rule(f"[bold]{dataset.name}[/]: {about.title}", align="left")
        console.print(f"licence  {about.licence}\nsource   {about.source_url}", highlight=False)
        console.print(f"K        {dataset.k} candidates per query by default", highlight=False)
        console.print(f"expected below --data-root\n{_indented(about.layout)}", highlight=False)
        console.print(f"images   {about.images}\n", highlight=False)


def _indented(text: str) -> str:
    return "\n".join(f"         {line}" for line in text.splitlines())
