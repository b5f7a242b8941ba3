"""Described images, which a base model is pre-trained on: tables of images and texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from cir_core.datasets.near_names import ImageNames
from cir_core.datasets.own_rows import description_faults, refuse
from cir_core.datasets.selection import KeptOut
from cir_core.types import ImageId, Rows

CountTokens = Callable[[Sequence[str]], Sequence[int]]
"""How long each text is for the model that will read it."""


@runtime_checkable
class Describing(Protocol):
    """A dataset's adapter that knows of descriptions."""

    @property
    def descriptions(self) -> str | None:
        """The table of descriptions: columns ``image``, ``text``, perhaps ``group``, and several
        rows an image; None where there is none."""
        ...

    @property
    def catalogue(self) -> str | None:
        """A table of one entry per image, with the same columns; it may be absent from the disk."""
        ...

    @property
    def images(self) -> str | None:
        """The folder of which images' ids are paths; None where they are not."""
        ...

    def described_files(self, image: ImageId) -> tuple[str, ...]:
        """Where a described image may lie, relative to the data root."""
        ...


@dataclass(frozen=True)
class Described:
    """Texts by image, in the table's order. ``entries`` are those of the catalogue, of every image,
    or None without one."""

    texts: Mapping[ImageId, Sequence[str]]
    entries: Mapping[ImageId, str] | None


def parse_described(
    descriptions: tuple[str, Rows],
    catalogue: tuple[str, Rows] | None,
    names: ImageNames,
    kept: KeptOut,
    count: CountTokens,
    positions: int,
) -> Described:
    """The described images that may be trained on: those that are not kept out, and are not said to
    belong to a group that is. Tables come with their file's name; ``names`` are of the
    folder's images, where ids are paths.

    Raises AnnotationError listing everything that is wrong with a table, by line: also texts of
    more tokens than ``positions``, images with two entries and, without a line, images with none.
    """
    file, table = descriptions
    refuse(file, description_faults(table, names, count, positions))
    texts: dict[ImageId, list[str]] = {}
    for row in table.entries:
        texts.setdefault(names.meant(row.values["image"]), []).append(row.values["text"])
    of_kept_groups = {
        names.meant(row.values["image"])
        for row in table.entries
        if row.values.get("group") in kept.named
    }
    trained = {
        image: mine
        for image, mine in texts.items()
        if image not in kept.images and image not in of_kept_groups
    }
    if catalogue is None:
        return Described(trained, None)
    return Described(trained, _entries(*catalogue, names, list(trained), count, positions))


def _entries(
    file: str,
    table: Rows,
    names: ImageNames,
    described: Sequence[ImageId],
    count: CountTokens,
    positions: int,
) -> dict[ImageId, str]:
    faults = description_faults(table, names, count, positions)
    first: dict[ImageId, str] = {}
    for row in table.entries if not faults else ():
        place = first.setdefault(names.meant(row.values["image"]), row.place)
        if place != row.place:
            faults.append(f"{row.place}: {row.values['image']!r} has an entry already, {place}")
    if not faults:
        faults += [
            f"{one!r} is described and has no entry" for one in described if one not in first
        ]
    refuse(file, faults)
    return {names.meant(row.values["image"]): row.values["text"] for row in table.entries}
