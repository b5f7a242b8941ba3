"""Which Prefect API is configured, and whether it answers: without Prefect, whose import takes 3 s.

Prefect looks for its settings in the environment, ``.env``, ``prefect.toml``, ``pyproject.toml``
and the active profile, in this order; a test holds what is found here to what Prefect itself finds.
"""

import json
import ssl
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from cir_core.errors import PreflightError

URL = "PREFECT_API_URL"

ANSWER_SECONDS = 5.0
"""For the smallest request there is, which a server answers in milliseconds."""

POLL_SECONDS = 0.5

REFUSALS = {401, 403}
SERVER_ERROR = 500


@dataclass(frozen=True)
class Api:
    """Where Prefect's API is said to be, and what says so."""

    url: str
    origin: str

    @property
    def shown(self) -> str:
        """The URL without the password or token that it may carry."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def __str__(self) -> str:
        return f"{self.shown} ({self.origin})"


@dataclass(frozen=True)
class Configuration:
    """What Prefect is told from outside, by environment variables and in this folder."""

    environment: Mapping[str, str]
    folder: Path = Path()

    def api(self) -> Api | None:
        """The configured API; None where there is none, and Prefect would start its own."""
        value, origin = self._look_up(URL, "api", "url")
        if value is None:
            value, origin = self._in_profile(URL)
        return Api(value, origin) if value else None

    def home(self) -> Path | None:
        """Where Prefect keeps its files, if that is configured."""
        value, _ = self._look_up("PREFECT_HOME", "home")
        return Path(value).expanduser() if value else None

    def profiles(self) -> Path:
        """The file of profiles, whether it is there or not."""
        value, _ = self._look_up("PREFECT_PROFILES_PATH", "profiles_path")
        if value:
            return Path(value)
        return Path(self.environment.get("PREFECT_HOME") or default_home()) / "profiles.toml"

    def _look_up(self, variable: str, *keys: str) -> tuple[str | None, str]:
        """Value and origin by the first that sets it, also if to nothing."""
        for origin, values, path in self._sources(variable, keys):
            value = _follow(values, path)
            if value is not None:
                return str(value), origin
        return None, ""

    def _sources(
        self, variable: str, keys: tuple[str, ...]
    ) -> Iterator[tuple[str, Mapping[str, Any], tuple[str, ...]]]:
        yield f"environment variable {variable}", self.environment, (variable,)
        yield ".env", _read_dotenv(self.folder / ".env"), (variable,)
        yield "prefect.toml", _read_toml(self.folder / "prefect.toml"), keys
        pyproject = _read_toml(self.folder / "pyproject.toml")
        yield "pyproject.toml", pyproject, ("tool", "prefect", *keys)

    def _in_profile(self, variable: str) -> tuple[str | None, str]:
        content = _read_toml(self.profiles())
        name = str(self.environment.get("PREFECT_PROFILE") or content.get("active"))
        value = _follow(content, ("profiles", name, variable))
        return (None if value is None else str(value)), f"Prefect's profile {name}"


def default_home() -> Path:
    """Where Prefect keeps its files unless it is told otherwise."""
    return Path("~/.prefect").expanduser()


def require_answer(api: Api) -> None:
    """Raises PreflightError when Prefect's API does not answer there."""
    fault = fault_of(api.url)
    if fault:
        raise PreflightError(
            "Prefect's API does not answer",
            item=str(api),
            cause=fault,
            remedy="start a server (`prefect server start`) or wait for it; or go on without: "
            f"--engine in-process, or take {URL} out of there",
        )


def fault_of(url: str, seconds: float = ANSWER_SECONDS) -> str:
    """Why this is no address of a Prefect API that works; empty when it is one.

    Who may use it, and whether its certificate is trusted, is left to Prefect.
    """
    try:
        with urlopen(f"{url.rstrip('/')}/health", timeout=seconds) as answer:
            content = answer.read(1000)
    except HTTPError as error:
        return _status_fault(error, url)
    except URLError as error:
        is_trust = isinstance(error.reason, ssl.SSLError)
        return "" if is_trust else str(getattr(error.reason, "strerror", "") or error.reason)
    except (OSError, HTTPException, ValueError) as error:
        return str(error)
    if _is_cloud(url) or content.strip() == json.dumps(True).encode():
        return ""
    return "something else answers there: a Prefect API's address usually ends in /api"


def wait_for_answer(url: str, seconds: float) -> str:
    """Until a Prefect API answers: nothing; or why it did not within these seconds."""
    limit = time.monotonic() + seconds
    while fault := fault_of(url, min(ANSWER_SECONDS, max(limit - time.monotonic(), 0.1))):
        if time.monotonic() + POLL_SECONDS > limit:
            break
        time.sleep(POLL_SECONDS)
    return fault


def _status_fault(error: HTTPError, url: str) -> str:
    """Prefect Cloud is not asked for its health but by those who signed in."""
    if error.code in REFUSALS or (_is_cloud(url) and error.code < SERVER_ERROR):
        return ""
    return f"it answers with HTTP {error.code} {error.reason}"


def _is_cloud(url: str) -> bool:
    return "/workspaces/" in url


def _follow(values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = values
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _read_dotenv(path: Path) -> Mapping[str, Any]:
    """Nothing where there is no such file or no text in it: Prefect itself would complain."""
    if not path.is_file():
        return {}
    from dotenv import dotenv_values  # Prefect's own reader of this file

    try:
        return dotenv_values(path)
    except (OSError, UnicodeDecodeError):
        return {}


def _read_toml(path: Path) -> dict[str, Any]:
    """Nothing where there is no such file or no TOML in it, of which Prefect itself complains."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}
