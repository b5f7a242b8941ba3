"""The benchmarks by name: adapter, protocol and the K the paper re-ranks."""

from dataclasses import dataclass

from cir_core.datasets.adapter import Adapter
from cir_core.datasets.cirr import CIRR
from cir_core.datasets.fashion_iq import FashionIQ
from cir_core.errors import UsageError
from cir_core.metrics import protocols
from cir_core.metrics.protocols import Protocol


@dataclass(frozen=True)
class Dataset:
    """``k`` is the default number of candidates: what the paper re-ranks, less for the demo."""

    name: str
    adapter: Adapter
    protocol: Protocol
    k: int


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset("demo", FashionIQ(), protocols.DEMO, k=50),
        Dataset("fiq", FashionIQ(), protocols.FASHION_IQ, k=100),
        Dataset("cirr", CIRR(), protocols.CIRR, k=50),
    )
}


def find_dataset(name: str) -> Dataset:
    """Raises UsageError listing the known names."""
    if name not in DATASETS:
        raise UsageError(
            f"no dataset is called {name!r}", remedy=f"choose one of {', '.join(DATASETS)}"
        )
    return DATASETS[name]
