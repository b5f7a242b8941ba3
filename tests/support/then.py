"""An engine whose tasks are followed by what others do meanwhile."""

from collections.abc import Callable
from typing import Any

from flows.engines.engine import InProcess


class Then(InProcess):
    """Lets something happen when a task has ended."""

    def __init__(self, **then: Callable[[], object]) -> None:
        super().__init__()
        self.then = then

    def observe(self, name: str, work: Callable[[], Any]) -> Any:
        result = super().observe(name, work)
        self.then.get(name, lambda: None)()
        return result
