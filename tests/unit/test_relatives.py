"""What was made in the same way of other images is found, and nothing else is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage.identities import Identity
from storage.relatives import relatives
from storage.store import LocalStore
from storage.views import Encoded, KeptTokens

ASKED = Identity("encode", 2, {"ratio": 1.25, "precision": "fp32"}, {"images": "ab", "model": "cd"})


def found(folder: Path, other: Identity, *apart_from: str) -> bool:
    """Whether an artifact of this identity is found for the one that is asked for."""
    store = LocalStore(folder)
    made = Encoded.named(store, other)
    made.finish(other, [])
    every = relatives(Encoded.named(store, ASKED), apart_from=apart_from, kind=Encoded)
    assert every in ([], [made])
    assert not relatives(Encoded.named(store, ASKED), apart_from=apart_from, kind=KeptTokens)
    return bool(every)


def test_other_images_are_no_other_way(tmp_path: Path) -> None:
    other = replace(ASKED, inputs={"images": "ba", "model": "cd"})
    assert found(tmp_path, other, "images")
    assert not found(tmp_path, other)
    assert not found(tmp_path, other, "model")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"settings": {"ratio": 1.25, "precision": "bf16"}},
        {"settings": {"ratio": 1.25}},
        {"settings": {"ratio": 1.25, "precision": "fp32", "prior": 0}},
        {"inputs": {"images": "ba", "model": "ce"}},
        {"inputs": {"images": "ba"}},
        {"inputs": {"images": "ba", "model": "cd", "texts": "ef"}},
    ],
)
def test_another_version_setting_or_model_is(tmp_path: Path, change: dict[str, Any]) -> None:
    assert not found(tmp_path, replace(ASKED, **change), "images")


def test_it_is_no_relative_of_itself(tmp_path: Path) -> None:
    assert not found(tmp_path, ASKED, "images")
