"""Every table of the store: its columns, their types and what they mean, once. Parquet, DuckDB and
the comments in its catalog project these; what is written or read with others is refused."""

import pyarrow as pa

from cir_core.errors import StoreCorrupt

TEXT, TEXTS = pa.string(), pa.list_(pa.string())
INTEGER, SCORE, NUMBER = pa.int32(), pa.float32(), pa.float64()
VECTOR = pa.list_(pa.float32())
"""A list of the model's width: in files, of one fixed size (``of_width``)."""

ABOUT = b"about"


def _column(name: str, kind: pa.DataType, about: str = "", *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={ABOUT: about} if about else None)


def _table(about: str, *columns: pa.Field) -> pa.Schema:
    return pa.schema(columns, metadata={ABOUT: about})


QUERY_ID, IMAGE_ID = _column("query_id", TEXT), _column("image_id", TEXT)
CATEGORY, GALLERY_NAME = _column("category", TEXT), _column("gallery", TEXT)
POOL = _column("pool", TEXT, "gallery; or subset, CIRR's second pool, which is ranked apart")
STAGE1_RANK = _column("stage1_rank", INTEGER, "1-based")
STAGE1_SCORE = _column("stage1_score", SCORE, "cosine of the embeddings")
STAGE2_SCORE = _column("stage2_score", SCORE, "final: stage 2's prior, if it has one, is in it")
RANK = _column("rank", INTEGER, "the final order, 1-based")

IMAGES = _table(
    "Distinct images in the order of their encoding.",
    IMAGE_ID,
    _column("path", TEXT, "below the data root"),
    _column("sha256", TEXT, "of the file"),
    _column("width", INTEGER),
    _column("height", INTEGER),
)

GALLERY = _table(
    "Members of each distinct gallery, which has the name of the first category that is asked of "
    "it.",
    GALLERY_NAME,
    _column("position", INTEGER, "gallery order, the tie-break of every ranking"),
    IMAGE_ID,
)

CATEGORIES = _table(
    "Which gallery each category's queries are asked of, in the categories' order.",
    CATEGORY,
    GALLERY_NAME,
)

QUERIES = _table(
    "What is asked.",
    QUERY_ID,
    CATEGORY,
    _column("reference_id", TEXT),
    _column("text", TEXT),
    _column("targets", TEXTS, "NULL: a query without label", nullable=True),
    _column("subset", TEXTS, "members of the second pool, NULL where there is none", nullable=True),
    _column(
        "other_text", TEXT, "the captions in the other order, where both are asked", nullable=True
    ),
)

PROBLEMS = _table(
    "Images and queries that could not be used, and why.",
    _column("item", TEXT),
    _column("kind", TEXT),
    _column("message", TEXT),
)

CANDIDATES = _table(
    "Stage 1's choice: K images of each query's gallery, and its subset.",
    *(QUERY_ID, POOL, IMAGE_ID, STAGE1_RANK, STAGE1_SCORE),
)

TARGET_RANKS = _table(
    "Where stage 1 puts each target in the whole gallery, also beyond the K candidates.",
    *(QUERY_ID, IMAGE_ID, STAGE1_RANK),
)

SCORES = _table("Stage 2's score of each candidate.", QUERY_ID, IMAGE_ID, STAGE2_SCORE)

RANKINGS = _table(
    "Every candidate with both stages' scores and ranks.",
    *(QUERY_ID, POOL, IMAGE_ID, STAGE1_RANK, STAGE1_SCORE, STAGE2_SCORE, RANK),
)

EXPORT = _table(
    "A ranking with what was asked, as it leaves the store.",
    *(QUERY_ID, CATEGORY, QUERIES.field("reference_id"), QUERIES.field("text"), IMAGE_ID),
    *(RANK, STAGE2_SCORE, STAGE1_RANK, STAGE1_SCORE, POOL),
)

METRICS = _table(
    "Fractions, with 95 % intervals (see docs on metrics).",
    _column("protocol", TEXT),
    _column("category", TEXT, "average: macro over categories; micro: over queries"),
    _column("stage", TEXT, "stage1, stage2, or gain (paired difference)"),
    POOL,
    _column("metric", TEXT),
    _column("k", INTEGER),
    _column("value", NUMBER, "a fraction"),
    _column("ci_low", NUMBER, "95 % interval"),
    _column("ci_high", NUMBER),
    _column("n", INTEGER, "queries behind it"),
    _column("gallery_images", INTEGER, "of the category; of an average, of all galleries together"),
    _column("gallery_missing", INTEGER),
    _column("gallery_sha256", TEXT),
)

GALLERIES = _table(
    "What was searched.",
    CATEGORY,
    _column("images", INTEGER, "usable members"),
    _column("missing", INTEGER, "members that could not be used"),
    _column("sha256", TEXT, 'over a line "<sha256> <image_id>" per usable member, by position'),
)

EMBEDDINGS = _table("Gallery embeddings.", IMAGE_ID, _column("embedding", VECTOR, "unit length"))

FUSED_QUERIES = _table(
    "Query embeddings and z_t. A query that is asked both ways has two rows, with the same, "
    "averaged, embedding. Queries with the same reference, byte by byte, and the same texts are "
    "one question, in order of their first, and have the same rows.",
    QUERY_ID,
    _column("embedding", VECTOR, "unit length"),
    _column("question", pa.int64()),
    _column("token_ids", pa.list_(INTEGER)),
    _column("length", INTEGER, "of the text, in tokens"),
    _column("z_t", pa.binary(), "see storage.z_t"),
)


def of_width(schema: pa.Schema, width: int) -> pa.Schema:
    """With vectors of this width."""
    return pa.schema(
        [
            one.with_type(pa.list_(pa.float32(), width)) if one.type == VECTOR else one
            for one in schema
        ]
    )


def bare(schema: pa.Schema) -> pa.Schema:
    """Without what the columns mean, which no file need say."""
    return pa.schema([one.remove_metadata() for one in schema])


def require(found: pa.Schema, declared: pa.Schema, item: str) -> None:
    """Raises StoreCorrupt, naming the item, where columns have other names, types or places than
    are declared, or may be null where none may."""
    widths = {one.type.list_size for one in found if pa.types.is_fixed_size_list(one.type)}
    expected = of_width(declared, widths.pop()) if len(widths) == 1 else declared
    if found.equals(expected):
        return
    theirs, ours = ({one.name: _told(one) for one in schema} for schema in (found, expected))
    differing = [
        f"{name}: {theirs.get(name, 'none')}, and declared is {ours.get(name, 'none')}"
        for name in {**ours, **theirs}
        if theirs.get(name) != ours.get(name)
    ]
    raise StoreCorrupt(
        "a part has other columns than are declared",
        item=item,
        cause="; ".join(differing) or f"their order is {', '.join(found.names)}",
        remedy="delete this folder and run the same command again",
    )


def _told(column: pa.Field) -> str:
    return str(column.type) + ("" if column.nullable else " not null")


# --- the catalog's tables

_TYPES = {
    TEXT: "VARCHAR",
    TEXTS: "VARCHAR[]",
    INTEGER: "INTEGER",
    SCORE: "FLOAT",
    NUMBER: "DOUBLE",
    pa.timestamp("us"): "TIMESTAMP",
}

RUNS = _table(
    "One row per evaluated run; every other table carries its run_id.",
    _column("dataset", TEXT),
    _column("split", TEXT),
    _column("protocol", TEXT),
    _column("k", INTEGER, "candidates per query"),
    _column("vector_index", TEXT, "that found them: exact, or FAISS's flat, ivf, gpu"),
    _column("precision", TEXT, "in which stage 2 computed"),
    _column("prior", NUMBER, "times stage 1's cosine, is part of stage 2's score; 0: none"),
    _column("images", INTEGER, "usable images"),
    _column("queries", INTEGER),
    _column("problems", INTEGER, "images or queries that could not be used"),
    _column("gallery_images", INTEGER, "usable members, summed over the galleries"),
    _column(
        "gallery_missing", INTEGER, "members that could not be used: more than 0 is a short gallery"
    ),
    _column("gallery_sha256", TEXT, "over the usable members' bytes and ids: see galleries"),
    _column("stage1_sha256", TEXT),
    _column("stage2_sha256", TEXT),
    _column("created_at", pa.timestamp("us")),
)

CATALOG = {
    "runs": RUNS,
    "gallery_members": _table(
        "Each gallery once, however many categories have it. The view gallery has them by "
        "category. Without path and sha256: the image could not be used, see problems.",
        *GALLERY,
        *(one.with_nullable(True) for one in IMAGES if one.name != "image_id"),
    ),
    "galleries": GALLERIES.insert(1, GALLERY_NAME),
    "queries": QUERIES.append(
        _column(
            "target_stage1_rank", INTEGER, "of the best target, in the whole gallery", nullable=True
        )
    ).insert(
        5,
        _column(
            "recall_targets",
            TEXTS,
            "those that count for recall: all, or the first alone",
            nullable=True,
        ),
    ),
    "target_ranks": TARGET_RANKS,
    "candidates": CANDIDATES,
    "rankings": RANKINGS,
    "metrics": METRICS,
    "problems": PROBLEMS,
}
"""By their names; each begins with the run's."""


def ddl() -> str:
    """What makes the catalog's tables, and comments on them. No table has a key: DuckDB 1.0 cannot
    open a file that has one (see the view integrity_runs)."""
    return "\n".join(
        statement for name, table in CATALOG.items() for statement in _statements(name, table)
    )


def _statements(name: str, table: pa.Schema) -> list[str]:
    columns = ['    "run_id" VARCHAR NOT NULL']
    columns += [
        f'    "{one.name}" {_TYPES[one.type]}' + ("" if one.nullable else " NOT NULL")
        for one in table
    ]
    told = [(f'TABLE "{name}"', table.metadata)]
    told += [(f'COLUMN "{name}"."{one.name}"', one.metadata) for one in table]
    comments = [
        f"COMMENT ON {what} IS '{about[ABOUT].decode().replace(chr(39), 2 * chr(39))}';"
        for what, about in told
        if about
    ]
    return [f'CREATE TABLE "{name}" (\n' + ",\n".join(columns) + "\n);", *comments]
