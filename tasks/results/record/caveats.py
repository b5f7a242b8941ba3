"""What is to be known of a run before its numbers are quoted."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks.results.wording import (
    copied_words,
    has_no_guarantee,
    is_reranked,
    short_gallery,
    unusable,
)

Row = Mapping[str, Any]

TRAINED = ("train", "selection")

APPROXIMATE = "ivf"

COMPUTES = {
    "encoder_precision": "The image encoder",
    "stage1_precision": "Stage 1",
    "precision": "Stage 2",
}
"""By the column that says in which precision."""


def caveats_of(run: Row, tables: Mapping[str, Sequence[Row]]) -> list[str]:
    """Sentences, of a row of ``runs`` and its tables ``metrics``, ``problems`` and ``costs``; none
    where there is nothing to say."""
    return [*_of_data(run, tables), *_of_method(run), *_of_costs(tables["costs"])]


def _of_data(run: Row, tables: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    if not tables["metrics"]:
        yield "The queries have no labels: rankings were made, and nothing is measured."
    if run["gallery_missing"]:
        yield f"{short_gallery(run)}. Recall in a smaller gallery is too high."
    if tables["problems"]:
        told = unusable(len(tables["problems"]))
        yield f"{told} (the table problems); such queries count as misses."
    if run["dataset"] == "demo":
        yield "The images are drawn: the numbers say nothing about photos."
    if run["split"] in TRAINED:
        yield f"The queries are of the split {run['split']}, which trainings use."


def _of_method(run: Row) -> Iterator[str]:
    if not is_reranked(run):
        yield "Nothing was re-ranked: every number is stage 1's."
    if run["vector_index"] == APPROXIMATE:
        yield "The index is approximate (ivf): a target may be missed that an exact search finds."
    if run["coverage_asked"] is not None:
        yield (
            f"K is adaptive: each query has as many candidates as a coverage of "
            f"{run['coverage_asked']:g} asks, {run['k']:,} at most. What that assures, the table "
            "adaptive_k says."
        )
    if run["k_calibrated_by"] is not None:
        yield f"K is calibrated with the labelled queries of another run, {run['k_calibrated_by']}."
    if has_no_guarantee(run):
        yield f"The coverage that was asked is not assured: {run['k_guarantee']}."
    if run["first_stage"] == "candidates":
        yield (
            "The candidates are another system's: a target that its file lacks is a miss at every "
            "k, and stage 1's recall is that file's."
        )
    if run["first_stage"] == "embeddings":
        yield "The embeddings that were searched are another system's."
    for column, part in COMPUTES.items():
        if run[column] not in (None, "fp32"):
            yield (
                f"{part} computed in {run[column]}: scores, and ranks, depend on what is computed "
                "together and on the device."
            )
    if run["late_fusion"] is not None:
        fitted = run["late_fusion_fitted_on"]
        where = f"fitted on {fitted}" if fitted else "given"
        yield (
            f"The final order is a late fusion: stage 2's score + {run['late_fusion']:g} x stage "
            f"1's ({run['late_fusion_scores']}), the weight {where}."
        )


def _of_costs(costs: Sequence[Row]) -> Iterator[str]:
    unknown = [row["stage"] for row in costs if not row["sittings"]]
    partly = [row["stage"] for row in costs if row["sittings"] and row["recorded"] < 1]
    if unknown:
        yield f"What these stages took was not recorded: {', '.join(unknown)}."
    if partly:
        yield f"What these stages took is recorded in part, and was more: {', '.join(partly)}."
    if copied := copied_words(costs):
        yield copied
