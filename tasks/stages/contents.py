"""What the ids of an ingested split stand for: bytes and texts, which are the same anywhere."""

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from storage.tables import rows_of
from storage.views import Ingested
from tasks.feed.pictures import Distinct, distinct_pictures


@dataclass(frozen=True)
class Contents:
    """``images`` and ``queries`` are the tables of the split."""

    images: pa.Table
    queries: pa.Table

    @classmethod
    def of(cls, ingested: Ingested) -> "Contents":
        return cls(ingested.read("images"), ingested.read("queries"))

    @cached_property
    def pictures(self) -> Distinct:
        return distinct_pictures(self.images)

    def of_images(self, ids: pa.ChunkedArray) -> pa.ChunkedArray:
        """The sha256 of each image."""
        return _looked_up(ids, self.images["image_id"], self.images["sha256"])

    def of_queries(self, ids: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray:
        """A text that two queries share if they have the same reference, byte by byte, and the same
        texts; null of a query whose reference was not ingested, and of an unknown one."""
        return _looked_up(ids, self.queries["query_id"], self._asked)

    def of_questions(self, first_queries: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray:
        """The same of questions, by a query that asks each; empty where nobody does."""
        return pc.fill_null(self.of_queries(first_queries), "")

    @cached_property
    def _asked(self) -> pa.ChunkedArray:
        text, other = self.queries["text"], self.queries["other_text"]
        reference = self.of_images(self.queries["reference_id"])
        length = pc.utf8_length(text).cast(pa.string())  # so that no text passes for two
        rest = pc.fill_null(pc.binary_join_element_wise(text, other, "\n"), text)
        kinds = pc.if_else(pc.is_null(other), "one", "both")
        return pc.binary_join_element_wise(reference, kinds, length, rest, "\n")


def _looked_up(
    ids: pa.ChunkedArray | pa.Array, known: pa.ChunkedArray, values: pa.ChunkedArray
) -> pa.ChunkedArray:
    """Of each id its value; null of one that is not known."""
    rows = rows_of(ids, known)
    return values.take(pa.array(rows, mask=rows < 0))
