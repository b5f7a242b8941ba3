"""CIRCO's submission file: ``{"0": [50 distinct COCO numbers, best first], "1": ...}``."""

from collections.abc import Mapping, Sequence

from cir_core.submissions.faults import Faults, Verdict, decode_object
from cir_core.submissions.lists import Answers, ListRule, check_lists, check_queries
from cir_core.types import Benchmark

RULE = ListRule(50, int)


def build(rankings: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """The submission of these rankings (by query id, best first), cut to 50.

    A short ranking stays short, and ``check`` says so. Raises ValueError for an image whose id is
    not a number.
    """
    return {
        query: [int(image) for image in ranking[: RULE.length]]
        for query, ranking in rankings.items()
    }


def check(content: bytes, split: str, *, benchmark: Benchmark | None, queries: int) -> Verdict:
    """Everything that is wrong with a file's bytes, as a submission for this split.

    Without the benchmark the ids of the queries are 0 to ``queries`` - 1, as published, and the
    answers are checked by their form alone. The reference may answer.
    """
    faults = Faults()
    decoded = decode_object(content, faults)
    if decoded is None:
        return Verdict(f"CIRCO {split}", faults.grouped())
    allowed: dict[str, Answers] = {}
    expected = [str(number) for number in range(queries)]
    against = "form only (image numbers need --data-root)"
    if benchmark is not None:
        galleries = {name: frozenset[str](ids) for name, ids in benchmark.galleries.items()}
        allowed = {
            query.query_id: Answers(galleries[query.category]) for query in benchmark.queries
        }
        expected = list(allowed)
        against = "query ids and image numbers checked against the annotations"
    check_queries(decoded, expected, faults)
    check_lists(decoded, RULE, allowed, faults)
    told = f"CIRCO {split}: {len(decoded):,} lists of {RULE.length}"
    return Verdict(f"{told}; {against}", faults.grouped())
