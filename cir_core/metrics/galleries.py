"""What was searched: the size and the hash that every number carries."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cir_core.types import ImageId


@dataclass(frozen=True)
class SearchedGallery:
    """The usable images of a gallery, and how many of its members are ``missing``: could not be
    used. Numbers compare only where ``sha256`` agrees."""

    category: str
    images: int
    missing: int
    sha256: str


def searched(
    category: str, members: Sequence[ImageId], sha256_of: Mapping[ImageId, str]
) -> SearchedGallery:
    """``sha256_of`` maps the usable images to the hash of their bytes.

    The gallery's hash is over a line "<sha256> <image id>" per usable member, in gallery order,
    which breaks ties: so it changes with an image, its bytes, its name and its place.
    """
    usable = [image for image in members if image in sha256_of]
    return SearchedGallery(
        category=category,
        images=len(usable),
        missing=len(members) - len(usable),
        sha256=_sha256(f"{sha256_of[image]} {image}" for image in usable),
    )


def together(category: str, galleries: Sequence[SearchedGallery]) -> SearchedGallery:
    """What an average over these galleries rests on: their sum, and the hash over a line
    "<sha256> <category>" per gallery. Of a single one it is that gallery."""
    if len(galleries) == 1:
        return galleries[0]
    return SearchedGallery(
        category=category,
        images=sum(gallery.images for gallery in galleries),
        missing=sum(gallery.missing for gallery in galleries),
        sha256=_sha256(f"{gallery.sha256} {gallery.category}" for gallery in galleries),
    )


def _sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
