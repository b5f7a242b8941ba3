"""What a training is asked to do beside the settings of its data: every setting, declared once."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, PositiveInt

from flows.about import METHOD, About, settings_of
from flows.settings import DECLARED, HomePath, Settings
from flows.suggestions import recipe_names


class TrainingSettings(BaseModel):
    """What one training is asked to do.

    ``data`` says which dataset, where, and with what store and device. ``validate_on`` is never
    chosen by. ``changes_results`` means the trained model: which split measures it, where it is
    written and how its work is cut do not change it.
    """

    model_config = DECLARED

    stage: Annotated[
        Literal["pretrain", "stage1", "stage2"],
        About("What to train.", changes_results=True, positional=True),
    ]
    out: Annotated[
        HomePath,
        About("Folder to write: models best and last, and what resumes.", changes_results=False),
    ]
    recipe: Annotated[
        str,
        About(
            "demo, small, fiq, cirr, or a .toml file that changes one.",
            changes_results=True,
            flags=("--config",),
            values=recipe_names,
            may_be_path=True,
        ),
    ] = "demo"
    data: Annotated[
        Settings,
        About(
            "What a run takes too: dataset, data_root, store, device and so on.",
            changes_results=True,
        ),
    ] = Field(default_factory=Settings)
    base: Annotated[
        HomePath | None,
        About("Pre-trained model that stage 1 and 2 start from.", changes_results=True),
    ] = None
    stage1: Annotated[
        HomePath | None,
        About("Finished stage 1, whose z_t stage 2 reads.", changes_results=True),
    ] = None
    validate_on: Annotated[
        str | None,
        About(
            "In the end, measure the best model on a split, or own data's file of queries.",
            changes_results=False,
            default="nothing",
            may_be_path=True,
        ),
    ] = None
    features: Annotated[
        Literal["cache", "recompute"],
        About(
            "cache: image tokens are kept in the store; recompute: a ViT pass every time.",
            changes_results=False,
        ),
    ] = "cache"
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        About("auto: bf16 on a GPU that has it.", changes_results=True),
    ] = "auto"
    micro_batch: Annotated[
        PositiveInt | None,
        About("Rows of a batch at a time; same result.", changes_results=False, default="all"),
    ] = None


OF_DATA = frozenset({"protocol", "k"})
"""Of a run's method: what says which questions a training's data ask; a recipe says its own K."""

OF_RUNS = {
    one.name: one.default
    for one in settings_of(Settings)
    if (one.about.panel == METHOD or one.name.endswith("precision")) and one.name not in OF_DATA
}
"""Settings of a run that no training reads, by their defaults."""


def settings_of_data(settings: Settings) -> Settings:
    """Those of a training's data and machine, whatever a file or the environment sets for other
    runs: what chooses candidates or changes scores there says nothing of a model in training.
    Checkpoints are judged in fp32 over stage 1's own candidates from the exact index, so that what
    is best depends on the recipe, models and data alone; an adaptive K, which labels of the data
    would choose, is none of theirs either."""
    k = None if settings.k == "auto" else settings.k
    return settings.model_copy(update=OF_RUNS | {"k": k})
