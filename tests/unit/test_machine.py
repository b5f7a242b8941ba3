"""How many processes decode images, where nobody says."""

import pytest

from flows.machine import find_workers


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


@pytest.mark.parametrize("wanted", [0, 1, 40])
def test_a_number_that_is_given_is_taken(wanted: int) -> None:
    assert find_workers(wanted, "cpu") == wanted
