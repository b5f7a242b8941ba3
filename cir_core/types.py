"""The records of the pipeline. Vocabulary: reference + modification text = query; see docs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NewType

from cir_core.errors import ImageProblem

ImageId = NewType("ImageId", str)
QueryId = NewType("QueryId", str)

Split = Literal["train", "val", "test"]
RunSplit = Literal["train", "val", "test", "selection"]
"""What a run may ask: ``selection`` is the part of train that no training sees; see
``cir_core.datasets.selection``."""
CaptionRule = Literal["published", "reversed", "raw", "both_orders", "first", "second"]
"""How several captions of one query become its text; see ``cir_core.datasets.captions``. The last
two are for training, where each caption alone is one of the four ways to word a query."""

FirstStage = Literal["stage1", "candidates", "embeddings"]
"""Whose candidates are re-ranked: those of the model; of a file; or found among embeddings that
were computed elsewhere."""

Pool = Literal["gallery", "subset"]
"""Which candidates compete: the whole gallery, or CIRR's five-member subset, scored separately."""


@dataclass(frozen=True)
class Query:
    """A reference image plus a modification text, and what is known of the answer.

    ``category`` names the gallery that is searched. ``targets`` is empty for a query without
    label. ``subset`` holds the members of a second, small pool (CIRR), or is empty. With
    ``other_text`` the query is asked both ways: embeddings and scores of the two are averaged.
    ``group`` names what the query's images belong to (a product, a session), where that is known:
    groups are kept out of training as a whole.
    """

    query_id: QueryId
    category: str
    reference_id: ImageId
    text: str
    targets: tuple[ImageId, ...] = ()
    subset: tuple[ImageId, ...] = ()
    other_text: str = ""
    group: str = ""


@dataclass(frozen=True)
class Benchmark:
    """One split of a dataset, in the pipeline's words.

    ``galleries`` maps a category to its images; their order is the tie-break of every ranking.
    ``files`` maps each image (gallery or reference) to where it may lie, relative to the data
    root, the first existing one counts. ``folders`` are where images lie by the dataset's layout:
    links that stand in one, or on the way to one, may lead anywhere. ``notes`` are no errors, but
    their reader wants to know; ``problems`` are of places where there may be more images.
    """

    galleries: dict[str, tuple[ImageId, ...]]
    queries: tuple[Query, ...]
    files: dict[ImageId, tuple[str, ...]]
    folders: tuple[str, ...] = (".",)
    notes: tuple[str, ...] = ()
    problems: tuple[ImageProblem, ...] = ()

    @property
    def gallery_of(self) -> dict[str, str]:
        """The name of each category's gallery: the first category that has the same images in the
        same order."""
        same: dict[int, str] = {}  # one object is compared once, however many categories have it
        equal: dict[tuple[ImageId, ...], str] = {}
        for category, images in self.galleries.items():
            if id(images) not in same:
                same[id(images)] = equal.setdefault(images, category)
        return {category: same[id(images)] for category, images in self.galleries.items()}

    @property
    def distinct_galleries(self) -> dict[str, tuple[ImageId, ...]]:
        """By their names, each once."""
        return {name: self.galleries[name] for name in dict.fromkeys(self.gallery_of.values())}


@dataclass(frozen=True)
class Listing:
    """What lies below a folder of images, by paths relative to it, in the order of their
    characters.

    ``images`` are the files that are read. ``unread`` are pictures of other kinds, ``passed_over``
    folders that systems make; ``links`` to folders are not followed, each with where it leads.
    ``problems`` are of folders that cannot be listed, and of links that lead out; their item is the
    path.
    """

    images: tuple[ImageId, ...]
    unread: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    problems: tuple[ImageProblem, ...] = ()


@dataclass(frozen=True)
class Row:
    """One entry of a table file: its place there ("line 7"), and its values by column; or no
    values and ``fault``, the reason."""

    place: str
    values: Mapping[str, Any]
    fault: str = ""


@dataclass(frozen=True)
class Rows:
    """A table file as read: all columns that it has, and its entries in order, unreadable ones
    included. Bytes that are not UTF-8 are there as lone surrogates."""

    columns: tuple[str, ...]
    entries: tuple[Row, ...]


Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""In which a model computes. ``tf32`` keeps fp32 numbers and rounds what enters a matrix product to
10 bits; the last two halve memory and traffic, too. All but fp32 change scores."""


@dataclass(frozen=True)
class Precisions:
    """Of a pass: what sees images, for both stages; what reads texts, in stage 1; and stage 2."""

    encoder: Precision = "fp32"
    stage1: Precision = "fp32"
    stage2: Precision = "fp32"

    @property
    def told(self) -> str:
        """In a word where all are the same."""
        if self.encoder == self.stage1 == self.stage2:
            return self.encoder
        return f"encoder {self.encoder}, stage 1 {self.stage1}, stage 2 {self.stage2}"


Depth = int | Literal["all", "auto"]
"""How many candidates stage 1 keeps for a query: the best so many, all of its gallery, or as many
as the query needs."""

Keeping = Literal["auto", "cache", "recompute"]
"""``cache`` keeps image tokens in the store first and reads them; ``auto`` reads them where they
are kept already; ``recompute`` does not look."""

Scale = Literal["standardised", "raw"]
"""``standardised``: of each query's pool, both stages' scores have mean 0 and deviation 1 before
they are added. ``raw``: as they are, a cosine and a logit."""
