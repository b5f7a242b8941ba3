"""The demo dataset: which garments exist, which queries are asked, in Fashion-IQ's own format.

Garments come in families: a base and its variations, each one or two changes away from an
earlier member. A query goes from one member to another that differs in at most three attributes,
so the rest of the family are near-duplicates that got some of the changes right and not others.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cir_core.datasets.demo.garments import CATEGORIES, Garment, change, differences, draw_garment
from cir_core.datasets.demo.wording import (
    catalogue_entry,
    description,
    modification_captions,
)
from cir_core.types import ImageId, Split

SEED = 20230516
FAMILY_SIZE = 12
QUERIES_PER_FAMILY: dict[Split, int] = {"train": 16, "val": 8, "test": 8}
FAMILIES: dict[Split, int] = {"train": 1000, "val": 54, "test": 54}
"""Per category. Train: 36,000 images and 48,000 queries in all; val and test: 1,944 images and
1,296 queries each."""

MOST_CHANGES = 3
DESCRIPTIONS_PER_IMAGE = 4


@dataclass(frozen=True)
class DemoImage:
    """One picture to draw: its id, what it shows, and the seed of its jitter."""

    image_id: ImageId
    garment: Garment
    jitter_seed: tuple[int, ...]


@dataclass(frozen=True)
class DemoSplit:
    """The pictures of one split, and its annotation files as Fashion-IQ would have them.

    ``annotations`` maps a path relative to the data root to JSON-ready content, of a ``.jsonl``
    file to that of its lines.
    """

    images: tuple[DemoImage, ...]
    annotations: dict[str, Any]


def build_split(split: Split) -> DemoSplit:
    """The same split every time. Within a category no two pictures of a split show the same
    attributes, so each query has one answer; and no two splits share a picture's attributes.
    Unlike Fashion-IQ's, the split ``test`` has targets: it confirms, once, what val has shown.
    """
    images: list[DemoImage] = []
    annotations: list[Any] = []
    descriptions: list[dict[str, str]] = []
    entries: list[dict[str, str]] = []
    for number, category in enumerate(CATEGORIES):
        families = _disjoint_families(split, number)
        rng = _generator(split, number, 1)
        ids = dict(zip(_members(families), image_ids(split, category), strict=True))
        queries = [q for family in families for q in _family_queries(family, split, rng)]
        captions = [
            {
                "target": ids[after],
                "candidate": ids[before],
                "captions": list(modification_captions(before, after, rng)),
            }
            for before, after in queries
        ]
        annotations += [captions, list(ids.values())]
        for index, (garment, image_id) in enumerate(ids.items()):
            images.append(DemoImage(image_id, garment, (SEED, _SPLIT[split], number, 2, index)))
            entries.append({"image": image_id, "text": catalogue_entry(garment)})
            descriptions += [
                {"image": image_id, "text": description(garment, rng)}
                for _ in range(DESCRIPTIONS_PER_IMAGE)
            ]
    annotations += [descriptions, entries]
    named = dict(zip(annotation_files(split), annotations, strict=True))
    return DemoSplit(images=tuple(images), annotations=named)


def image_ids(split: Split, category: str) -> list[ImageId]:
    """Of all pictures, in their order."""
    images = FAMILIES[split] * FAMILY_SIZE
    return [ImageId(f"{category}-{split}-{index:05d}") for index in range(images)]


def annotation_files(split: Split) -> list[str]:
    """Relative to the data root: two a category, then two of the split."""
    a_category = ("captions/cap.{}.{}.json", "image_splits/split.{}.{}.json")
    named = [form.format(category, split) for category in CATEGORIES for form in a_category]
    return [*named, *(f"descriptions/{one}.{split}.jsonl" for one in ("descriptions", "catalogue"))]


_SPLIT: dict[Split, int] = {"train": 0, "val": 1, "test": 2}
_DRAWN: tuple[Split, ...] = ("val", "test", "train")
"""A split avoids the garments of those before it."""


def _generator(split: Split, category: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng((SEED, _SPLIT[split], category, purpose))


def _members(families: list[list[Garment]]) -> list[Garment]:
    return [garment for family in families for garment in family]


def _disjoint_families(split: Split, category: int) -> list[list[Garment]]:
    taken: set[Garment] = set()
    for earlier in _DRAWN[: _DRAWN.index(split)]:
        taken |= set(_members(_families(earlier, category, taken)))
    return _families(split, category, taken)


def _families(split: Split, category: int, taken: set[Garment]) -> list[list[Garment]]:
    """Families of distinct garments, none of them in ``taken``."""
    rng = _generator(split, category, 0)
    used = set(taken)
    families = []
    for _ in range(FAMILIES[split]):
        family: list[Garment] = []
        while len(family) < FAMILY_SIZE:
            if family:
                garment = change(family[rng.integers(len(family))], rng)
            else:
                garment = draw_garment(CATEGORIES[category], rng)
            if garment not in used:
                used.add(garment)
                family.append(garment)
        families.append(family)
    return families


def _family_queries(
    family: list[Garment], split: Split, rng: np.random.Generator
) -> list[tuple[Garment, Garment]]:
    """Distinct (reference, target) pairs of one family, at most three attributes apart."""
    pairs = [
        (before, after)
        for before in family
        for after in family
        if 0 < len(differences(before, after)) <= MOST_CHANGES
    ]
    chosen = rng.permutation(len(pairs))[: QUERIES_PER_FAMILY[split]]
    return [pairs[index] for index in chosen]
