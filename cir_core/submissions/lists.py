"""The rules that CIRR's and CIRCO's servers share: which queries, and what a list may hold."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cir_core.submissions.faults import Faults, shown

_OF_OTHER_TYPE: dict[type, str] = {str: "not_a_string", int: "not_an_integer"}


@dataclass(frozen=True)
class ListRule:
    """``length`` distinct answers, all of one JSON type."""

    length: int
    kind: type[str] | type[int]


@dataclass(frozen=True)
class Answers:
    """What may answer one query. ``reference`` is None where it may too; ``subset`` is None where
    the whole gallery may."""

    gallery: frozenset[str]
    reference: str | None = None
    subset: frozenset[str] | None = None

    def objection(self, answer: str) -> str | None:
        """The kind of fault that this answer is, or None."""
        if answer == self.reference:
            return "reference"
        if answer not in self.gallery:
            return "not_in_gallery"
        return "not_in_subset" if self.subset is not None and answer not in self.subset else None


def check_queries(found: Iterable[str], expected: Iterable[str], faults: Faults) -> None:
    """Every expected query, and no other."""
    present, wanted = dict.fromkeys(found), dict.fromkeys(expected)
    for query in wanted:
        if query not in present:
            faults.add("missing_query", shown(query))
    for query in present:
        if query not in wanted:
            faults.add("unknown_query", shown(query))


def check_lists(
    lists: Mapping[str, object],
    rule: ListRule,
    allowed: Mapping[str, Answers],
    faults: Faults,
) -> None:
    """Each list by its form and, for the queries that ``allowed`` names, by its answers."""
    for query, answers in lists.items():
        if isinstance(answers, list):
            _check_list(query, answers, rule, allowed.get(query), faults)
        else:
            faults.add("not_a_list", f"{shown(query)}: {shown(answers)}")


def _check_list(
    query: str, answers: list[object], rule: ListRule, allowed: Answers | None, faults: Faults
) -> None:
    where = shown(query)
    if len(answers) != rule.length:
        faults.add("wrong_length", f"{where}: {len(answers)} instead of {rule.length}")
    usable = Counter(answer for answer in answers if type(answer) is rule.kind)  # True is no 1 here
    for answer in answers:
        if type(answer) is not rule.kind:
            faults.add(_OF_OTHER_TYPE[rule.kind], f"{where}: {shown(answer)}")
    for answer, times in usable.items():
        if times > 1:
            faults.add("duplicate", f"{where}: {shown(answer)} {times} times")
        objection = allowed.objection(str(answer)) if allowed else None
        if objection:
            faults.add(objection, f"{where}: {shown(answer)}")
