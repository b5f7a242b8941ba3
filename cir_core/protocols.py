"""Evaluation protocols as data: what a recall means. Every printed number names its protocol."""

from dataclasses import dataclass
from itertools import product
from typing import Literal

from cir_core.published import PAPER, PUBLISHED, Published
from cir_core.types import CaptionRule

Gallery = Literal["original", "union"]
"""All ids of the split file, or only the references and targets of the split's queries."""

Subset = Literal["none", "scored", "main_order"]
"""CIRR's five members: no such pool; scored as a pool of their own, in the gallery or not; or in
the order that the main ranking gives them."""

RecallOn = Literal["any", "first"]
"""Which target counts for recall where there are several: the best ranked, or the first."""

RECALL_KS, SUBSET_KS, MAP_KS = (1, 5, 10, 50), (1, 2, 3), (5, 10, 25, 50)


@dataclass(frozen=True)
class Protocol:
    """One way to ask a dataset's queries and to count the answers.

    ``removes_reference``: whether a query's reference may answer it. ``captions`` and
    ``shared_concept`` say how the modification text is made, where the dataset leaves a choice.
    ``subset_ks`` and ``map_ks`` are empty where these are not measured. ``headline`` is the metric,
    and its k, that its tables are first sorted by. ``source`` names who publishes numbers under
    this protocol.
    """

    name: str
    dataset: str
    description: str
    source: str
    gallery: Gallery = "original"
    removes_reference: bool = False
    captions: CaptionRule = "published"
    shared_concept: bool = True
    subset: Subset = "none"
    recall_on: RecallOn = "any"
    ks: tuple[int, ...] = RECALL_KS
    subset_ks: tuple[int, ...] = ()
    map_ks: tuple[int, ...] = ()
    headline: tuple[str, int] = ("recall", 10)

    def published(self, split: str) -> tuple[Published, ...]:
        """Other people's numbers of this protocol's queries of a split: what a run of both may
        stand beside."""
        return tuple(one for one in PUBLISHED.get(self.name, ()) if one.split == split)


_GALLERIES: dict[Gallery, str] = {
    "original": "original gallery of the split file",
    "union": "union gallery (references and targets of the category's queries)",
}
_CAPTIONS: dict[CaptionRule, str] = {
    "published": "published caption rule",
    "reversed": "published caption rule, captions in the other order",
    "raw": "captions joined as they are",
    "both_orders": "embeddings and scores averaged over both orders of the captions",
}
_FASHION_IQ_SOURCES: dict[tuple[CaptionRule, Gallery, bool], str] = {
    ("published", "original", False): f"{PAPER}, CLIP4Cir, SPRC",
    ("published", "original", True): "CoVR, DQU-CIR",
    ("published", "union", False): "the 'VAL split' of VAL and later work",
    ("published", "union", True): "the 'VAL split', reference removed",
    ("both_orders", "original", False): "SEARLE, LinCIR",
}
"""Nobody known publishes the other combinations."""


def _source(dataset: str, rules: tuple[CaptionRule, Gallery, bool]) -> str:
    if dataset == "demo":
        return "nobody: numbers of drawn garments compare among themselves"
    return _FASHION_IQ_SOURCES.get(rules, "nobody known")


def _fashion_iq(dataset: str, title: str) -> tuple[Protocol, ...]:
    """{original, union} x {kept, removed} x {caption rules}; the paper's comes first."""
    protocols = []
    for captions, gallery, removed in product(_CAPTIONS, _GALLERIES, (False, True)):
        rule = "" if captions == "published" else f"-{captions.replace('_', '-')}"
        reference = "removed" if removed else "kept"
        protocols.append(
            Protocol(
                name=f"{dataset}-{gallery}-{reference}{rule}",
                dataset=dataset,
                description=f"{title}: {_GALLERIES[gallery]}, reference {reference}, "
                f"{_CAPTIONS[captions]}, macro average over categories",
                source=_source(dataset, (captions, gallery, removed)),
                gallery=gallery,
                removes_reference=removed,
                captions=captions,
                headline=("recall", 1 if dataset == "demo" else 10),
            )
        )
    return tuple(protocols)


DEMO = _fashion_iq("demo", "Fashion-IQ's protocol on drawn garments")
FASHION_IQ = _fashion_iq("fiq", "Fashion-IQ")

CIRR = (
    Protocol(
        name="cirr-removed-subset-scored",
        dataset="cirr",
        description="CIRR: reference removed; the subset's 5 members are scored as a pool of "
        "their own",
        source=PAPER,
        removes_reference=True,
        subset="scored",
        subset_ks=SUBSET_KS,
        headline=("cirr_average", 0),
    ),
    Protocol(
        name="cirr-removed-subset-main-order",
        dataset="cirr",
        description="CIRR: reference removed; the subset's 5 members in the order that the main "
        "ranking gives them",
        source="CIRR's own evaluation, CLIP4Cir, SPRC",
        removes_reference=True,
        subset="main_order",
        subset_ks=SUBSET_KS,
        headline=("cirr_average", 0),
    ),
)

CIRCO = tuple(
    Protocol(
        name=f"circo-kept-{name}",
        dataset="circo",
        description=f"CIRCO: reference kept, {told}; mAP@k over all ground truths, recall on the "
        "first target",
        source=source,
        shared_concept=shared,
        recall_on="first",
        map_ks=MAP_KS,
        headline=("map", 5),
    )
    for shared, name, told, source in (
        (False, "caption", "relative caption alone", "the CIRCO server: SEARLE, CIReVL, MagicLens"),
        (True, "concept", "shared concept and relative caption", "an easier variant; ours"),
    )
)

SHOES = tuple(
    Protocol(
        name=f"shoes-{'removed' if removed else 'kept'}",
        dataset="shoes",
        description="Shoes: evaluation gallery, reference "
        f"{'removed' if removed else 'kept'}, raw caption",
        source="VAL, CoSMo, CLVC-Net",
        removes_reference=removed,
    )
    for removed in (False, True)
)

OWN = tuple(
    Protocol(
        name=f"own-{'removed' if removed else 'kept'}",
        dataset="own",
        description="own data: reference "
        f"{'removed' if removed else 'kept'}, text as written; of several targets, the best "
        "ranked counts for recall",
        source="nobody: your catalogue's numbers compare among themselves",
        removes_reference=removed,
    )
    for removed in (True, False)
)
"""Removed first: who searches a catalogue for "the same, but red" has the reference already."""

PROTOCOLS = {
    protocol.name: protocol for protocol in (*DEMO, *FASHION_IQ, *CIRR, *CIRCO, *SHOES, *OWN)
}
