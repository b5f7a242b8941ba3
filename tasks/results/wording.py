"""How results are told in a sentence, or a cell of a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from cir_core.conformal import NO_GUARANTEE
from cir_core.datasets.registry import DATASETS
from cir_core.metrics.significance import Interval
from cir_core.protocols import PROTOCOLS

SHA256_DIGITS = 16
"""By which a hash is told."""

UNLABELLED = "The queries have no labels: there is nothing to measure."

NOT_ANALYSED = (
    "This run's queries were asked nothing beside it: `cir-pipeline analyse`, with the options of "
    "the run, does that."
)
"""What lacks for an analysis that needs the models."""


COPIED = {"rerank": "pairs", "fuse": "queries"}
"""What a stage counts that takes over anything from earlier runs, where it is not images."""


def percent(fraction: float) -> str:
    """Of 0.1234: 12.3 %."""
    return f"{100 * fraction:.1f} %"


def part(count: int, of: int) -> str:
    """Of 1 and 8: "1 (12.5 %)"."""
    return f"{count:,} ({percent(count / of)})"


def signed(value: float, digits: int = 2) -> str:
    """With its sign and so many decimals; what rounds to nothing is no loss."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def points(interval: Interval) -> str:
    """A difference of fractions, in percentage points, and where it lies."""
    value, low, high = (signed(100 * one, 1) for one in interval)
    return f"{value} points [{low}, {high}]"


def with_interval(value: float, low: float, high: float) -> str:
    """A difference of fractions, in points, for a table: "+1.39 [+0.54, +2.31]"."""
    return f"{signed(100 * value)} [{signed(100 * low)}, {signed(100 * high)}]"


def counted(number: int, one: str, many: str = "") -> str:
    """Of 1 and 2 queries: "1 query" and "2 queries"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def without_target(queries: int, of: int, place: str = "first") -> str:
    """How many have it elsewhere: the beginning of a sentence."""
    have = "does not have its" if queries == 1 else "do not have their"
    return f"Of {counted(of, 'query', 'queries')}, {part(queries, of)} {have} target {place}"


def unusable(problems: int) -> str:
    """Of a run's problems, at least one."""
    return f"{counted(problems, 'image or query', 'images or queries')} could not be used"


def copied_words(costs: Sequence[Mapping[str, Any]]) -> str | None:
    """Of a run's rows of ``costs``: what was not computed for it, and so is in none of its costs;
    nothing where all was."""
    told = [
        f"{row['copied']:,} {unit} of {row['stage']} (beside {row[unit] or 0:,} computed)"
        for row in costs
        if row["copied"]
        for unit in [COPIED.get(row["stage"], "images")]
    ]
    if not told:
        return None
    return f"Taken from earlier runs, and what they cost is told there: {', '.join(told)}."


def gallery_told(row: Mapping[str, Any]) -> str:
    """Of a row of ``galleries``: how large it is, and the first digits of its hash."""
    short = f", SHORT of {row['missing']:,}" if row["missing"] else ""
    return f"{counted(row['images'], 'image')}{short}, sha256 {row['sha256'][:SHA256_DIGITS]}"


def short_gallery(run: Mapping[str, Any]) -> str:
    """Of one that misses some of its images."""
    missing = run["gallery_missing"]
    members = counted(run["gallery_images"] + missing, "image")
    return f"The gallery is short: {missing:,} of {members} could not be used"


def candidates_of(run: Mapping[str, Any]) -> str:
    """How many a query has: "K = 50 candidates", fewer in a smaller gallery; or, where K is
    adaptive, "up to 31 candidates"."""
    most = "K = " if run["coverage_asked"] is None else "up to "
    return f"{most}{counted(run['k'], 'candidate')}"


def more_candidates(run: Mapping[str, Any]) -> str:
    """What gives its queries more of them."""
    if run["coverage_asked"] is not None:
        return "a higher `--coverage`"
    if run["first_stage"] == "candidates":
        return "a file with more candidates"
    return "a larger K (`-k`)"


def late_fusion(run: Mapping[str, Any]) -> str:
    """The option that adds stage 1's score to stage 2's: fitted, where the run's data have queries
    of their own to fit on and its own first stage asks them; else with a weight."""
    about = DATASETS[PROTOCOLS[run["protocol"]].dataset].about
    if run["first_stage"] == "stage1" and "train" in about.counts:
        return "`--late-fusion fit`"
    return "`--late-fusion` with a weight, which is fitted on other queries than these"


def is_reranked(run: Mapping[str, Any]) -> bool:
    """Whether a row of ``runs`` is of both stages."""
    return run["stage2_sha256"] is not None


def has_no_guarantee(run: Mapping[str, Any]) -> bool:
    """Of an adaptive K that another run calibrates, which was asked otherwise."""
    return (run["k_guarantee"] or "").startswith(NO_GUARANTEE)


def adaptive_words(run: Mapping[str, Any]) -> str:
    """How K is chosen where it is adaptive, in brackets; else nothing."""
    if run["coverage_asked"] is None:
        return ""
    by = run["k_calibrated_by"]
    words = ["adaptive K", f"coverage {run['coverage_asked']:g} asked"]
    words += [] if by is None else [f"calibrated by run {by}"]
    words += [NO_GUARANTEE] if has_no_guarantee(run) else []
    return f" ({', '.join(words)})"


def sentences(*told: str) -> str:
    """Those that say something, as a paragraph."""
    return " ".join(one for one in told if one)


def of_run(run: Mapping[str, Any], table: str = "") -> str:
    """The condition of SQL on one run's rows."""
    return f"{table}run_id = '{run['run_id']}'"
