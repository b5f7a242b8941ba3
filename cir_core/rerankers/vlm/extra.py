"""transformers, which only vision-language models need."""

from importlib import import_module
from typing import Any

from cir_core.errors import PreflightError


def transformers() -> Any:
    """The package, without its progress bars: progress is told by what is scored. Raises
    PreflightError where it is not installed."""
    try:
        package = import_module("transformers")
        import_module("transformers.utils.chat_template_utils")
        import_module("transformers.utils.logging").disable_progress_bar()
    except ImportError as error:
        raise PreflightError(
            "a vision-language model needs transformers, which is not installed",
            cause=str(error),
            remedy="pip install 'cir-pipeline[vlm]'",
        ) from error
    return package
