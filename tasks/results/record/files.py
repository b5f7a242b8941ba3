"""The files of a run's record, which stand beside its page."""

import json
from collections.abc import Mapping, Sequence

from storage.answers import OpenCatalog
from storage.store import Store
from storage.views import Evaluated
from tasks.results.record.expected import render
from tasks.results.record.numbers import SCHEMA_FILE, document, schema_text
from tasks.results.record.run_card import card

NUMBERS, CARD, EXPECTED = "metrics.json", "run-card.md", "expected.toml"

RECORD_FILES = (NUMBERS, SCHEMA_FILE, CARD, EXPECTED)

VERSION = 2
"""Raised when a file says something else of the same run."""


def known_command(store: Store, folder: str) -> tuple[str, ...]:
    """What an earlier record in the folder says to make its run again; nothing where there is none,
    or it is damaged."""
    try:
        words = json.loads(store.read_text(f"{folder}/{NUMBERS}"))["command"]
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return ()
    is_command = isinstance(words, list) and all(isinstance(word, str) for word in words)
    return tuple(words) if is_command else ()


def record_of(
    catalog: OpenCatalog, evaluated: Evaluated, command: Sequence[str], *, report: int
) -> Mapping[str, str]:
    """The text of each file, by its name; as ``document``."""
    content = document(catalog, evaluated, command, report=report)
    numbers = json.dumps(content, indent=1, default=str) + "\n"
    return {
        NUMBERS: numbers,
        SCHEMA_FILE: schema_text(),
        CARD: card(json.loads(numbers)),
        EXPECTED: render(evaluated),
    }
