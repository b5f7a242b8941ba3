"""What a validation's numbers warn of."""

import pytest

from tasks.training.scores import Score, Scores, gap_warnings


def scores(recall: float, gain: tuple[float, float, float] = (0.0, -0.1, 0.1)) -> Scores:
    metrics = {"recall@1": Score(recall, recall - 0.04, recall + 0.04, 500)}
    return Scores(metrics, {"recall@1": Score(*gain, 500)})


@pytest.mark.parametrize(
    ("found", "best", "accuracy", "warned"),
    [
        (scores(0.5), 0.5, 0.6, []),
        (scores(0.5), float("-inf"), None, []),
        (scores(0.5), 0.53, 0.6, []),  # within what 500 queries tell
        (scores(0.5), 0.55, 0.6, ["selection recall@1 has fallen from 55.0 to 50.0 %"]),
        (scores(0.5, (-0.03, -0.05, 0.01)), 0.5, 0.6, []),
        (scores(0.5, (-0.03, -0.05, -0.01)), 0.5, 0.6, ["re-ranking loses recall@1: -3.0 ["]),
        (scores(0.13), 0.13, 0.987, ["training accuracy is 98.7 % and selection recall@1 13.0"]),
    ],
)  # fmt: skip
def test_warnings(found: Scores, best: float, accuracy: float | None, warned: list[str]) -> None:
    told = gap_warnings(found, "recall@1", best=best, accuracy=accuracy, compares=True)
    assert len(told) == len(warned)
    assert all(one.startswith(start) for one, start in zip(told, warned, strict=True))


def test_accuracy_among_random_candidates_is_not_compared_with_recall() -> None:
    assert not gap_warnings(scores(0.13), "recall@1", best=0.13, accuracy=0.99, compares=False)
