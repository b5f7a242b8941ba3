"""Who runs the tasks, as the terminal and the environment say."""

import os


def prepare_prefect() -> None:
    """What Prefect reads when it is imported."""
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "flows,tasks,storage")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")


def wants_prefect(engine: str) -> bool:
    """``auto`` takes Prefect when an API is named in the environment; asking Prefect itself costs
    its import."""
    return engine == "prefect" or (engine == "auto" and bool(os.environ.get("PREFECT_API_URL")))
