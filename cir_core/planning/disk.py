"""How much disk a run takes, from counts alone."""

from dataclasses import dataclass
from typing import Self

from cir_core.layers.config import Stage1Config, Vocabulary

FLOAT = 4
"""Bytes of a number in embeddings and z_t, which are stored in fp32."""

PAIR_BYTES = {"retrieve": 16, "rerank": 12, "rank": 24}
"""Of a (query, candidate) pair in Parquet. A row of candidates has two ids of 4 bytes (indices
into a dictionary), a rank and a score of 4: 16. Scores: two ids and a score: 12. Rankings: the
columns of the candidates, a score and a rank more: 24. zstd about halves this, which is not counted
upon."""

RANKED_PAIR_BYTES = 290
"""Of a pair in own data's ``ranked.jsonl``, measured 244 with short ids, and ``ranked.parquet``."""

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
class Counts:
    """``tokens`` is the length of all modification texts, [ENC] and [SEP] included; ``pairs`` the
    candidates of all queries in all pools; ``kept`` the images whose tokens are kept; ``ranked``
    the pairs that are written as files to take away, too."""

    images: int
    queries: int
    tokens: int
    pairs: int
    kept: int = 0
    ranked: int = 0


@dataclass(frozen=True)
class Widths:
    """Of the model: its embeddings, its z_t, all tokens of an image, and the words that texts are
    cut into."""

    embedding: int
    text: int
    image: int
    vocabulary: Vocabulary

    @classmethod
    def of(cls, config: Stage1Config) -> Self:
        vision, text = config.vision, config.text
        return cls(config.embedding, text.width, vision.tokens * vision.width, text.vocabulary)


PUBLISHED = Widths(embedding=256, text=768, image=577 * 768, vocabulary="bert-base-uncased")


def bytes_by_stage(counts: Counts, widths: Widths) -> dict[str, int]:
    """Bytes that each stage of a first run adds to its store: image tokens [kept, image],
    embeddings [image + query, embedding], z_t [token, width], and the tables; other runs of a
    catalog are not counted."""
    vectors = FLOAT * widths.embedding
    tables = {stage: size * counts.pairs for stage, size in PAIR_BYTES.items()}
    return {
        "ingest": ROW_BYTES * (counts.images + counts.queries),
        "tokens": FLOAT * widths.image * counts.kept,
        "encode": vectors * counts.images,
        "fuse": vectors * counts.queries + FLOAT * widths.text * counts.tokens,
        **tables,
        "publish": CATALOG_COPIES * CATALOG_PAIR_BYTES * counts.pairs,
        "report": REPORT_BYTES,
        "ranked": RANKED_PAIR_BYTES * counts.ranked,
    }


def bytes_needed(counts: Counts, widths: Widths) -> int:
    """Of all stages together."""
    return sum(bytes_by_stage(counts, widths).values())
