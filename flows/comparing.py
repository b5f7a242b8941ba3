"""Runs compared, as a comparison's settings say."""

from collections.abc import Callable
from pathlib import Path

from flows.comparison_settings import ComparisonSettings
from storage.store import Store
from tasks.results.compare.compare import Compared, compare
from tasks.results.compare.comparison import Asked


def run_comparison(
    settings: ComparisonSettings, store: Store, root_of: Callable[[str], Path | None]
) -> Compared:
    """Raises as ``compare``."""
    return compare(
        store,
        settings.runs,
        tags=settings.tags,
        stage=settings.stage,
        anyway=settings.anyway,
        asked=Asked(settings.rounds, settings.persistence),
        root_of=root_of,
        folder=settings.out,
    )
