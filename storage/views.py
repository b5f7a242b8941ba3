"""What stages hand on: references to artifacts, typed by their stage, and what can be asked of
each."""

from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.conformal import NO_GUARANTEE
from cir_core.protocols import PROTOCOLS, Protocol
from cir_core.types import FirstStage, Precision, Scale
from storage import schemas
from storage.labels import Label, read_label
from storage.view import Parts, View

ADAPTIVE = "auto"
"""In place of K, where it is a query's own."""


class Ingested(View):
    """A split's images, galleries and queries, under a protocol."""

    stage = "ingest"
    holds: ClassVar[Parts] = {
        "images": schemas.IMAGES,
        "gallery": schemas.GALLERY,
        "categories": schemas.CATEGORIES,
        "queries": schemas.QUERIES,
        "problems": schemas.PROBLEMS,
    }

    @property
    def protocol(self) -> Protocol:
        """The one that the split was ingested under."""
        return PROTOCOLS[self.setting("protocol")]


class Encoded(View):
    """Embeddings of the images."""

    stage = "encode"
    holds: ClassVar[Parts] = {"embeddings": schemas.EMBEDDINGS, "problems": schemas.PROBLEMS}

    @property
    def encoder_precision(self) -> Precision:
        """In which the images were seen. Raises as ``setting``."""
        precision: Precision = self.identity()["settings"].get("encoder_precision", "fp32")
        return precision


class Fused(View):
    """Embeddings and z_t of the queries."""

    stage = "fuse"
    holds: ClassVar[Parts] = {"queries": schemas.FUSED_QUERIES, "unfused": schemas.PROBLEMS}

    @property
    def text_weight(self) -> float | None:
        """The text's share of a query; None where the run says no other than the model's own, if
        that has one. Raises as ``setting``."""
        return self.identity()["settings"].get("text_weight")

    @property
    def precision(self) -> Precision:
        """In which texts were read. Raises as ``setting``."""
        precision: Precision = self.identity()["settings"].get("precision", "fp32")
        return precision


class Embedded(View):
    """Embeddings of images and queries that were computed elsewhere."""

    stage = "embeddings"
    holds: ClassVar[Parts] = {
        "gallery": schemas.EMBEDDINGS,
        "queries": schemas.QUERY_EMBEDDINGS,
    }


class KeptTokens(View):
    """Image tokens, of every picture."""

    stage = "tokens"
    holds: ClassVar[Parts] = {"tokens": pa.schema([]), "problems": schemas.PROBLEMS}


class Thresholds(View):
    """How far below its best score a query's candidates reach, where K is adaptive."""

    stage = "threshold"
    holds: ClassVar[Parts] = {
        "calibration": schemas.CALIBRATION,
        "thresholds": schemas.THRESHOLDS,
    }

    @property
    def calibrated_by(self) -> str | None:
        """The id of the other run whose labelled queries calibrate; None of its own. Raises as
        ``setting``."""
        run = self.identity()["inputs"].get(Evaluated.stage)
        return None if run is None else run_id_of(run)

    @property
    def guarantee(self) -> str | None:
        """In words; of galleries of which one has none, why. None where nothing is asked. Raises
        StoreCorrupt when it is not whole."""
        told: list[str] = self.read("thresholds", ["guarantee"])["guarantee"].to_pylist()
        return next((one for one in told if one.startswith(NO_GUARANTEE)), next(iter(told), None))


class Retrieved(View):
    """Stage 1's choice for each query, and where its targets are."""

    stage = "retrieve"
    holds: ClassVar[Parts] = {"candidates": schemas.CANDIDATES, "targets": schemas.TARGET_RANKS}

    @property
    def first_stage(self) -> FirstStage:
        """Whose choice it is. Raises as ``setting``."""
        inputs = self.identity()["inputs"]
        others: tuple[FirstStage, ...] = ("candidates", "embeddings")
        return next((one for one in others if one in inputs), "stage1")

    @property
    def first_stage_sha256(self) -> str | None:
        """Of what was read of its files; None of stage 1's own choice. Raises as ``setting``."""
        if self.embedded is not None:
            return self.embedded.digest("vectors")
        return self.digest("candidates") if self.first_stage == "candidates" else None

    @property
    def embedded(self) -> Embedded | None:
        """What was searched in place of stage 1's own embeddings. Raises as ``setting``."""
        return self.made_of(Embedded) if self.first_stage == Embedded.stage else None

    @property
    def thresholds(self) -> Thresholds | None:
        """Where K is adaptive. Raises as ``setting``."""
        return self.made_of(Thresholds) if Thresholds.stage in self.identity()["inputs"] else None

    def ks(self) -> np.ndarray:
        """How many candidates each query has, CIRR's subset aside; of those that have any."""
        pools = self.read("candidates", ["query_id", "pool"])
        mine = pools.filter(pc.equal(pools["pool"], "gallery"))
        counts: np.ndarray = (
            mine.group_by("query_id").aggregate([([], "count_all")])["count_all"].to_numpy()
        )
        return counts

    @property
    def encoded(self) -> Encoded:
        return self.made_of(Encoded)

    @property
    def fused(self) -> Fused:
        return self.made_of(Fused)


class Scored(View):
    """Stage 2's scores of the candidates."""

    stage = "rerank"
    holds: ClassVar[Parts] = {"scores": schemas.SCORES}

    @property
    def reads_z_t(self) -> bool:
        """Or texts, and perhaps references, themselves. Raises as ``setting``."""
        return Fused.stage in self.identity()["inputs"]


class Fitted(View):
    """The weight of a late fusion, and the recall of the queries that it was fitted on."""

    stage = "fit"
    holds: ClassVar[Parts] = {"curve": schemas.FUSION_CURVE}

    @property
    def weight(self) -> float:
        """The chosen one. Raises StoreCorrupt when it is not whole."""
        curve = self.read("curve")
        return float(curve.filter(curve["is_chosen"])["weight"][0].as_py())

    @property
    def fitted_on(self) -> str:
        """Split and protocol of the queries."""
        return f"{self.setting('split')}, {self.setting('protocol')}"


class Ranked(View):
    """The candidates with both stages' scores and ranks."""

    stage = "rank"
    holds: ClassVar[Parts] = {"rankings": schemas.RANKINGS}

    @property
    def scored(self) -> Scored:
        return self.made_of(Scored)

    @property
    def fitted(self) -> Fitted | None:
        """Of the late fusion, if its weight was fitted."""
        return self.made_of(Fitted) if Fitted.stage in self.identity()["inputs"] else None

    @property
    def late_fusion(self) -> tuple[float, Scale] | None:
        """Weight and scale; None where the order is stage 2's."""
        settings, fitted = self.identity()["settings"], self.fitted
        if "late_fusion_scores" not in settings:
            return None
        weight = settings["late_fusion"] if fitted is None else fitted.weight
        return weight, settings["late_fusion_scores"]


class Evaluated(View):
    """A run's metrics; the run bears its name, and all that it is made of is found from here."""

    stage = "evaluate"
    holds: ClassVar[Parts] = {"metrics": schemas.METRICS, "galleries": schemas.GALLERIES}

    @property
    def run_id(self) -> str:
        """The run's short name."""
        return run_id_of(self.fingerprint)

    @property
    def label(self) -> Label:
        """What people call it, as the store has it now."""
        return read_label(self.store, self.run_id)

    @property
    def ingested(self) -> Ingested:
        return self.made_of(Ingested)

    @property
    def candidates(self) -> Retrieved:
        return self.made_of(Retrieved)

    @property
    def deepest(self) -> int:
        """K; where it is adaptive, the most that any query has."""
        k = self.setting("k")
        return int(self.candidates.ks().max(initial=0)) if k == ADAPTIVE else k

    @property
    def is_reranked(self) -> bool:
        """Whether it measures both stages, and not stage 1 alone."""
        return Ranked.stage in self.identity()["inputs"]

    @property
    def ranked(self) -> Ranked:
        """Raises LookupError where nothing was re-ranked."""
        return self.made_of(Ranked)


class Dropped(Retrieved):
    """A random sample of what stage 1 has not chosen; ranks are those within it."""

    stage = "dropped"


class DroppedScores(Scored):
    """Stage 2's scores of these."""

    stage = "dropped_scores"


class Probed(View):
    """What else was asked of a run's queries, beside the run."""

    stage = "probe"
    holds: ClassVar[Parts] = {"probes": schemas.PROBES, "dropped": schemas.DROPPED_PAIRS}


class Pair(View):
    """Two models, or a stage 1 alone, that were checked; its inputs name their bytes."""

    stage = "pair"


RUN_ID_DIGITS = 12


def run_id_of(evaluated: str) -> str:
    """The short name of a run: the first digits of its evaluation's fingerprint."""
    return evaluated[:RUN_ID_DIGITS]
