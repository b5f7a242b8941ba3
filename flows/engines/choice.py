"""Who runs the tasks, as the terminal, the environment and Prefect's profile say."""

import os
from pathlib import Path

from cir_core.errors import PreflightError
from flows.engines.prefect_api import URL, Api, Configuration, default_home, require_answer
from storage.lock import is_writable
from storage.store import Store

PREFECT_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
"""Prefect's telemetry is off, unless somebody wants it."""

LOOPBACK = "127.0.0.1,localhost"

HOME = "prefect"
"""Below the store: a database of its own, that can be thrown away, for a temporary server. One in
Prefect's common home may be of a newer Prefect, which this one cannot open."""


def wants_prefect(engine: str) -> bool:
    """``auto`` takes Prefect when an API is configured, in the environment or where else Prefect
    looks; asking Prefect itself costs its import."""
    return engine == "prefect" or (engine == "auto" and configured_api() is not None)


def configured_api() -> Api | None:
    return Configuration(os.environ).api()


def prepare_prefect(store: Store) -> None:
    """What Prefect reads when it is imported, which is to happen after this: the configured API or,
    where there is none, a server of its own; and a home that can be written.

    Raises PreflightError when the API does not answer, or the server does not start.
    """
    for name, value in PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    api = configured_api()
    if api is not None:
        require_answer(api)
    home = find_home(Configuration(os.environ), store)
    if not is_writable(home):
        raise PreflightError(
            "Prefect's files cannot be written",
            item=str(home),
            cause="neither is there such a folder, nor can one be made and written",
            remedy="set PREFECT_HOME to a writable folder; --engine in-process needs none",
        )
    if home != default_home():
        _move_home(home)
    if api is None:
        from flows.engines.prefect_server import start_server

        _bypass_proxy()
        os.environ[URL] = start_server(home).url


def _bypass_proxy() -> None:
    """A server of our own is on this machine, where no proxy finds it. Both spellings are read."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), LOOPBACK)))


def find_home(configuration: Configuration, store: Store) -> Path:
    """Where Prefect's files go: what is configured; else its usual home, if an API is configured
    and it can be written; else below the store."""
    configured = configuration.home()
    if configured is not None:
        return configured
    if configuration.api() is not None and is_writable(default_home()):
        return default_home()
    return store.local(HOME).absolute()


def _move_home(home: Path) -> None:
    """The profiles stay where they are."""
    profiles = Configuration(os.environ).profiles()
    if profiles.is_file():
        os.environ["PREFECT_PROFILES_PATH"] = str(profiles)
    os.environ["PREFECT_HOME"] = str(home)
