"""Small benchmarks, a tiny model pair, and one undisturbed run of each, made once a session.

The folders are shared: a test that changes one takes a copy. Everything heavy is imported by the
fixtures, so that tests which need none of it start at once.
"""

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

# Before torch is imported: tiny models gain nothing from threads, and on a busy machine threads
# that wait for each other make them ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Started in a shell's background, a process ignores Ctrl-C, and so do those that it starts; tests
# that interrupt some of them expect the usual.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.small_benchmarks import Bench, Finished, Pair


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fail-each",
        type=int,
        default=0,
        metavar="STEP",
        help="let each STEPth operation of a store fail in a run of its own (`make faults`: 1)",
    )


@pytest.fixture(scope="session", autouse=True)
def _no_loss_of_power() -> Iterator[None]:
    """Which no test could see, and for which every part that a run writes waits for the disk twice:
    a minute of the suite. Where files are made durable, it is asked with the real call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        yield


@pytest.fixture(scope="session")
def s3_environment() -> "Iterator[Mapping[str, str]]":
    from tests.support.buckets import s3_server

    with s3_server() as environment:
        yield environment


@pytest.fixture
def s3(
    s3_environment: "Mapping[str, str]", tmp_path: "Path", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment leads to a server of this machine, and to a cache of the test's own."""
    for name, value in {**s3_environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def published_pair(tmp_path_factory: pytest.TempPathFactory) -> "Pair":
    from tests.support.small_benchmarks import write_pair

    return write_pair(tmp_path_factory.mktemp("published"), published=True)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> "Pair":
    from tests.support.small_benchmarks import write_pair

    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="session")
def fiq(tmp_path_factory: pytest.TempPathFactory, pair: "Pair") -> "Bench":
    from tests.support.small_benchmarks import FIQ_CATEGORIES, Bench, write_fashion_iq

    root = tmp_path_factory.mktemp("fiq")
    write_fashion_iq(root)
    return Bench("fiq", root, pair, FIQ_CATEGORIES)


@pytest.fixture(scope="session")
def cirr(tmp_path_factory: pytest.TempPathFactory, pair: "Pair") -> "Bench":
    from tests.support.small_benchmarks import Bench, write_cirr

    root = tmp_path_factory.mktemp("cirr")
    write_cirr(root)
    return Bench("cirr", root, pair)


@pytest.fixture(scope="session")
def fiq_run(tmp_path_factory: pytest.TempPathFactory, fiq: "Bench") -> "Finished":
    return fiq.finish(tmp_path_factory.mktemp("stores") / "fiq")


@pytest.fixture(scope="session")
def cirr_run(tmp_path_factory: pytest.TempPathFactory, cirr: "Bench") -> "Finished":
    return cirr.finish(tmp_path_factory.mktemp("stores") / "cirr")
