"""What a cluster's library is asked for, whichever it is."""

import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol
from urllib.parse import urlsplit

from cir_core.errors import PreflightError, UsageError

SECONDS_TO_CONNECT = 20.0
"""A scheduler answers within milliseconds, and a loaded one within seconds."""

SECONDS_TO_START = 60.0
"""An agent's first answer: a worker imports a library, and may start an interpreter."""

SECONDS_TO_ANSWER = 5.0
"""An agent's next ones, which take one at most; then its worker is looked for."""


class Gone(Exception):
    """A worker is not there any more, or does not answer; how that shows."""


class Distant(Protocol):
    """An agent (``tasks.agent.Agent``) on a worker. All raise Gone."""

    def begin(self, serve: str, order: bytes, environment: Mapping[str, str]) -> None: ...

    def hear(self) -> list[bytes]: ...

    def end(self) -> None: ...


class Asked(ABC):
    """A ``Distant`` of which a library asks one method after the other."""

    @abstractmethod
    def _ask(self, method: str, *given: Any) -> Any:
        """What the agent's method answers. Raises Gone."""

    def begin(self, serve: str, order: bytes, environment: Mapping[str, str]) -> None:
        self._ask("begin", serve, order, environment)

    def hear(self) -> list[bytes]:
        said: list[bytes] = self._ask("hear")
        return said

    def end(self) -> None:
        self._ask("end")


class Library(Protocol):
    """A cluster, connected. It calls each worker by a name, its place."""

    noun: ClassVar[str]

    def places(self, *, on_gpu: bool) -> Mapping[str, int]:
        """Who is there, and how many threads of a CPU each has."""

    def agent(self, place: str, *, on_gpu: bool) -> Distant:
        """A new one there; its processes have a GPU, where they are to. Raises Gone, and
        PreflightError where our code is not installed."""


def require_listener(noun: str, address: str) -> None:
    """Raises PreflightError when nothing listens at ``host:port``, with or without a scheme, and
    UsageError for what is no address: the libraries try for long, each in its way."""
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise UsageError(
            f"{address!r} is no address of a {noun} cluster",
            cause="a host and a port are needed",
            remedy="pass --address host:port; see docs/running.md",
        )
    try:
        socket.create_connection((host, port), SECONDS_TO_CONNECT).close()
    except OSError as error:
        raise PreflightError(
            f"no {noun} cluster answers",
            item=address,
            cause=str(error),
            remedy="start it, or correct --address",
        ) from error
