"""Work begun before its result is asked for: in order, and never more than so much of it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Promised_co = TypeVar("Promised_co", covariant=True)


class Pending(Protocol[Promised_co]):
    """Work that has begun; a Future is one."""

    def result(self) -> Promised_co:
        """Waits for it, and raises what it raises."""


def ahead(
    submit: Callable[[Item], Pending[Result]], items: Iterable[Item], most: int
) -> Iterator[Result]:
    """The results in the order of the items, of which ``most`` are under way, waiting, or the one
    that was asked for last. An exception is raised in its turn, and ends this."""
    rest = iter(items)
    begun = deque(map(submit, islice(rest, most)))
    while begun:
        yield begun.popleft().result()
        begun.extend(map(submit, islice(rest, 1)))


@contextmanager
def prepared(make: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Iterator[Result]]:
    """``map(make, items)``, where one thread makes the next while the last is used. At the end
    what has not begun is dropped."""
    thread = ThreadPoolExecutor(1)
    try:
        yield ahead(lambda item: thread.submit(make, item), items, 2)
    finally:
        thread.shutdown(cancel_futures=True)
