"""A store that another run holds: waited for as long as was said, and no longer."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cir_core.errors import StoreBusy
from flows import leasing
from flows.leasing import as_wait, leased, seconds_of
from storage.store import LocalStore


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30min", 1800), ("2h", 7200), ("1.5 h", 5400), ("1d", 86400), ("0s", 0),
     ("forever", math.inf)],
)  # fmt: skip
def test_a_time_has_a_unit(text: str, seconds: float) -> None:
    assert (as_wait(text), seconds_of(text)) == (text, seconds)


@pytest.mark.parametrize("text", ["", "2", "h", "-2h", "2 hours", "1e3s", "for ever"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="30min"):
        as_wait(text)


class Held(LocalStore):
    """Held for so many tries by one process, then by another, then free."""

    holders: Iterator[str]

    @contextmanager
    def lease(self) -> Iterator[None]:
        holder = next(self.holders, None)
        if holder is not None:
            raise StoreBusy("held", item=str(self), cause=f"by {holder}", remedy="wait")
        yield


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made; time passes by them alone."""
    pauses: list[float] = []
    monkeypatch.setattr("flows.leasing.time.monotonic", lambda: sum(pauses))
    monkeypatch.setattr("flows.leasing.time.sleep", pauses.append)
    return pauses


def held(root: Path, *holders: str) -> Held:
    store = Held(root)
    object.__setattr__(store, "holders", iter(holders))
    return store


def test_without_a_time_nobody_is_waited_for(tmp_path: Path, clock: list[float]) -> None:
    with pytest.raises(StoreBusy, match="by 7"), leased(held(tmp_path, "7")):
        pass
    assert clock == []


@pytest.mark.parametrize("wait", ["5s", "forever"])
def test_a_busy_store_is_waited_for_and_each_holder_told_once(
    tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture, wait: str
) -> None:
    caplog.set_level(logging.INFO)
    with leased(held(tmp_path, "7", "7", "8"), wait):
        assert clock == [leasing.POLL_SECONDS] * 3
    told = [record.getMessage() for record in caplog.records]
    assert [line.partition("(")[0] for line in told] == [
        "waiting for the store: by 7 ", "waiting for the store: by 8 ",
    ]  # fmt: skip


def test_the_wait_ends(tmp_path: Path, clock: list[float]) -> None:
    with pytest.raises(StoreBusy, match=r"by 7, still after 1\.2 s") as caught:
        leased(held(tmp_path, *["7"] * 9), "1.2 s").__enter__()
    assert sum(clock) == pytest.approx(1.2)
    assert caught.value.exit_code == 5


def test_what_fails_inside_is_not_taken_for_a_busy_store(
    tmp_path: Path, clock: list[float]
) -> None:
    with pytest.raises(StoreBusy, match="inner"), leased(LocalStore(tmp_path), "forever"):
        raise StoreBusy("inner")
    assert clock == []
