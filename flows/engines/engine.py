"""Who runs the tasks: this process, or Prefect. The composition does not know which."""

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class Engine(Protocol):
    """Runs one task to its end and returns its result; exceptions pass through."""

    def run(self, task: Callable[..., Result], *args: Any, **kwargs: Any) -> Result: ...


class InProcess:
    """Plain calls; ``seconds`` tells how long each task took, by its name, the last time."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def run(self, task: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        began = time.perf_counter()
        result = task(*args, **kwargs)
        self.seconds[task.__name__] = time.perf_counter() - began
        _log.debug("%s took %.1f s", task.__name__, self.seconds[task.__name__])
        return result


class Prefect:
    """Each task is a Prefect task run of the surrounding flow run.

    Nothing is cached or persisted by Prefect: our manifests alone decide what is done, and they
    notice a missing file or other weights, which Prefect's keys do not.
    """

    def run(self, task: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        from prefect import task as prefect_task
        from prefect.cache_policies import NO_CACHE

        settings = prefect_task(name=task.__name__, cache_policy=NO_CACHE, persist_result=False)
        return settings(task)(*args, **kwargs)
