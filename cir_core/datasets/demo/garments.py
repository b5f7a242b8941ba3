"""What a demo garment is: its attributes, their values, and how two garments differ."""

from dataclasses import dataclass, fields, replace
from itertools import compress
from operator import attrgetter, ne

import numpy as np

CATEGORIES = ("dress", "shirt", "toptee")

COLOURS = {
    "red": (204, 30, 42),
    "orange": (243, 132, 24),
    "yellow": (247, 219, 62),
    "green": (44, 142, 62),
    "blue": (38, 84, 196),
    "purple": (126, 52, 160),
    "pink": (246, 150, 184),
    "brown": (112, 68, 36),
    "black": (28, 28, 32),
    "white": (246, 246, 242),
    "grey": (140, 142, 146),
}
PATTERNS = ("solid", "striped", "vertical", "checked", "dotted", "diagonal")
SLEEVES = ("sleeveless", "short", "elbow", "long")
NECKS = ("round", "v", "square", "high")
LENGTHS = ("cropped", "regular", "long")
PRINTS = ("none", "star", "heart", "flower", "moon")


@dataclass(frozen=True)
class Garment:
    """One set of attributes. A solid garment has no second colour (empty string)."""

    category: str
    colour: str
    pattern: str
    second_colour: str
    sleeve: str
    neck: str
    length: str
    print: str


_NAMES = tuple(field.name for field in fields(Garment))
_values = attrgetter(*_NAMES)


def draw_garment(category: str, rng: np.random.Generator) -> Garment:
    """A garment with every attribute drawn uniformly."""

    def pick(values: tuple[str, ...]) -> str:
        return values[rng.integers(len(values))]

    colour, pattern = pick(tuple(COLOURS)), pick(PATTERNS)
    return Garment(
        category=category,
        colour=colour,
        pattern=pattern,
        second_colour="" if pattern == "solid" else _other(tuple(COLOURS), {colour}, rng),
        sleeve=pick(SLEEVES),
        neck=pick(NECKS),
        length=pick(LENGTHS),
        print=pick(PRINTS),
    )


def change(garment: Garment, rng: np.random.Generator) -> Garment:
    """The garment with one or two attributes changed (never the category)."""
    names = ["colour", "pattern", "sleeve", "neck", "length", "print"]
    if garment.pattern != "solid":
        names.append("second_colour")
    count = int(rng.integers(1, 3))
    for name in rng.choice(names, size=count, replace=False):
        garment = _change_one(garment, str(name), rng)
    return garment


def differences(before: Garment, after: Garment) -> list[str]:
    """Names of the attributes that differ."""
    return [*compress(_NAMES, map(ne, _values(before), _values(after)))]


def _change_one(garment: Garment, name: str, rng: np.random.Generator) -> Garment:
    values = {
        "colour": tuple(COLOURS),
        "second_colour": tuple(COLOURS),
        "pattern": PATTERNS,
        "sleeve": SLEEVES,
        "neck": NECKS,
        "length": LENGTHS,
        "print": PRINTS,
    }[name]
    if name == "second_colour" and garment.pattern == "solid":
        return garment
    taken = {getattr(garment, name)}
    if name in ("colour", "second_colour"):
        taken |= {garment.colour, garment.second_colour}
    garment = replace(garment, **{name: _other(values, taken, rng)})
    if garment.pattern == "solid":
        return replace(garment, second_colour="")
    if not garment.second_colour:
        return replace(garment, second_colour=_other(tuple(COLOURS), {garment.colour}, rng))
    return garment


def _other(values: tuple[str, ...], taken: set[str], rng: np.random.Generator) -> str:
    free = [value for value in values if value not in taken]
    return free[rng.integers(len(free))]
