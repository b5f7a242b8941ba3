"""Which Prefect API is meant, and whether it is there, held to what Prefect itself reads."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cir_core.errors import PreflightError
from flows.doctor import check_prefect
from flows.doors.cli.config import config_show
from flows.engines import choice as engines
from flows.engines.choice import find_home, prepare_prefect, wants_prefect
from flows.engines.prefect_api import Api, Configuration, fault_of, wait_for_answer
from flows.settings import Settings
from storage.store import LocalStore

PROFILES = """
active = "work"
[profiles.work]
PREFECT_API_URL = "http://work/api"
[profiles.other]
PREFECT_API_URL = "http://other/api"
[profiles.quiet]
PREFECT_LOGGING_LEVEL = "ERROR"
"""
TOML = '[api]\nurl = "http://toml/api"\n'
PYPROJECT = '[tool.prefect.api]\nurl = "http://pyproject/api"\n'
DOTENV = 'PREFECT_API_URL="http://dotenv/api"\n'


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of Prefect around, and none left behind."""
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH", *DEFAULTS):
        monkeypatch.setenv(name, "")  # to be restored, whatever the test does
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")


DEFAULTS = engines.PREFECT_DEFAULTS


@pytest.mark.parametrize(
    ("environment", "files", "expected"),
    [
        ({}, {}, None),
        ({}, {"../home/profiles.toml": PROFILES}, "http://work/api (Prefect's profile work)"),
        (
            {"PREFECT_PROFILE": "other"},
            {"../home/profiles.toml": PROFILES},
            "http://other/api (Prefect's profile other)",
        ),
        ({"PREFECT_PROFILE": "quiet"}, {"../home/profiles.toml": PROFILES}, None),
        ({"PREFECT_PROFILE": "absent"}, {"../home/profiles.toml": PROFILES}, None),
        (
            {"PREFECT_PROFILES_PATH": "../mine.toml"},
            {"../mine.toml": PROFILES.replace("work/", "mine/")},
            "http://mine/api (Prefect's profile work)",
        ),
        (
            {},
            {"prefect.toml": 'profiles_path = "../mine.toml"\n', "../mine.toml": PROFILES},
            "http://work/api (Prefect's profile work)",
        ),
        (
            {},
            {"pyproject.toml": PYPROJECT, "../home/profiles.toml": PROFILES},
            "http://pyproject/api (pyproject.toml)",
        ),
        ({}, {"prefect.toml": TOML, "pyproject.toml": PYPROJECT}, "http://toml/api (prefect.toml)"),
        ({}, {".env": DOTENV, "prefect.toml": TOML}, "http://dotenv/api (.env)"),
        (
            {"PREFECT_API_URL": "http://variable/api"},
            {".env": DOTENV, "../home/profiles.toml": PROFILES},
            "http://variable/api (environment variable PREFECT_API_URL)",
        ),
        ({"PREFECT_API_URL": ""}, {"../home/profiles.toml": PROFILES}, None),
    ],
)
def test_the_api_is_the_one_that_prefect_takes(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    files: dict[str, str],
    expected: str | None,
) -> None:
    for name, text in files.items():
        Path(name).write_text(text)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    from prefect.settings.models.root import Settings as PrefectSettings

    found = engines.configured_api()
    assert (None if found is None else str(found)) == expected
    assert (found.url if found else None) == (PrefectSettings().api.url or None)
    assert wants_prefect("auto") == (found is not None)
    assert wants_prefect("prefect")
    assert not wants_prefect("in-process")


def test_a_file_of_prefects_that_is_no_text_is_no_api() -> None:
    Path(".env").write_bytes(b"NAME=caf\xe9\n")
    assert engines.configured_api() is None


def test_a_broken_profile_is_no_api() -> None:
    Path("../home/profiles.toml").write_text("active = ")
    assert engines.configured_api() is None


def test_secrets_of_a_url_are_not_told() -> None:
    api = Api("https://me:hush@prefect.example:4200/api?token=hush", "here")
    assert str(api) == "https://prefect.example:4200/api (here)"


# --- does it answer


@contextmanager
def answering(status: int, content: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content if self.path == "/api/health" else b"<html>")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - theirs
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port: int = bound.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("status", "content", "path", "fault"),
    [
        (200, b"true", "/api", ""),
        (200, b"true", "/api/", ""),
        (200, b"true", "", "usually ends in /api"),  # the page of Prefect itself
        (401, b"", "/api", ""),
        (403, b"", "/api", ""),
        (404, b"", "/api", "HTTP 404"),
        (503, b"", "/api", "HTTP 503"),
        (404, b"", "/api/accounts/1/workspaces/2", ""),  # Prefect Cloud
        (200, b"", "/api/accounts/1/workspaces/2", ""),
        (503, b"", "/api/accounts/1/workspaces/2", "HTTP 503"),
    ],
)
def test_an_api_is_known_by_its_answer(status: int, content: bytes, path: str, fault: str) -> None:
    with answering(status, content) as url:
        told = fault_of(url + path)
    assert bool(told) == bool(fault)
    assert fault in told


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://127.0.0.1:{port}/api", "refused"),
        ("http://no-such-host.invalid/api", "ame"),  # Name or service not known
        ("127.0.0.1:{port}/api", "unknown url type"),
        ("http://127.0.0.1:many/api", "nonnumeric port"),
        ("nonsense", "unknown url type"),
    ],
)
def test_where_nobody_is_the_reason_is_told(url: str, fault: str) -> None:
    assert fault in fault_of(url.format(port=closed_port()))


def test_one_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        began = time.monotonic()
        assert fault_of(f"http://127.0.0.1:{bound.getsockname()[1]}/api", 0.2) == "timed out"
    assert time.monotonic() - began < 2


def test_one_that_comes_back_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = iter(["refused", "refused", ""])
    monkeypatch.setattr("flows.engines.prefect_api.fault_of", lambda _url, _seconds: next(faults))
    monkeypatch.setattr("flows.engines.prefect_api.POLL_SECONDS", 0.01)
    assert wait_for_answer("http://x/api", 1) == ""
    monkeypatch.setattr("flows.engines.prefect_api.fault_of", lambda _url, _seconds: "refused")
    assert wait_for_answer("http://x/api", 0.05) == "refused"


# --- what a run prepares


def test_an_api_that_does_not_answer_stops_the_run_before_prefect_is_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{closed_port()}/api")
    with pytest.raises(PreflightError) as caught:
        prepare_prefect(LocalStore(tmp_path / "store"))
    told = str(caught.value).splitlines()
    assert len(told) == 4
    assert "(environment variable PREFECT_API_URL)" in told[1]
    assert "refused" in told[2]
    assert all(word in told[3] for word in ("prefect server start", "in-process"))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("wanted", [None, "true"])
def test_telemetry_is_off_unless_it_is_wanted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: str | None
) -> None:
    if wanted:
        monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", wanted)
    with answering(200, b"true") as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        prepare_prefect(LocalStore(tmp_path / "store"))
    assert os.environ["DO_NOT_TRACK"] == "1"
    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == (wanted or "false")


WITH_API = {"PREFECT_API_URL": "http://x/api"}


@pytest.mark.parametrize(
    ("environment", "user_home", "expected"),
    [
        (WITH_API, "user", "user/.prefect"),
        (WITH_API, "user/file", "store/prefect"),  # of a user that has no home
        ({}, "user", "store/prefect"),
        ({}, "user/file", "store/prefect"),
        ({"PREFECT_HOME": "mine"}, "user", "mine"),
        (WITH_API | {"PREFECT_HOME": "mine"}, "user", "mine"),
    ],
)
def test_prefects_files_go_where_they_can_be_written(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], user_home: str, expected: str
) -> None:
    Path("user").mkdir()
    Path("user/file").touch()
    monkeypatch.setenv("HOME", str(Path(user_home).absolute()))
    home = find_home(Configuration(environment), LocalStore(Path("store")))
    assert home.absolute() == Path(expected).absolute()


def test_a_home_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Path("file").touch()
    monkeypatch.setenv("PREFECT_HOME", "file/home")
    with pytest.raises(PreflightError, match=r"(?s)cannot be written.*file/home.*PREFECT_HOME"):
        prepare_prefect(LocalStore(tmp_path / "store"))


# --- what is told of it


def test_the_doctor_tells_the_api_and_where_prefects_files_go(tmp_path: Path) -> None:
    store = tmp_path / "store"
    nobody = Configuration({"PREFECT_API_URL": f"http://127.0.0.1:{closed_port()}/api"})
    api, home = check_prefect(Settings(store=store), nobody)
    assert api.state == "blocked"
    assert "refused" in str(api.found)
    assert "prefect server start" in api.remedy
    assert check_prefect(Settings(store=store, engine="in-process"), nobody)[0].state == "note"
    with answering(200, b"true") as url:
        api, home = check_prefect(
            Settings(store=store), Configuration({"PREFECT_API_URL": f"{url}/api"})
        )
    assert (api.state, home.state) == ("ok", "ok")
    api, home = check_prefect(Settings(store=store), Configuration({"PREFECT_PROFILES_PATH": "x"}))
    assert (api.state, home.found) == ("ok", f"{store / 'prefect'}: writable")
    (tmp_path / "file").touch()
    unwritable = Configuration({"PREFECT_HOME": str(tmp_path / "file"), "PREFECT_API_URL": ""})
    assert check_prefect(Settings(store=store), unwritable)[1].state == "problem"


def test_config_show_tells_the_api_and_its_origin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("../home/profiles.toml").write_text(PROFILES)
    config_show(as_json=True)
    told = json.loads(capsys.readouterr().out)["prefect_api"]
    assert told == {"value": "http://work/api", "from": "Prefect's profile work"}
    monkeypatch.setenv("PREFECT_API_URL", "")
    config_show(as_json=True)
    assert json.loads(capsys.readouterr().out)["prefect_api"]["value"] is None
