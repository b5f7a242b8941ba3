"""A small set of drawn garments whose validation holds what training never showed.

    python benchmarks/small_set.py FOLDER

Own data (docs/own-data.md) of the size that users bring: 4,200 training pictures of 350 families
with about 13,000 triplets, and two tables to measure on, ``val.csv`` to choose by and ``test.csv``
to report. Half the families of each show attribute *combinations* of which training has no picture
(a print on a colour, a neck with a pattern), the other half attribute *values* of which it has
neither picture nor word: two colours, a pattern, a neck, a print. The column ``category`` says
which, so that recall is told apart, and ``group`` names the family. Always the same pictures.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

from cir_core.datasets.demo.drawing import draw
from cir_core.datasets.demo.garments import CATEGORIES, Garment, change, differences, draw_garment
from cir_core.datasets.demo.wording import description, modification_captions

SEED = 20261126
FAMILY_SIZE = 12
MOST_CHANGES = 3
DESCRIPTIONS_PER_IMAGE = 2

Kind = Literal["seen", "combinations", "values"]
"""What a family shows: what training shows, an unseen combination of it, or an unseen value."""

UNSEEN_VALUES = frozenset({"purple", "orange", "diagonal", "square", "moon"})
UNSEEN_PAIRS = frozenset(
    {
        *(("red", "heart"), ("blue", "star"), ("white", "flower"), ("black", "heart")),
        *(("yellow", "star"), ("green", "flower"), ("pink", "star"), ("brown", "heart")),
        *(("striped", "v"), ("dotted", "high"), ("checked", "round")),
    }
)
"""Of a colour and a print, or of a pattern and a neck."""


@dataclass(frozen=True)
class Part:
    """One table: how many families of each kind, and how many queries a family."""

    families: dict[Kind, int]
    queries: int


PARTS = {
    "train": Part({"seen": 350}, queries=38),
    "val": Part({"combinations": 20, "values": 20}, queries=12),
    "test": Part({"combinations": 40, "values": 40}, queries=12),
}


@dataclass(frozen=True)
class Family:
    """Garments one or two changes from one another, all of one kind; queries are pairs of them."""

    name: str
    kind: Kind
    garments: tuple[Garment, ...]
    pairs: tuple[tuple[int, int], ...]


def kind_of(garment: Garment) -> Kind:
    """An unseen value counts before an unseen combination."""
    shown = {getattr(garment, field.name) for field in fields(Garment)}
    if shown & UNSEEN_VALUES:
        return "values"
    pairs = {(garment.colour, garment.print), (garment.pattern, garment.neck)}
    return "combinations" if pairs & UNSEEN_PAIRS else "seen"


def families_of(name: str, part: Part, used: set[Garment]) -> Iterator[Family]:
    """The part's families, of garments that are not in ``used`` and are added to it."""
    rng = np.random.default_rng((SEED, list(PARTS).index(name)))
    number = 0
    for kind, count in part.families.items():
        for _ in range(count):
            garments = _garments(kind, CATEGORIES[number % len(CATEGORIES)], rng, used)
            pairs = _pairs(garments, part.queries, rng)
            yield Family(f"{name}-{number:03d}", kind, garments, pairs)
            number += 1


def _garments(
    kind: Kind, category: str, rng: np.random.Generator, used: set[Garment]
) -> tuple[Garment, ...]:
    family: list[Garment] = []
    while len(family) < FAMILY_SIZE:
        if family:
            garment = change(family[rng.integers(len(family))], rng)
        else:
            garment = draw_garment(category, rng)
        if garment not in used and kind_of(garment) == kind:
            used.add(garment)
            family.append(garment)
    return tuple(family)


def _pairs(
    garments: tuple[Garment, ...], count: int, rng: np.random.Generator
) -> tuple[tuple[int, int], ...]:
    near = [
        (before, after)
        for before in range(len(garments))
        for after in range(len(garments))
        if 0 < len(differences(garments[before], garments[after])) <= MOST_CHANGES
    ]
    return tuple(near[index] for index in rng.permutation(len(near))[:count])


@dataclass(frozen=True)
class Content:
    """One part's pictures by id, and its tables' rows."""

    pictures: dict[str, Garment]
    queries: list[dict[str, str]]
    descriptions: list[dict[str, str]]


def content_of(name: str, families: Iterable[Family]) -> Content:
    """Ids are paths below ``images``. A text joins the demo's two captions."""
    rng = np.random.default_rng((SEED, list(PARTS).index(name), 1))
    content = Content({}, [], [])
    for family in families:
        first = len(content.pictures)
        ids = [f"{name}/{first + index:05d}.png" for index in range(len(family.garments))]
        content.pictures.update(zip(ids, family.garments, strict=True))
        for before, after in family.pairs:
            captions = modification_captions(family.garments[before], family.garments[after], rng)
            content.queries.append(
                {
                    "reference": ids[before],
                    "text": " and ".join(dict.fromkeys(captions)),
                    "target": ids[after],
                    "category": family.kind,
                    "group": family.name,
                }
            )
        content.descriptions.extend(
            {"image": image, "text": description(garment, rng)}
            for image, garment in zip(ids, family.garments, strict=True)
            for _ in range(DESCRIPTIONS_PER_IMAGE)
        )
    return content


def build() -> dict[str, Content]:
    """All parts by name; no two pictures show the same attributes."""
    used: set[Garment] = set()
    return {name: content_of(name, families_of(name, part, used)) for name, part in PARTS.items()}


def main(folder: Annotated[Path, typer.Argument(help="Where to write.")]) -> None:
    """Draw the pictures and write the tables."""
    for number, (name, content) in enumerate(build().items()):
        for index, (image, garment) in enumerate(content.pictures.items()):
            path = folder / "images" / image
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = draw(garment, np.random.default_rng((SEED, number, 2, index)))
            picture.save(path, compress_level=1)
        _write(folder / f"{name}.csv", content.queries)
        _write(folder / f"{name}-images.csv", [{"image": image} for image in content.pictures])
        if name == "train":
            _write(folder / "descriptions.csv", content.descriptions)
        print(f"{name}: {len(content.pictures)} pictures, {len(content.queries)} queries")
    settings = {"name": "small-set", "images": "images"}
    settings |= {"queries": "train.csv", "gallery": "train-images.csv"}
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items()]
    (folder / "cir-dataset.toml").write_text("".join(lines), encoding="utf-8")


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    typer.run(main)
