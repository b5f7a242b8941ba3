"""What an analysis says on the terminal: its figures in small."""

from typing import Any

from flows.views.analyses import figure_lines
from tasks.results.analyses.analysis import Figure


def figure(kind: Any, rows: list[dict[str, Any]], *, is_percent: bool = False) -> Figure:
    return Figure(kind, "K", "recall", rows, "SELECT 1", "a line", is_percent=is_percent)


def test_each_series_of_a_line_is_a_row_of_bars() -> None:
    heights = {"stage 1": (0.25, 0.5, 0.75), "stage 2": (0.5, 0.5, 0.5)}
    rows = [
        {"x": k + 1, "y": y, "series": name}
        for name, ys in heights.items()
        for k, y in enumerate(ys)
    ]
    assert figure_lines(figure("line", rows, is_percent=True), "utf-8") == [
        "recall by K, 1 to 3",
        "  stage 1 25.00 ▁▅█ 75.00",
        "  stage 2 50.00 ▄▄▄ 50.00",
    ]
    assert figure_lines(figure("line", rows), "ascii")[1] == "  stage 1 0.2500 .+@ 0.7500"


def test_a_histogram_stands_on_nothing() -> None:
    rows = [{"x": at, "x2": at + 1, "y": y} for at, y in enumerate((4, 8, 0))]
    assert figure_lines(figure("histogram", rows), "utf-8") == [
        "recall by K, 0 to 3",
        "  recall 4 ▅█▁ 0",
    ]


def test_what_has_no_course_is_not_drawn() -> None:
    rows = [{"x": at, "y": 0.5} for at in range(3)]
    for kind in ("scatter", "bars"):
        assert figure_lines(figure(kind, rows), "utf-8") == []
    assert figure_lines(figure("line", []), "utf-8") == []
    assert figure_lines(figure("line", rows[:2]), "utf-8") == []
    assert figure_lines(figure("line", [*rows[:2], {"x": 2, "y": None}]), "utf-8") == []
    other = [{"x": 0, "y": 0.5, "series": "with gaps"}]
    assert figure_lines(figure("histogram", [*rows, *other]), "utf-8") == []
