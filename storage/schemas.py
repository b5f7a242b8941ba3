"""Every table of the store: its columns, their types and what they mean, once. Parquet, DuckDB and
the comments in its catalog project these; what is written or read with others is refused."""

import pyarrow as pa

from cir_core.errors import StoreCorrupt

TEXT, TEXTS = pa.string(), pa.list_(pa.string())
INTEGER, SCORE, NUMBER = pa.int32(), pa.float32(), pa.float64()
COUNT, TIME = pa.int64(), pa.timestamp("us")
VECTOR = pa.list_(pa.float32())
"""A list of the model's width: in files, of one fixed size (``of_width``)."""

ABOUT = b"about"


def column(name: str, kind: pa.DataType, about: str = "", *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={ABOUT: about} if about else None)


def table(about: str, *columns: pa.Field) -> pa.Schema:
    return pa.schema(columns, metadata={ABOUT: about})


QUERY_ID = column("query_id", TEXT, "as the dataset names it")
IMAGE_ID = column("image_id", TEXT, "as the dataset names it")
CATEGORY = column("category", TEXT, "of queries; of metrics also average (macro) and micro")
GALLERY_NAME = column("gallery", TEXT, "the first category that is asked of it")
POOL = column("pool", TEXT, "gallery; or subset, CIRR's second pool, which is ranked apart")
STAGE1_RANK = column("stage1_rank", INTEGER, "1-based")
STAGE1_SCORE = column("stage1_score", SCORE, "cosine of the embeddings")
STAGE2_SCORE = column("stage2_score", SCORE, "final: stage 2's prior, if it has one, is in it")
RANK = column("rank", INTEGER, "the final order, 1-based")

IMAGES = table(
    "Distinct images in the order of their encoding.",
    IMAGE_ID,
    column("path", TEXT, "below the data root"),
    column("sha256", TEXT, "of the file"),
    column("width", INTEGER, "in pixels"),
    column("height", INTEGER, "in pixels"),
)

GALLERY = table(
    "Members of each distinct gallery, which has the name of the first category that is asked of "
    "it.",
    GALLERY_NAME,
    column("position", INTEGER, "gallery order, the tie-break of every ranking"),
    IMAGE_ID,
)

CATEGORIES = table(
    "Which gallery each category's queries are asked of, in the categories' order.",
    CATEGORY,
    GALLERY_NAME,
)

QUERIES = table(
    "What is asked.",
    QUERY_ID,
    CATEGORY,
    column("reference_id", TEXT, "the image that the query starts from"),
    column("text", TEXT, "what is to be changed, in words"),
    column("targets", TEXTS, "right answers; NULL: a query without label", nullable=True),
    column("subset", TEXTS, "members of the second pool, NULL where there is none", nullable=True),
    column(
        "other_text", TEXT, "the captions in the other order, where both are asked", nullable=True
    ),
)

PROBLEMS = table(
    "Images and queries that could not be used, and why.",
    column("item", TEXT, "the image, or the query"),
    column("kind", TEXT, "of problem"),
    column("message", TEXT, "what is wrong with it"),
)

CANDIDATES = table(
    "Stage 1's choice: K images of each query's gallery, and its subset.",
    *(QUERY_ID, POOL, IMAGE_ID, STAGE1_RANK, STAGE1_SCORE),
)

TARGET_RANKS = table(
    "Where stage 1 puts each target in the whole gallery, also beyond the K candidates.",
    *(QUERY_ID, IMAGE_ID, STAGE1_RANK),
)

COVERAGE_ASKED = column(
    "coverage_asked", NUMBER, "of an adaptive K, a fraction; NULL: K is a number", nullable=True
)

CALIBRATION = table(
    "Labelled queries that the thresholds of an adaptive K are calibrated with. They are the run's "
    "own, or those of the run that runs.k_calibrated_by names.",
    QUERY_ID,
    column("fold", INTEGER, "0 or 1: the half of its gallery's labelled queries"),
    column(
        "gap",
        NUMBER,
        "by how much the best of its targets scores lower than its best image; infinite: none can "
        "be found",
    ),
)

THRESHOLDS = table(
    "How far below its best score a query's candidates reach, where K is adaptive.",
    GALLERY_NAME,
    column(
        "fold",
        INTEGER,
        "of the queries asked with it, which the other one calibrated; NULL: of those without "
        "label, which all labelled ones did, or of all, which another run's did",
        nullable=True,
    ),
    column("n", INTEGER, "queries behind it"),
    COVERAGE_ASKED,
    column("risk", NUMBER, "asked for; NULL: the coverage holds on average", nullable=True),
    column("threshold", NUMBER, "candidates score the best score less this, or more"),
    column(
        "guarantee",
        TEXT,
        "what that assures of a query of the same gallery and source; or no guarantee, and why",
    ),
)

SCORES = table("Stage 2's score of each candidate.", QUERY_ID, IMAGE_ID, STAGE2_SCORE)

RANKINGS = table(
    "Every candidate with both stages' scores and ranks.",
    *(QUERY_ID, POOL, IMAGE_ID, STAGE1_RANK, STAGE1_SCORE, STAGE2_SCORE, RANK),
)

EXPORT = table(
    "A ranking with what was asked, as it leaves the store.",
    *(QUERY_ID, CATEGORY, QUERIES.field("reference_id"), QUERIES.field("text"), IMAGE_ID),
    *(RANK, STAGE2_SCORE, STAGE1_RANK, STAGE1_SCORE, POOL),
)

METRICS = table(
    "Fractions, with 95 % intervals.",
    column("protocol", TEXT, "what the numbers mean: gallery, reference, captions, averages"),
    CATEGORY,
    column("stage", TEXT, "stage1, stage2, or gain (paired difference)"),
    POOL,
    column("metric", TEXT, "recall, recall_subset, coverage, mrr, map, cirr_average"),
    column("k", INTEGER, "of the metric; 0 where it has none"),
    column("value", NUMBER, "a fraction"),
    column("ci_low", NUMBER, "lower end of the 95 % interval"),
    column("ci_high", NUMBER, "upper end of the 95 % interval"),
    column("n", INTEGER, "queries behind it"),
    column("gallery_images", INTEGER, "of the category; of an average, of all galleries together"),
    column("gallery_missing", INTEGER, "members that could not be used"),
    column("gallery_sha256", TEXT, "over the usable members' bytes and ids: see galleries"),
)

GALLERIES = table(
    "What was searched.",
    CATEGORY,
    column("images", INTEGER, "usable members"),
    column("missing", INTEGER, "members that could not be used"),
    column("sha256", TEXT, 'over a line "<sha256> <image_id>" per usable member, by position'),
)

COSTS = table(
    "What the making of each artifact that a run is made of took. Its sittings recorded it, "
    "whichever run it was made for. What earlier artifacts had was copied, and costs nothing here: "
    "their own sittings tell what it took. Where a sitting was not recorded, or in part, numbers "
    "are too small (recorded < 1); of artifacts without any record they are NULL.",
    column("stage", TEXT, "encode and fuse share one pass, and are told their shares of its time"),
    column("sittings", INTEGER, "stretches of work; 0: nothing is recorded"),
    column("unfinished", INTEGER, "of them, those that were killed or failed"),
    column("recorded", NUMBER, "share of the artifact's parts that the sittings tell of"),
    column("began_at", TIME, "the first sitting, in UTC", nullable=True),
    column("seconds", NUMBER, "wall time, models opened and parts committed", nullable=True),
    column("images", INTEGER, "seen, or read where their tokens were kept", nullable=True),
    column("queries", INTEGER, nullable=True),
    column("pairs", COUNT, "of a query's text and an image", nullable=True),
    column(
        "copied",
        COUNT,
        "from earlier artifacts, beside these: rerank's pairs, fuse's queries, else images",
        nullable=True,
    ),
    column(
        "gflop",
        NUMBER,
        "10^9 floating-point operations of the parts, counted by the models' formulas",
        nullable=True,
    ),
    column(
        "peak_memory", COUNT, "resident bytes, the peaks of all processes summed", nullable=True
    ),
    column("peak_gpu_memory", COUNT, "bytes allocated on one GPU", nullable=True),
    column("device", TEXT, "cpu, cuda and so on", nullable=True),
    column("processor", TEXT, "by its maker's name", nullable=True),
    column("threads", INTEGER, "of a process; NULL where sittings differ", nullable=True),
    column("processes", INTEGER, "that shared the work; NULL where they differ", nullable=True),
    column("made_with", TEXTS, "versions, when the artifact was finished"),
)

FUSION_CURVE = table(
    "Recall of the queries that a late fusion's weight was fitted on, by weight.",
    column("weight", NUMBER, "of stage 1's score"),
    column("k", INTEGER, "of the recall"),
    column("recall", NUMBER, "a fraction: macro average over the categories"),
    column("n", INTEGER, "queries behind it"),
    column("is_chosen", pa.bool_(), "the weight that the run took"),
)

PROBES = table(
    "What else was asked of each query, beside the run (cir-pipeline analyse). Ranks are 1-based, "
    "in the whole gallery; NULL where there is nothing to rank, or nothing to ask with.",
    QUERY_ID,
    column(
        "composed_rank",
        INTEGER,
        "of the best target that counts, by the whole query; stage 1's, or given embeddings'",
        nullable=True,
    ),
    column("image_rank", INTEGER, "the same by the reference's own embedding", nullable=True),
    column("text_rank", INTEGER, "the same by the text alone", nullable=True),
    column(
        "reference_rank",
        INTEGER,
        "of the query's own reference, by stage 1's embedding of the query; nothing is removed",
        nullable=True,
    ),
    column(
        "reference_rank_mapped",
        INTEGER,
        "the same by what a linear map reads from that embedding",
        nullable=True,
    ),
    column(
        "reference_rank_z_t",
        INTEGER,
        "the same by what a linear map reads from z_t, averaged over its tokens",
        nullable=True,
    ),
    column(
        "target_neighbour_id",
        TEXT,
        "the image, no target itself, that is nearest to one that counts",
        nullable=True,
    ),
    column("target_neighbour_cosine", SCORE, "of their embeddings", nullable=True),
)

DROPPED_PAIRS = table(
    "Scores of a random sample of images that stage 1 dropped (cir-pipeline analyse). Stage 1 has "
    "none where a file chose the candidates.",
    *(QUERY_ID, IMAGE_ID, STAGE1_SCORE.with_nullable(True), STAGE2_SCORE),
)

EMBEDDINGS = table("Gallery embeddings.", IMAGE_ID, column("embedding", VECTOR, "unit length"))

QUERY_EMBEDDINGS = table(
    "Query embeddings that were computed elsewhere.",
    QUERY_ID,
    column("embedding", VECTOR, "unit length"),
)

FUSED_QUERIES = table(
    "Query embeddings and z_t. A query that is asked both ways has two rows, with the same, "
    "averaged, embedding. Queries with the same reference, byte by byte, and the same texts are "
    "one question, in order of their first, and have the same rows.",
    QUERY_ID,
    column("embedding", VECTOR, "unit length"),
    column("question", pa.int64()),
    column("token_ids", pa.list_(INTEGER)),
    column("length", INTEGER, "of the text, in tokens"),
    column("z_t", pa.binary(), "see storage.z_t"),
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
