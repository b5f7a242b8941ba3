"""The datasets by name: adapter, protocols, the K the paper re-ranks, what to know of each."""

from collections.abc import Sequence
from dataclasses import dataclass

from cir_core import protocols
from cir_core.datasets import about
from cir_core.datasets.about import About, Counts
from cir_core.datasets.adapter import Adapter, ReadJson
from cir_core.datasets.circo import CIRCO
from cir_core.datasets.cirr import CIRR
from cir_core.datasets.fashion_iq import FashionIQ
from cir_core.datasets.own import OwnData
from cir_core.datasets.selection import selection_queries, source_split
from cir_core.datasets.shoes import Shoes
from cir_core.errors import PreflightError, UsageError
from cir_core.protocols import Protocol
from cir_core.types import Benchmark, RunSplit


@dataclass(frozen=True)
class Dataset:
    """``protocols``: the first is the default. ``k`` is the default number of candidates: what
    the paper re-ranks, less for the demo. ``writes_ranked``: a run leaves its rankings as files,
    since with own data these are what it was run for."""

    name: str
    adapter: Adapter
    protocols: tuple[Protocol, ...]
    k: int
    about: About
    writes_ranked: bool = False

    def protocol(self, name: str | None) -> Protocol:
        """The named protocol, or the default. Raises UsageError listing this dataset's."""
        if name is None:
            return self.protocols[0]
        for protocol in self.protocols:
            if protocol.name == name:
                return protocol
        raise UsageError(
            f"dataset {self.name} has no protocol {name!r}",
            remedy=f"choose one of {', '.join(protocol.name for protocol in self.protocols)}",
        )

    def parse(
        self, split: RunSplit, categories: Sequence[str], read: ReadJson, protocol: Protocol
    ) -> Benchmark:
        """The adapter's ``parse``; of ``selection``, the part of train that is kept out, in
        galleries as large as validation's where that is published, and of the whole split
        otherwise. Raises PreflightError when there are too few labelled queries to keep any out."""
        benchmark = self.adapter.parse(source_split(split), categories, read, protocol)
        if split != "selection":
            return benchmark
        validation = self.about.counts.get("val", Counts({}, {}))
        selected = selection_queries(benchmark, validation.gallery)
        if not selected.queries:
            labelled = sum(bool(query.targets) for query in benchmark.queries)
            raise PreflightError(
                "no training query can be kept out to select checkpoints on",
                cause=f"there are {labelled} queries with a target, in groups or about targets too "
                "large to spare one",
                remedy="training needs more of them, about more images",
            )
        return selected


_DEMO = FashionIQ(
    labelled_test=True,
    descriptions="descriptions/descriptions.train.jsonl",
    catalogue="descriptions/catalogue.train.jsonl",
)

DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset("demo", _DEMO, protocols.DEMO, k=50, about=about.DEMO),
        Dataset("fiq", FashionIQ(), protocols.FASHION_IQ, k=100, about=about.FASHION_IQ),
        Dataset("cirr", CIRR(), protocols.CIRR, k=50, about=about.CIRR),
        Dataset("circo", CIRCO(), protocols.CIRCO, k=50, about=about.CIRCO),
        Dataset("shoes", Shoes(), protocols.SHOES, k=50, about=about.SHOES),
        Dataset("own", OwnData(), protocols.OWN, k=50, about=about.OWN, writes_ranked=True),
    )
}


def find_dataset(name: str) -> Dataset:
    """Raises UsageError listing the known names."""
    if name not in DATASETS:
        raise UsageError(
            f"no dataset is called {name!r}",
            remedy=f"choose one of {', '.join(DATASETS)}; a folder of your own is written as a "
            "path, such as ./catalogue",
        )
    return DATASETS[name]
