"""Names and tags: which there can be, whose they are, and what is kept of them."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cir_core.errors import UsageError
from flows.ablation.checking import run_of
from flows.ablation.declaration import Row
from flows.inputs import resolve_inputs
from flows.run import selection_of
from flows.settings import Settings
from flows.training_settings import settings_of_data
from storage.artifacts import Artifact
from storage.identities import Identity
from storage.labels import (
    MOST_SIGNS,
    UNLABELLED,
    Label,
    as_name,
    as_word,
    read_label,
    write_label,
)
from storage.runs import find_run, require_free
from storage.store import LocalStore
from storage.views import Evaluated
from tasks.stages.output import content_of


def make_run(store: Path, k: int) -> Evaluated:
    identity = Identity("evaluate", 1, {"protocol": "demo", "k": k}, {})
    Artifact.of(LocalStore(store), identity).finish(identity, [])
    return Evaluated(LocalStore(store), identity.fingerprint)


def name(run: Evaluated, name: str) -> None:
    write_label(run.store, run.run_id, Label(name))


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=MOST_SIGNS + 2))
def test_a_word_is_what_can_be_read_and_typed_again(text: str) -> None:
    try:
        word = as_word(text)
    except ValueError:
        return
    assert as_word(word) == word
    assert word.isprintable()
    assert word == word.strip() != ""
    assert "," not in word


@pytest.mark.parametrize(
    "text",
    ["", " a", "a ", "a,b", "a\nb", "a\x1b[31m", "a\u202eb", "\u200f", "a\udcff", "x" * 101],
)
def test_what_cannot_be_seen_or_parted_is_no_word(text: str) -> None:
    with pytest.raises(ValueError, match="it "):
        as_word(text)


def test_words_that_look_alike_are_the_same() -> None:
    assert as_word("e\u0301te\u0301") == as_word("été")


@pytest.mark.parametrize("text", ["0123456789ab", "deadbeefdead0000"])
def test_what_reads_as_a_runs_id_is_no_name(text: str) -> None:
    with pytest.raises(ValueError, match="run's id"):
        as_name(text)
    assert as_word(text) == text
    assert as_name(text[:11]) == text[:11]


def test_a_label_is_kept_as_it_is_and_removed_with_its_last_word(tmp_path: Path) -> None:
    store, label = LocalStore(tmp_path), Label('"<b>|" \\ été').tagged(["z", "a", "z"])
    assert read_label(store, "0" * 12) == UNLABELLED
    write_label(store, "0" * 12, label)
    assert read_label(store, "0" * 12) == label
    assert label.tags == ("a", "z")
    write_label(store, "0" * 12, label.renamed(None).untagged(["z", "a", "none"]))
    assert store.names("labels") == []


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"name": 3, "tags": []}', '{"name": "a"}'])
def test_a_damaged_label_is_none_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    store = LocalStore(tmp_path)
    store.put_text("labels/000000000000.json", text)
    assert read_label(store, "0" * 12) == UNLABELLED
    assert "labels/000000000000.json" in caplog.text


def test_a_run_is_found_by_its_name_and_by_its_id(tmp_path: Path) -> None:
    first, second = make_run(tmp_path, 1), make_run(tmp_path, 2)
    name(first, "été")
    for called in ("été", "e\u0301te\u0301", first.run_id, first.fingerprint, first.run_id[:5]):
        assert find_run(first.store, called) == first
    assert find_run(first.store, second.run_id[:5]) == second
    with pytest.raises(UsageError, match="no run 'ét'") as caught:
        find_run(first.store, "ét")
    assert f"{first.run_id}  'été', demo, K = 1" in caught.value.item


def test_a_name_that_begins_another_runs_id_is_ambiguous(tmp_path: Path) -> None:
    first, second = make_run(tmp_path, 1), make_run(tmp_path, 2)
    name(first, second.run_id[:3])
    with pytest.raises(UsageError, match="the store has 2 runs that") as caught:
        find_run(first.store, second.run_id[:3])
    assert first.run_id in caught.value.item
    assert second.run_id in caught.value.item
    assert find_run(first.store, second.run_id[:4]) == second


def test_a_name_is_one_runs(tmp_path: Path) -> None:
    first, second = make_run(tmp_path, 1), make_run(tmp_path, 2)
    name(first, "baseline")
    require_free(first, "baseline")
    require_free(second, "Baseline")
    with pytest.raises(UsageError, match="another run is called 'baseline'") as caught:
        require_free(second, "baseline")
    assert first.run_id in caught.value.item


def test_outputs_are_made_of_the_label_and_of_the_content_alone_without_one(tmp_path: Path) -> None:
    run = make_run(tmp_path, 1)
    contents = [content_of(run)]
    assert contents == [run.content]
    for label in (Label("a"), Label("b"), Label("b", ("a",)), Label(None, ("a",))):
        write_label(run.store, run.run_id, label)
        contents.append(content_of(run))
    assert len({*contents}) == len(contents)
    write_label(run.store, run.run_id, UNLABELLED)
    assert content_of(run) == run.content


@pytest.mark.parametrize("asked", [{"run_name": "a"}, {"tags": ("a",)}])
def test_what_ends_before_it_is_evaluated_has_no_name(asked: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="before it is evaluated"):
        resolve_inputs(Settings.model_validate({"until": "encode"} | asked))


def test_only_the_run_that_is_asked_for_is_named() -> None:
    """Not the runs that it needs on the way, nor each row of a table."""
    asked = Settings(run_name="baseline", tags=("paper",))
    for other in (selection_of(asked), settings_of_data(asked)):
        assert (other.run_name, other.tags) == (None, ())
    of_row = run_of(Row(name="a row"), asked, None, None)
    assert (of_row.run_name, of_row.tags) == (None, ("paper",))


def test_a_label_of_an_older_version_is_read(tmp_path: Path) -> None:
    run, label = make_run(tmp_path, 5), Label("ä name").tagged(["one", "two"])
    run.store.put_text(f"labels/{run.run_id}.json", label.text)
    assert read_label(run.store, run.run_id) == label


def test_a_label_with_a_flipped_bit_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path, 5)
    write_label(run.store, run.run_id, Label("baseline").tagged(["one"]))
    file = run.store.local(f"labels/{run.run_id}.json")
    good = file.read_bytes()
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        file.write_bytes(bad)
        assert read_label(run.store, run.run_id) == UNLABELLED
    assert "a run's label is damaged" in caplog.text
