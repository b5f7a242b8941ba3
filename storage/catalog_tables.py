"""The tables of ``cir.duckdb``: the store's, for each run, with comments that a shell shows."""

import pyarrow as pa

from storage import schemas
from storage.quoting import literal
from storage.schemas import (
    ABOUT,
    COUNT,
    INTEGER,
    NUMBER,
    SCORE,
    TEXT,
    TEXTS,
    TIME,
    column,
    table,
)

_TYPES = {
    TEXT: "VARCHAR",
    TEXTS: "VARCHAR[]",
    INTEGER: "INTEGER",
    SCORE: "FLOAT",
    NUMBER: "DOUBLE",
    COUNT: "BIGINT",
    pa.bool_(): "BOOLEAN",
    TIME: "TIMESTAMP",
}

RUNS = table(
    "One row per evaluated run; every other table carries its run_id.",
    column("name", TEXT, "that somebody gave it; NULL: none", nullable=True),
    column("tags", TEXTS, "that somebody gave it; NULL: none", nullable=True),
    column("dataset", TEXT, "by its name, or a folder of one's own"),
    column("split", TEXT, "train, val, test"),
    column("protocol", TEXT, "what the numbers mean: gallery, reference, captions, averages"),
    column("k", INTEGER, "candidates per query; the most of any, where K is adaptive"),
    schemas.COVERAGE_ASKED,
    column(
        "k_calibrated_by",
        TEXT,
        "the other run whose labelled queries an adaptive K is calibrated with; NULL: none",
        nullable=True,
    ),
    column(
        "k_guarantee",
        TEXT,
        "what an adaptive K assures, or no guarantee, and why; NULL: K is a number",
        nullable=True,
    ),
    column("first_stage", TEXT, "that chose them: stage1; or candidates, embeddings: from files"),
    column("first_stage_sha256", TEXT, "of what was read of its files", nullable=True),
    column(
        "vector_index",
        TEXT,
        "that found them: exact, or FAISS's flat, ivf, gpu; NULL of given candidates",
        nullable=True,
    ),
    column("encoder_precision", TEXT, "in which images were seen"),
    column("stage1_precision", TEXT, "in which stage 1 read texts over their references"),
    column("precision", TEXT, "in which stage 2 computed", nullable=True),
    column(
        "prior",
        NUMBER,
        "times stage 1's cosine, is part of stage 2's score; 0: none",
        nullable=True,
    ),
    column("images", INTEGER, "usable images"),
    column("queries", INTEGER, "with and without label"),
    column("problems", INTEGER, "images or queries that could not be used"),
    column("gallery_images", INTEGER, "usable members, summed over the galleries"),
    column(
        "gallery_missing",
        INTEGER,
        "members that could not be used: more than 0 is a short gallery",
    ),
    column("gallery_sha256", TEXT, "over the usable members' bytes and ids: see galleries"),
    column("stage1_sha256", TEXT, "of the model that encodes images and fuses queries"),
    column(
        "stage2_sha256",
        TEXT,
        "of the model that re-ranks; NULL: nothing was, stage 1 alone",
        nullable=True,
    ),
    column(
        "reads_z_t",
        pa.bool_(),
        "whether stage 2 reads z_t, or texts and references themselves",
        nullable=True,
    ),
    column("created_at", TIME, "in UTC"),
    column(
        "late_fusion",
        NUMBER,
        "times stage 1's score, is added to stage 2's for the final order; NULL: nothing is",
        nullable=True,
    ),
    column("late_fusion_scores", TEXT, "that are added: standardised or raw", nullable=True),
    column(
        "late_fusion_fitted_on",
        TEXT,
        "split and protocol of the queries; NULL of a given weight",
        nullable=True,
    ),
    column(
        "text_weight",
        NUMBER,
        "the text's share of a query, where the run says another than the model's own; NULL: the "
        "model's, or it weighs nothing",
        nullable=True,
    ),
)

CATALOG = {
    "runs": RUNS,
    "gallery_members": table(
        "Each gallery once, however many categories have it. The view gallery has them by "
        "category. Without path and sha256: the image could not be used, see problems.",
        *schemas.GALLERY,
        *(one.with_nullable(True) for one in schemas.IMAGES if one.name != "image_id"),
    ),
    "galleries": schemas.GALLERIES.insert(1, schemas.GALLERY_NAME),
    "queries": schemas.QUERIES.append(
        column(
            "target_stage1_rank",
            INTEGER,
            "of the best target, in the whole gallery",
            nullable=True,
        )
    ).insert(
        5,
        column(
            "recall_targets",
            TEXTS,
            "those that count for recall: all, or the first alone",
            nullable=True,
        ),
    ),
    "artifacts": table(
        "What each run was made of, stage by stage, itself among them.",
        column("stage", TEXT, "ingest, encode, fuse and so on"),
        column("folder", TEXT, "below the store; its parts are Parquet files"),
    ),
    "target_ranks": schemas.TARGET_RANKS,
    "candidates": schemas.CANDIDATES,
    "rankings": schemas.RANKINGS,
    "metrics": schemas.METRICS,
    "costs": schemas.COSTS,
    "late_fusion_curve": schemas.FUSION_CURVE,
    "adaptive_k": schemas.THRESHOLDS,
    "calibration": schemas.CALIBRATION,
    "problems": schemas.PROBLEMS,
    "probes": schemas.PROBES,
    "dropped_pairs": schemas.DROPPED_PAIRS,
}
"""By their names; each begins with ``RUN_ID``."""

RUN_ID = column("run_id", TEXT, "the run's short name, see the table runs")


def ddl() -> str:
    """What makes the catalog's tables, and comments on them. No table has a key: DuckDB 1.0 cannot
    open a file that has one (see the view integrity_runs)."""
    return "\n".join(
        statement for name, table in CATALOG.items() for statement in _statements(name, table)
    )


def _statements(name: str, table: pa.Schema) -> list[str]:
    fields = [RUN_ID, *table]
    columns = [
        f'    "{one.name}" {_TYPES[one.type]}' + ("" if one.nullable else " NOT NULL")
        for one in fields
    ]
    told = [(f'TABLE "{name}"', table.metadata)]
    told += [(f'COLUMN "{name}"."{one.name}"', one.metadata) for one in fields]
    comments = [
        f"COMMENT ON {what} IS {literal(about[ABOUT].decode())};" for what, about in told if about
    ]
    return [f'CREATE TABLE "{name}" (\n' + ",\n".join(columns) + "\n);", *comments]
