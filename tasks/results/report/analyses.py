"""Section ``analyses``: every analysis of the run."""

from collections.abc import Sequence

from tasks.results.analyses.analysis import Analysis
from tasks.results.analyses.every import ANALYSES
from tasks.results.report.source import Source


def analyses(source: Source) -> Sequence[Analysis]:
    return [analysis(source.catalog, source.run) for analysis in ANALYSES]
