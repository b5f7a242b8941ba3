"""Answers to the same queries, compared: means over seeds, and pairs of queries."""

import numpy as np
import pytest

from cir_core.metrics.comparison import Answers, recall_gain, recall_interval, recall_spread
from cir_core.metrics.recall import TargetRanks, recall_metrics
from tasks.results.markup.latex import as_latex

CATEGORY = ["dress", "shirt", "dress", "shirt", "dress", "shirt", "shirt"]
FIRST, SECOND = np.array([1, 2, 1, 9, 3, 1, 1]), np.array([1, 1, 1, 1, 2, 4, 1])


@pytest.mark.parametrize("k", [1, 2, 10])
def test_of_one_run_each_they_are_a_reports(k: int) -> None:
    reported = {
        (row.stage, row.category): (row.value, row.ci_low, row.ci_high)
        for row in recall_metrics(TargetRanks(CATEGORY, FIRST, SECOND), ks=[k], pool="gallery")
    }
    before, after = Answers(CATEGORY, [FIRST]), Answers(CATEGORY, [SECOND])
    assert recall_interval(before, k) == reported["stage1", "average"]
    assert recall_interval(after, k) == reported["stage2", "average"]
    assert recall_gain(before, after, k) == reported["gain", "average"]
    assert recall_spread(after, k) is None


def test_several_runs_count_as_their_mean_and_tell_their_spread() -> None:
    several, once = Answers(CATEGORY, [FIRST, SECOND]), Answers(CATEGORY, [FIRST])
    one, other = (recall_interval(Answers(CATEGORY, [ranks]), 1).value for ranks in (FIRST, SECOND))
    assert recall_interval(several, 1).value == pytest.approx((one + other) / 2)
    assert recall_spread(several, 1) == pytest.approx(abs(one - other) / np.sqrt(2))
    gain = recall_gain(once, several, 1)
    assert gain.value == pytest.approx((other - one) / 2)
    full = recall_gain(once, Answers(CATEGORY, [SECOND]), 1)
    assert gain.high - gain.low < full.high - full.low  # seeds that disagree are drawn together


def test_other_queries_do_not_compare() -> None:
    with pytest.raises(ValueError, match="other queries"):
        recall_gain(Answers(CATEGORY, [FIRST]), Answers(CATEGORY[::-1], [FIRST]), 1)


def test_latex_is_text() -> None:
    assert as_latex(r'50 % of a_b & {c}: \x ~ #1 ^ $5 -- "q"') == (
        r"50 \% of a\_b \& \{c\}: \textbackslash{}x \textasciitilde{} \#1 \textasciicircum{} \$5 "
        r"{-}{-} \textquotedbl{}q\textquotedbl{}"
    )
    assert as_latex("a\nb\x1b[2J") == r"a\textbackslash{}nb\textbackslash{}x1b{[}2J"
