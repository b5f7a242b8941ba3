"""What a run's numbers are of: where these facts differ, numbers need not agree."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cir_core.types import Precision
from storage.views import Evaluated

Fact = str | int | float | list[str]


@dataclass(frozen=True)
class Facts:
    """``settings`` by name; the sha256 of each category's gallery, and of each model by its stage.
    What does not apply is in none."""

    settings: Mapping[str, Fact]
    galleries: Mapping[str, str]
    models: Mapping[str, str]


def facts_of(evaluated: Evaluated) -> Facts:
    """Of a whole run, from its artifacts. Raises StoreCorrupt, and LookupError or TypeError for
    another version's."""
    source, retrieved = evaluated.ingested, evaluated.candidates
    settings = {
        "dataset": source.setting("dataset"),
        "split": source.setting("split"),
        "categories": list(source.setting("categories")),
        "protocol": evaluated.setting("protocol"),
        "k": evaluated.setting("k"),
        "first_stage": retrieved.first_stage,
        "first_stage_sha256": retrieved.first_stage_sha256,
        "text_weight": retrieved.fused.text_weight,
        "encoder_precision": _unless_fp32(retrieved.encoded.encoder_precision),
        "stage1_precision": _unless_fp32(retrieved.fused.precision),
        **_index(retrieved.identity()["settings"]),
        **({} if retrieved.thresholds is None else retrieved.thresholds.identity()["settings"]),
    }
    models = {"stage1": retrieved.encoded.digest("model")}
    if evaluated.is_reranked:
        ranked = evaluated.ranked
        scored, (weight, scale) = ranked.scored, ranked.late_fusion or (None, None)
        models["stage2"] = scored.digest("model")
        settings |= {"precision": scored.setting("precision"), "prior": scored.setting("prior")}
        settings |= {"late_fusion": weight, "late_fusion_scores": scale}
    galleries = evaluated.read("galleries").to_pylist()
    return Facts(
        settings={name: value for name, value in settings.items() if value is not None},
        galleries={one["category"]: one["sha256"] for one in galleries},
        models=models,
    )


def _unless_fp32(precision: Precision) -> Precision | None:
    """A run that was recorded when these were always fp32 has the same facts now."""
    return None if precision == "fp32" else precision


def _index(settings: Mapping[str, Any]) -> dict[str, Any]:
    """How stage 1 searched, as far as that was asked for."""
    return {name: settings.get(name) for name in ("index", "nlist", "nprobe")}
