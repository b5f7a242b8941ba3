"""Every table of the store: its columns and types, once. Parquet and DuckDB both project these."""

import pyarrow as pa

IMAGES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
    ]
)
"""Distinct images in the order of their encoding."""

GALLERY = pa.schema(
    [
        pa.field("gallery", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
    ]
)
"""Members of each distinct gallery, which has the name of the first category that is asked of it;
``position`` breaks ties."""

CATEGORIES = pa.schema(
    [
        pa.field("category", pa.string(), nullable=False),
        pa.field("gallery", pa.string(), nullable=False),
    ]
)
"""Which gallery each category's queries are asked of, in the categories' order."""

QUERIES = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("reference_id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("targets", pa.list_(pa.string()), nullable=True),
        pa.field("subset", pa.list_(pa.string()), nullable=True),
        pa.field("other_text", pa.string(), nullable=True),
    ]
)
"""``targets`` is null for a query without label, ``subset`` where the dataset has none,
``other_text`` where the protocol does not ask both orders of the captions."""

PROBLEMS = pa.schema(
    [
        pa.field("item", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
    ]
)

CANDIDATES = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("pool", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("stage1_rank", pa.int32(), nullable=False),
        pa.field("stage1_score", pa.float32(), nullable=False),
    ]
)

TARGET_RANKS = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("stage1_rank", pa.int32(), nullable=False),
    ]
)
"""Where stage 1 puts each target in the whole gallery, also beyond the K candidates."""

SCORES = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("stage2_score", pa.float32(), nullable=False),
    ]
)

RANKINGS = pa.schema(
    [
        *CANDIDATES,
        pa.field("stage2_score", pa.float32(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
    ]
)
"""Every candidate with both stages' scores and 1-based ranks; ``rank`` is the final order."""

EXPORT = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("reference_id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("stage2_score", pa.float32(), nullable=False),
        pa.field("stage1_rank", pa.int32(), nullable=False),
        pa.field("stage1_score", pa.float32(), nullable=False),
        pa.field("pool", pa.string(), nullable=False),
    ]
)
"""A ranking with what was asked, as it leaves the store."""

METRICS = pa.schema(
    [
        pa.field("protocol", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("pool", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("k", pa.int32(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("ci_low", pa.float64(), nullable=False),
        pa.field("ci_high", pa.float64(), nullable=False),
        pa.field("n", pa.int32(), nullable=False),
        pa.field("gallery_images", pa.int32(), nullable=False),
        pa.field("gallery_missing", pa.int32(), nullable=False),
        pa.field("gallery_sha256", pa.string(), nullable=False),
    ]
)
"""Fractions, with 95 % intervals (``cir_core.metrics.significance``). ``stage``: stage1, stage2, or
gain (their paired difference).
The gallery's columns are those of ``GALLERIES``; of an average, those of all galleries together."""

GALLERIES = pa.schema(
    [
        pa.field("category", pa.string(), nullable=False),
        pa.field("images", pa.int32(), nullable=False),
        pa.field("missing", pa.int32(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)
"""What was searched: usable members, members that could not be used, and a hash over the usable
members' bytes and ids in gallery order (``cir_core.metrics.galleries``)."""


EMBEDDINGS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("embedding", pa.list_(pa.float32()), nullable=False),
    ]
)
"""Gallery embeddings; here and in FUSED_QUERIES a list of the model's width, ``of_width``."""

FUSED_QUERIES = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("embedding", pa.list_(pa.float32()), nullable=False),
        pa.field("question", pa.int64(), nullable=False),
        pa.field("token_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        pa.field("z_t", pa.binary(), nullable=False),
    ]
)
"""Query embeddings and z_t; ``z_t`` is row-major little-endian float32 [length, width].

A query that is asked both ways has two rows, with the same, averaged, embedding. Queries with the
same reference, byte by byte, and the same texts are one ``question``, in order of their first, and
have the same rows."""


def of_width(schema: pa.Schema, width: int) -> pa.Schema:
    """With embeddings of a model whose embeddings have this width."""
    place = schema.get_field_index("embedding")
    return schema.set(place, schema.field(place).with_type(pa.list_(pa.float32(), width)))
