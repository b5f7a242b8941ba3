"""What of a machine is used where nobody says, and what is said of it."""

import logging
from typing import Any

import pytest

from cir_core.errors import UsageError
from cir_core.types import Precisions
from flows.machine import find_devices, find_workers, warn_if_slow
from flows.settings import Settings


@pytest.mark.parametrize(
    ("device", "cores", "workers"),
    [
        ("cpu", 1, 1), ("cpu", 2, 1), ("cpu", 15, 1), ("cpu", 16, 2), ("cpu", 64, 8),
        ("cuda", 1, 1), ("cuda:1", 2, 1), ("cuda", 16, 15), ("cuda", 64, 16),
    ],
)  # fmt: skip
def test_workers_follow_from_device_and_cores(
    monkeypatch: pytest.MonkeyPatch, device: str, cores: int, workers: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(cores))
    assert find_workers(None, device) == workers


def test_devices_are_named_by_number_and_are_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.machine.find_device", lambda name: name)
    assert find_devices(Settings()) == ()
    assert find_devices(Settings(devices="0, cuda:2")) == ("cuda:0", "cuda:2")
    assert find_devices(Settings(devices="cpu,cpu", processes=2)) == ("cpu", "cpu")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"devices": "0,0"}, "cannot share"),
        ({"devices": "cpu,0"}, "cannot share"),
        ({"devices": "cuda,cuda:1"}, "cannot share"),
        ({"devices": "cpu,"}, "cannot"),
        ({"devices": "cpu,cpu", "processes": 3}, "is 2 processes"),
        ({"devices": "cpu,cpu", "device": "cpu"}, "is 2 processes"),
    ],
)
def test_devices_that_cannot_share_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        find_devices(Settings(**settings))


@pytest.mark.parametrize("wanted", [0, 1, 40])
def test_a_number_that_is_given_is_taken(wanted: int) -> None:
    assert find_workers(wanted, "cpu") == wanted


@pytest.mark.parametrize(
    ("taken", "precisions", "device", "warned"),
    [
        (45.0, Precisions(encoder="bf16"), "cpu", True),
        (0.25, Precisions(encoder="bf16"), "cpu", False),
        (45.0, Precisions(stage2="bf16"), "cuda", False),
        (45.0, Precisions(), "cpu", False),
    ],
)
def test_a_processor_that_is_slow_in_bf16_is_told_of(
    taken: float,
    precisions: Precisions,
    device: str,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("flows.machine.bf16_time", lambda: taken)
    with caplog.at_level(logging.WARNING):
        warn_if_slow(precisions, device)
    assert ("45.0 times as long" in caplog.text) == warned
