"""How much disk a run takes, from counts alone."""

from dataclasses import dataclass

from cir_core.models.config import Vocabulary

FLOAT = 4
"""Bytes of a number in embeddings and z_t, which are stored in fp32."""

PAIR_BYTES = 52
"""Of a (query, candidate) pair in Parquet. A row of candidates has two ids of 4 bytes (indices
into a dictionary), a rank and a score of 4: 16. Scores: two ids and a score: 12. Rankings: the
columns of the candidates, a score and a rank more: 24. zstd about halves this, which is not counted
upon."""

CATALOG_PAIR_BYTES = 64
"""Of a pair in ``cir.duckdb``, where the other tables are small. Measured: 63 with the demo's
63,000 pairs."""

CATALOG_COPIES = 2
"""The old file stays until the new one is whole."""

ROW_BYTES = 200
"""Of an image or a query in the other tables: ids, a path, a hash, a text."""

REPORT_BYTES = 2_000_000
"""Of one HTML page, mostly thumbnails."""


@dataclass(frozen=True)
class Workload:
    """``tokens`` is the length of all modification texts, [ENC] and [SEP] included; ``pairs`` the
    candidates of all queries in all pools."""

    images: int
    queries: int
    tokens: int
    pairs: int


@dataclass(frozen=True)
class Widths:
    """Of the model: its embeddings, its z_t, and the words that texts are cut into."""

    embedding: int
    text: int
    vocabulary: Vocabulary


PUBLISHED = Widths(embedding=256, text=768, vocabulary="bert-base-uncased")


def bytes_needed(work: Workload, widths: Widths) -> int:
    """Bytes that a first run adds to its store: embeddings [image + query, embedding], z_t
    [token, width], and the tables; other runs of a catalog are not counted."""
    vectors = FLOAT * widths.embedding * (work.images + work.queries)
    z_t = FLOAT * widths.text * work.tokens
    tables = ROW_BYTES * (work.images + work.queries) + PAIR_BYTES * work.pairs
    catalog = CATALOG_COPIES * CATALOG_PAIR_BYTES * work.pairs
    return vectors + z_t + tables + catalog + REPORT_BYTES
