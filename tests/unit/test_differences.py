"""What is told of an artifact that is not there."""

from pathlib import Path

from storage.artifacts import Artifact
from storage.differences import why_missing
from storage.identities import Identity
from storage.store import LocalStore


def identity(**settings: object) -> Identity:
    return Identity("rank", 1, settings, {"retrieve": "a", "rerank": "b"})


def make(store: Path, one: Identity) -> None:
    Artifact.of(LocalStore(store), one).finish(one, [])


def test_a_store_without_the_stage_says_so(tmp_path: Path) -> None:
    assert why_missing(LocalStore(tmp_path), identity(k=5)) == "never made in this store"


def test_settings_are_told_with_both_values_and_inputs_by_their_role(tmp_path: Path) -> None:
    make(tmp_path, Identity("rank", 1, {"k": 9, "subset": None}, {"retrieve": "c", "rerank": "d"}))
    assert (
        why_missing(LocalStore(tmp_path), identity(k=5))
        == "k 5, not 9, another retrieve, another rerank"
    )


def test_a_setting_that_only_one_is_named_by_is_the_others_default(tmp_path: Path) -> None:
    make(tmp_path, identity(k=5, prior=None))
    asked = identity(k=5, precision="bf16", prior=0.5)
    told = why_missing(LocalStore(tmp_path), asked)
    assert told == "precision bf16, not the default, prior 0.5, not none"


def test_the_most_similar_one_is_compared(tmp_path: Path) -> None:
    for one in (identity(k=1, index="flat"), identity(k=5, index="ivf"), identity(k=2)):
        make(tmp_path, one)
    assert why_missing(LocalStore(tmp_path), identity(k=5, index="exact")) == "index exact, not ivf"


def test_the_same_inputs_are_nearer_than_the_same_settings(tmp_path: Path) -> None:
    make(tmp_path, Identity("rank", 1, {"k": 5}, {"retrieve": "c", "rerank": "b"}))
    make(tmp_path, identity(k=9))
    assert why_missing(LocalStore(tmp_path), identity(k=5)) == "k 5, not 9"


def test_another_version_is_told(tmp_path: Path) -> None:
    make(tmp_path, Identity("rank", 0, {"k": 5}, {"retrieve": "a", "rerank": "b"}))
    assert why_missing(LocalStore(tmp_path), identity(k=5)) == "made by another version"


def test_a_damaged_manifest_says_nothing(tmp_path: Path) -> None:
    one = identity(k=1)
    make(tmp_path, one)
    (Artifact.of(LocalStore(tmp_path), one).folder / "manifest.json").write_text("{")
    assert why_missing(LocalStore(tmp_path), identity(k=5)) == "never made in this store"
