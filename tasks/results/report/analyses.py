"""Section ``analyses``: every analysis of the run."""

from collections.abc import Mapping, Sequence

from tasks.results.analyses.analysis import Analysis
from tasks.results.analyses.every import ANALYSES
from tasks.results.report.source import Source

TITLES: Mapping[str, str] = {
    "failure_split": "Failures",
    "movement": "Movement",
    "k_curve": "Choice of K",
    "separation": "Negatives",
    "z_t": "z_t",
    "halves": "Halves",
    "slices": "Kinds of query",
    "signatures": "Causes",
    "ties": "Ties",
}
"""What an analysis is called among the page's contents, by its name."""


def analyses(source: Source) -> Sequence[Analysis]:
    return [analysis(source.catalog, source.run) for analysis in ANALYSES]
