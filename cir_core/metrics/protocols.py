"""Evaluation protocols as data: what a recall means. Every printed number names its protocol."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A row of somebody's paper, to print beside ours: percentages by (category, metric, k)."""

    label: str
    source: str
    values: dict[tuple[str, str, int], float]


@dataclass(frozen=True)
class Protocol:
    """``removes_reference``: whether a query's reference may answer it. ``subset_ks`` is empty
    where the dataset has no second pool."""

    name: str
    description: str
    removes_reference: bool
    ks: tuple[int, ...]
    subset_ks: tuple[int, ...] = ()
    published: tuple[Published, ...] = ()


_PAPER = "arXiv 2305.16304"

DEMO = Protocol(
    name="demo-original-kept",
    description="Fashion-IQ's protocol on drawn garments: original gallery, reference kept, "
    "published caption rule, macro average over categories",
    removes_reference=False,
    ks=(1, 5, 10, 50),
)

FASHION_IQ = Protocol(
    name="fiq-original-kept",
    description="Fashion-IQ: original gallery of the split file, reference kept, published "
    "caption rule, macro average over categories",
    removes_reference=False,
    ks=(1, 5, 10, 50),
    published=(
        Published(
            label="Candidate Set Re-ranking, K=100 (val)",
            source=_PAPER,
            values={
                ("dress", "recall", 10): 48.14,
                ("dress", "recall", 50): 71.34,
                ("shirt", "recall", 10): 50.15,
                ("shirt", "recall", 50): 71.25,
                ("toptee", "recall", 10): 55.23,
                ("toptee", "recall", 50): 76.80,
                ("average", "recall", 10): 51.17,
                ("average", "recall", 50): 73.13,
            },
        ),
    ),
)

CIRR = Protocol(
    name="cirr-removed-subset-scored",
    description="CIRR: reference removed; the subset's 5 members are scored as a pool of their own",
    removes_reference=True,
    ks=(1, 5, 10, 50),
    subset_ks=(1, 2, 3),
    published=(
        Published(
            label="Candidate Set Re-ranking, K=50 (test1, not val)",
            source=_PAPER,
            values={
                ("cirr", "recall", 10): 89.78,
                ("cirr", "cirr_average", 0): 80.90,
            },
        ),
    ),
)
