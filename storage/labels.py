"""Names and tags that people give to runs. They name no artifact and change no result: a run is
called by its id whatever its label says."""

import json
import logging
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from storage import manifests
from storage.store import Store

MOST_SIGNS = 100
"""Of a name or a tag: it stands in headings and in the cells of tables."""

ID_DIGITS = 12
"""From so many hexadecimal digits on, a name would be taken for a run's id."""

FOLDER = "labels"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Label:
    """What a run is called, and its tags: sorted, each once."""

    name: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All that it says; empty of a label that says nothing."""
        if self == UNLABELLED:
            return ""
        return json.dumps({"name": self.name, "tags": self.tags}, ensure_ascii=False) + "\n"

    @property
    def sealed(self) -> str:
        """As it is kept."""
        return manifests.seal({"name": self.name, "tags": self.tags})

    def tagged(self, tags: Iterable[str]) -> "Label":
        """With these tags, too."""
        return Label(self.name, tuple(sorted({*self.tags, *tags})))

    def untagged(self, tags: Iterable[str]) -> "Label":
        """Without these tags."""
        return Label(self.name, tuple(sorted({*self.tags} - {*tags})))

    def renamed(self, name: str | None) -> "Label":
        """With this name alone."""
        return Label(name, self.tags)


UNLABELLED = Label()


def as_word(text: str) -> str:
    """A name or a tag in Unicode's composed form, so that two that look alike are the same.

    Raises ValueError where it is empty, has more than ``MOST_SIGNS`` signs, white space at its
    ends, a comma (which parts tags in the environment), or signs that are not seen: controls, line
    breaks, and those that turn the direction of writing.
    """
    word = unicodedata.normalize("NFC", text)
    if not word or word != word.strip():
        raise ValueError("it is empty, or begins or ends with a space")
    if len(word) > MOST_SIGNS:
        raise ValueError(f"it has {len(word):,} signs, and {MOST_SIGNS} are the most")
    if not word.isprintable():
        raise ValueError("it has signs that are not seen: controls, line breaks, or their like")
    if "," in word:
        raise ValueError("it has a comma, which parts one tag from the next")
    return word


def as_name(text: str) -> str:
    """``as_word`` of what is not taken for a run's id."""
    word = as_word(text)
    if len(word) >= ID_DIGITS and not word.strip("0123456789abcdef"):
        raise ValueError("it reads as a run's id")
    return word


def read_label(store: Store, run_id: str) -> Label:
    """What the run is called; nothing, with a warning, where the file is damaged."""
    name = _file(run_id)
    try:
        return parse_label(store.read_text(name))
    except FileNotFoundError:
        return UNLABELLED
    except (ValueError, LookupError, TypeError) as error:
        _log.warning("a run's label is damaged, and read as none: %s (%s)", store.told(name), error)
        return UNLABELLED


def write_label(store: Store, run_id: str, label: Label) -> None:
    """The caller holds the store, and has seen that no other run has the name."""
    if label == UNLABELLED:
        store.remove(_file(run_id))
    else:
        store.put_text(_file(run_id), label.sealed)


def _file(run_id: str) -> str:
    return f"{FOLDER}/{run_id}.json"


def parse_label(text: str) -> Label:
    """What ``write_label`` has kept. Raises ValueError, LookupError or TypeError of what is none,
    or has other bytes. An older version's label has no checksum, and is its ``text``."""
    kept = json.loads(text)
    name = None if kept["name"] is None else as_name(kept["name"])
    label = Label(name).tagged(map(as_word, kept["tags"]))
    if text not in (label.sealed, label.text):
        raise ValueError("its checksum is another")
    return label
