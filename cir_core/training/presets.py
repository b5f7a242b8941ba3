"""Named recipes; docs/training.md sets them beside the paper's and gives the reasons."""

from pydantic import BaseModel, ConfigDict, NonNegativeInt, field_validator

from cir_core.layers.tower import TowerConfig
from cir_core.rerankers.dual.config import DEMO_MERGE_FROM
from cir_core.rerankers.dual.variant import PAPERS, Variant
from cir_core.retrievers.blip.config import DEMO_BLIP, Stage1Config
from cir_core.training.recipes import PretrainRecipe, Stage1Recipe, Stage2Recipe, StoredPrecision
from cir_core.types import CaptionRule

MERGE_FROM = 6
"""Published: of 12 layers, the first six merge the branches by their mean."""

PATIENCE = 3
"""Validations without a better one. Two checkpoints on the same 500 queries differ by chance by 2
points (one standard error): one or two lower ones say little. The published schedules run to their
end, since a cosine's gains come late."""

FASHION_IQ_WAYS: tuple[CaptionRule, ...] = ("published", "reversed", "first", "second")
"""The published augmentation: both orders joined, and each caption alone."""


class Preset(BaseModel):
    """The three trainings one after the other. ``base`` is the size of a model that is trained
    from nothing, over a ViT; None where pre-trained weights are converted instead. ``weights`` is
    the precision of checkpoints: each training starts from the rounded weights of the one before,
    so that all hold the same ViT, bit for bit. ``merge_from`` and ``variant`` are stage 2's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Stage1Config | None = None
    weights: StoredPrecision = "fp32"
    merge_from: NonNegativeInt = MERGE_FROM
    variant: Variant = PAPERS
    pretrain: PretrainRecipe | None = None
    stage1: Stage1Recipe
    stage2: Stage2Recipe

    @field_validator("base")
    @classmethod
    def _not_a_tower(cls, base: Stage1Config | None) -> Stage1Config | None:
        if base is not None and isinstance(base.vision, TowerConfig):
            raise ValueError(
                f"pre-training starts from nothing, and a {base.vision.kind} tower is kept as it "
                "was published: `cir-pipeline convert --text` puts one below a base"
            )
        return base


PRESETS = {
    "demo": Preset(
        base=DEMO_BLIP,
        weights="fp16",
        merge_from=DEMO_MERGE_FROM,
        pretrain=PretrainRecipe(
            epochs=9.5,
            batch=64,
            learning_rate=1e-3,
            warmup=150,
            betas=(0.9, 0.98),
            clip=1.0,
            masked=0.95,
            matched=8,
            group=2,
        ),
        stage1=Stage1Recipe(
            epochs=7,
            batch=128,
            learning_rate=6e-4,
            warmup=100,
            betas=(0.9, 0.98),
            clip=1.0,
            captions=("published", "reversed"),
            tokens="fp32",
            reference_negatives=True,
            validate_every=3,
            selected_by="recall@1",
            patience=PATIENCE,
        ),
        stage2=Stage2Recipe(
            epochs=8,
            batch=24,
            learning_rate=5e-4,
            warmup=150,
            betas=(0.9, 0.98),
            clip=1.0,
            captions=("published", "reversed"),
            tokens="fp32",
            in_batch=False,
            reference=True,
            hard=8,
            hard_from=24,
            random=2,
            validate_every=1,
            selected_by="recall@1",
            patience=PATIENCE,
        ),
    ),
    "fiq": Preset(
        stage1=Stage1Recipe(
            epochs=20,
            batch=512,
            learning_rate=2e-5,
            schedule="epoch",
            captions=FASHION_IQ_WAYS,
            k=100,
        ),
        stage2=Stage2Recipe(
            epochs=50,
            batch=16,
            learning_rate=2e-5,
            schedule="epoch",
            captions=FASHION_IQ_WAYS,
            k=100,
            checkpointing=True,
        ),
    ),
    "cirr": Preset(
        stage1=Stage1Recipe(
            epochs=10, batch=512, learning_rate=2e-5, schedule="epoch", selected_by="recall@5"
        ),
        stage2=Stage2Recipe(
            epochs=80,
            batch=16,
            learning_rate=2e-5,
            schedule="epoch",
            selected_by="recall@5",
            checkpointing=True,
        ),
    ),
}


SMALL_PRETRAIN_EPOCHS = 40
"""2,500 batches of 4,000 pictures. After 640, matching still says no to every pair, and both stages
find far less (docs/training.md)."""


def small(demo: Preset) -> Preset:
    """The demo's trainings for a user's own small set: any words, a base that sees its few pictures
    more often, and stage 2's score on top of stage 1's."""
    assert demo.base is not None
    assert demo.pretrain is not None
    words = {"vocabulary": "bert-base-uncased", "vocabulary_size": 30524, "positions": 128}
    text = demo.base.text.model_copy(update=words)
    return demo.model_copy(
        update={
            "base": demo.base.model_copy(update={"text": text}),
            "pretrain": demo.pretrain.model_copy(update={"epochs": SMALL_PRETRAIN_EPOCHS}),
            "stage2": demo.stage2.model_copy(update={"prior": 1.0}),
        }
    )


PRESETS["small"] = small(PRESETS["demo"])
