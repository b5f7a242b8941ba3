"""What a dataset's adapter is: it names its files and turns their content into records."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cir_core.errors import AnnotationError
from cir_core.protocols import Protocol as EvaluationProtocol
from cir_core.types import Benchmark, Split

ReadJson = Callable[[str], Any]
"""Decoded content of an annotation file, by its path relative to the data root: JSON, the lines of
a ``.txt``, ``Rows`` of a ``.csv``, ``.jsonl`` or ``.parquet``; of a folder, its ``Listing``."""


class Adapter(Protocol):
    """One dataset. A dataset's own words and layout are known here and nowhere else."""

    @property
    def categories(self) -> tuple[str, ...]:
        """All categories, in their published order; none where only the data tell them. ``parse``
        is then given those that the user asked for, none for all, and refuses others."""
        ...

    def annotation_files(self, split: Split, categories: Sequence[str]) -> list[str]:
        """Every annotation file that ``parse`` reads, for a check that names all that are bad."""
        ...

    def parse(
        self,
        split: Split,
        categories: Sequence[str],
        read: ReadJson,
        protocol: EvaluationProtocol,
    ) -> Benchmark:
        """The split's galleries and queries as the protocol wants them; ``files`` holds the same
        images whatever the protocol, so that all share one encoding.

        Raises AnnotationError naming file and entry.
        """
        ...


def field(entry: Any, name: str, kind: type, file: str, index: int) -> Any:
    """A typed field of a JSON object, or an AnnotationError that says where it is missing."""
    if isinstance(entry, dict) and isinstance(entry.get(name), kind):
        return entry[name]
    raise AnnotationError(
        f"entry {index} of an annotation file has no usable {name!r}",
        item=file,
        cause=f"expected a JSON object with {name!r} of type {kind.__name__}",
        remedy="compare the file with the published annotations",
    )


def expect(content: Any, kind: type, file: str) -> Any:
    """The decoded content of a file, or an AnnotationError when it is of another JSON type."""
    if isinstance(content, kind):
        return content
    raise AnnotationError(
        f"an annotation file holds a JSON {type(content).__name__}, not a {kind.__name__}",
        item=file,
        remedy="compare the file with the published annotations",
    )
