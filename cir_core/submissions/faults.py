"""Why a submission would be refused: every fault at once, grouped by kind."""

import json
from dataclasses import dataclass
from typing import Any

EXAMPLES = 3
"""Shown of each kind; the count tells the rest."""

EXAMPLE_WIDTH = 100

EXPLANATIONS = {
    "too_large": "the file is larger than the 5 MB that the server takes: write it without "
    "indentation",
    "not_json": "the file is not JSON text",
    "not_an_object": "the file must hold one JSON object: a list of answers under each query's id",
    "repeated_key": "a key occurs more than once, and all but one of its values would be lost",
    "version": 'the key "version" must be there and be "rc2"',
    "metric": 'the key "metric" must be there and be "recall" or "recall_subset"',
    "missing_query": "a query of the split has no list",
    "unknown_query": "a key is not the id of a query of the split",
    "wrong_count": "there are not as many lists as the split has queries",
    "not_a_list": "the answers to a query are not a list",
    "wrong_length": "a list is too short or too long",
    "not_a_string": "an answer is not the name of an image, a JSON string",
    "not_an_integer": "an answer is not the number of an image, a JSON integer",
    "duplicate": "an answer occurs more than once in a list",
    "reference": "a query is answered with its own reference, which must be left out",
    "not_in_gallery": "an answer is not an image of the split's gallery",
    "not_in_subset": "an answer is not one of the query's subset (img_set without the reference)",
}


@dataclass(frozen=True)
class Fault:
    """All faults of one kind: what is wrong, how often, and the first places."""

    kind: str
    what: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        told = list(self.examples)
        if self.count > len(told):
            told.append(f"and {self.count - len(told):,} more")
        return f"{self.what} ({self.count:,}): {'; '.join(told)}"


@dataclass(frozen=True)
class Verdict:
    """``checked``: in a line, what was looked at. No faults: nothing in it is against the rules."""

    checked: str
    faults: tuple[Fault, ...]


class Faults:
    """Collects faults by kind, a key of ``EXPLANATIONS``, in the order first met."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, kind: str, example: str) -> None:
        self._found.setdefault(kind, []).append(example)

    def grouped(self) -> tuple[Fault, ...]:
        return tuple(
            Fault(kind, EXPLANATIONS[kind], len(found), tuple(found[:EXAMPLES]))
            for kind, found in self._found.items()
        )


def shown(value: object) -> str:
    """A value of the file as JSON, in ASCII and cut short: it goes to a terminal."""
    text = json.dumps(value)
    return text if len(text) <= EXAMPLE_WIDTH else text[:EXAMPLE_WIDTH] + "..."


def decode_object(content: bytes, faults: Faults) -> dict[str, Any] | None:
    """The JSON object in these bytes; None, and a fault, when they hold none."""

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                faults.add("repeated_key", shown(key))
            seen.add(key)
        return dict(pairs)

    try:
        decoded = json.loads(content.decode("utf-8"), object_pairs_hook=distinct)
    except (ValueError, RecursionError) as error:  # bad bytes, bad JSON, endless digits or brackets
        faults.add("not_json", str(error))
        return None
    if isinstance(decoded, dict):
        return decoded
    faults.add("not_an_object", f"it holds a {type(decoded).__name__}")
    return None
