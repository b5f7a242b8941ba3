"""Section ``verdict``: what the run says, in words, before any table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cir_core.metrics.significance import Interval
from tasks.results.analyses.failure_split import CANNOT, FOUND, LOST, ORDERED_WRONG, outcomes_sql
from tasks.results.report.headline import Headline, headline
from tasks.results.report.source import Source
from tasks.results.wording import (
    UNLABELLED,
    candidates_of,
    counted,
    short_gallery,
    signed,
    unusable,
    without_target,
)

Tone = Literal["", "good", "bad"]
Sentence = tuple[str, Tone]

LEAST_ROOM = 5e-5
"""Of fractions: what is told as 0.00 points is nothing."""


@dataclass(frozen=True)
class Tile:
    """A number to be seen from afar, what it is, and what belongs to it."""

    label: str
    value: str
    beside: str = ""
    tone: Tone = ""
    unit: str = "%"


@dataclass(frozen=True)
class Verdict:
    """Sentences in the order of their weight, each with its tone; tiles; and the SQL of both."""

    sentences: Sequence[Sentence]
    tiles: Sequence[Tile] = ()
    sql: str = ""


def verdict(source: Source) -> Verdict:
    """Problems come first, since they put the rest in doubt."""
    troubles, best = _troubles(source.run), headline(source)
    if best is None:
        return Verdict([*troubles, (_unlabelled(source), "")])
    sql = outcomes_sql(source.run, [best.depth])
    outcomes = {row["series"]: row["n"] for row in source.rows(sql)}
    sentences = [_gain(best), _reach(best), _failures(best.depth, outcomes)]
    return Verdict(
        sentences=[*troubles, *(one for one in sentences if one[0])],
        tiles=_tiles(best, outcomes, candidates_of(source.run)),
        sql=f"{best.sql};\n\n{sql}",
    )


def _unlabelled(source: Source) -> str:
    run = source.run
    asked = f"{counted(run['queries'], 'query', 'queries')}, {counted(run['images'], 'image')}"
    ranked = "re-ranked" if source.is_reranked else "nothing was re-ranked"
    return f"{UNLABELLED} {asked}, {candidates_of(run)} a query; {ranked}."


def _troubles(run: Mapping[str, Any]) -> list[Sentence]:
    told: list[Sentence] = []
    if run["problems"]:
        told.append((f"{unusable(run['problems'])}.", "bad"))
    if run["gallery_missing"]:
        short = f"{short_gallery(run)}, so these numbers do not compare with others."
        told.append((short, "bad"))
    return told


def _gain(best: Headline) -> Sentence:
    before, name = best.stage1, best.name
    if best.stage2 is None or best.gain is None:
        told = (
            f"Stage 1 alone, nothing was re-ranked: {name} is {_percent(before.value)} %, 95 % "
            f"interval [{_percent(before.low)}, {_percent(before.high)}]."
        )
        return told, ""
    tone = _tone(best.gain)
    verb = {"good": "raises", "bad": "lowers", "": "does not measurably change"}[tone]
    told = (
        f"Re-ranking {verb} {name}: {_percent(before.value)} % before, "
        f"{_percent(best.stage2.value)} % after; {_points(best.gain.value)} points, 95 % interval "
        f"{_between(best.gain)}, which {'excludes' if tone else 'includes'} zero."
    )
    return told, tone


def _reach(best: Headline) -> Sentence:
    """What the candidates allow, and how much of the way there re-ranking goes."""
    if best.ceiling is None:
        return "", ""
    first = best.stage1.value
    room = best.ceiling - first
    limit = f"No order of the candidates can reach more than {_percent(best.ceiling)} %"
    if room < LEAST_ROOM:
        return f"{limit}, which stage 1 already has: there is nothing to gain.", ""
    if best.stage2 is None:
        return f"{limit}: re-ranking could gain {_percent(room)} points.", ""
    gained = best.stage2.value - first
    if gained <= 0:
        return f"{limit}: {_percent(room)} points above stage 1, of which none are gained.", ""
    told = (
        f"{limit}: of the {_percent(room)} points above stage 1, re-ranking gains "
        f"{_percent(gained)} ({100 * gained / room:.0f} %), and {_percent(room - gained)} are left."
    )
    return told, ""


def _failures(depth: int, outcomes: Mapping[str, int]) -> Sentence:
    n, place = sum(outcomes.values()), _place(depth)
    missed = n - outcomes.get(FOUND, 0)
    if not missed:
        return f"Of {counted(n, 'query', 'queries')}, each has its target {place}.", ""
    lost, wrong = outcomes.get(LOST, 0), outcomes.get(ORDERED_WRONG, 0)
    told = f"{without_target(missed, n, place)}: {lost:,} lost in stage 1, {wrong:,} ordered wrong"
    cannot = outcomes.get(CANNOT, 0)
    if cannot:
        told += f", and {cannot:,} that cannot be answered"
    return f"{told}.{_larger_part(lost, wrong, cannot)}", ""


def _larger_part(lost: int, wrong: int, cannot: int) -> str:
    """Whose it is; nothing where neither stage's part is the largest."""
    if lost > max(wrong, cannot):
        return " The larger part is stage 1's."
    if wrong > max(lost, cannot):
        return " The larger part is the order's, which stage 2 could mend."
    return ""


def _tiles(best: Headline, outcomes: Mapping[str, int], candidates: str) -> list[Tile]:
    name = best.name.removeprefix("the ")
    tiles = [Tile(f"{name}, stage 1", _percent(best.stage1.value))]
    if best.stage2 is not None and best.gain is not None:
        tone = _tone(best.gain)
        tiles += [
            Tile(f"{name}, re-ranked", _percent(best.stage2.value)),
            Tile("gain", _points(best.gain.value), _between(best.gain), tone, "points"),
        ]
    if best.ceiling is not None:
        tiles.append(Tile("most that K allows", _percent(best.ceiling), candidates))
    n = sum(outcomes.values())
    lost, wrong = (100 * outcomes.get(one, 0) / n for one in (LOST, ORDERED_WRONG))
    missed = 100 - 100 * outcomes.get(FOUND, 0) / n
    parts = f"{lost:.1f} lost, {wrong:.1f} ordered wrong"
    return [*tiles, Tile(f"not {_place(best.depth)}", f"{missed:.1f}", parts)]


def _tone(gain: Interval) -> Tone:
    """Of a gain whose interval excludes zero."""
    return "good" if gain.low > 0 else "bad" if gain.high < 0 else ""


def _place(depth: int) -> str:
    return "first" if depth == 1 else f"among the first {depth}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def _points(fraction: float) -> str:
    return signed(100 * fraction)


def _between(gain: Interval) -> str:
    return f"[{_points(gain.low)}, {_points(gain.high)}]"
