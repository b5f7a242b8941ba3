"""Values of settings that a shell may complete, where a type does not list them.

Each takes the dataset that the settings name, or None where they are not usable, and offers nothing
where nothing is known: that a setting is wrong, the command itself tells.
"""

from collections.abc import Iterable


def dataset_names(_dataset: str | None) -> Iterable[str]:
    from cir_core.datasets.registry import DATASETS

    return DATASETS


def protocol_names(dataset: str | None) -> Iterable[str]:
    from cir_core.datasets.registry import DATASETS

    return [one.name for one in DATASETS[dataset].protocols] if dataset in DATASETS else []


def category_names(dataset: str | None) -> Iterable[str]:
    """None where only the data know them."""
    from cir_core.datasets.registry import DATASETS

    return DATASETS[dataset].adapter.categories if dataset in DATASETS else []


def recipe_names(_dataset: str | None) -> Iterable[str]:
    from cir_core.training.presets import PRESETS

    return PRESETS
