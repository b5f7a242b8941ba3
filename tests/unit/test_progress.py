"""Lines of progress: what was done before is no speed."""

import logging

import pytest

from tasks import progress


def test_work_of_an_earlier_run_counts_as_done_but_not_as_speed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with progress.count("scoring", 1000, "pairs", done=900) as counter:
        assert isinstance(counter, progress.LogLines)
        counter.began -= 20
        counter.told -= 20
        counter.update(40)
    assert caplog.messages == ["scoring: 940 of 1000 pairs, 2.0/s, 30 s left"]
