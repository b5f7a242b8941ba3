"""What a run's settings call it."""

from flows.settings import Settings
from storage.labels import write_label
from storage.runs import require_free
from storage.views import Evaluated


def require_name(settings: Settings, evaluated: Evaluated | None) -> None:
    """Raises UsageError where another run of the store has the name. None of a run that is not
    evaluated, which has none."""
    if settings.run_name is not None and evaluated is not None:
        require_free(evaluated, settings.run_name)


def give_label(settings: Settings, evaluated: Evaluated | None) -> None:
    """Name a run that is there, and tag it; what it is called already stays where the settings say
    nothing. The caller holds the store."""
    if evaluated is None:
        return
    before = evaluated.label
    label = before.tagged(settings.tags)
    if settings.run_name is not None:
        label = label.renamed(settings.run_name)
    if label != before:
        write_label(evaluated.store, evaluated.run_id, label)
