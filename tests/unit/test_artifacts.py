"""An artifact is done when its bytes are those that its manifest promises, and only then."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cir_core.errors import StoreCorrupt
from storage import arrays
from storage.artifacts import Artifact
from storage.atomic import sha256_of
from storage.identities import Identity
from storage.listings import finished
from storage.store import LocalStore

IDENTITY = Identity("encode", 1, {"ratio": 1.25, "k": 50}, {"images": "ab", "weights": "cd"})
PARTS = ["rows-0", "rows-1", "notes"]


def content(name: str) -> pa.Table:
    return pa.table({"name": [f"{name} {row}" for row in range(40)], "row": range(40)})


def make(store: Path) -> list[str]:
    """What a task does: keep the parts that are there, make the others. Returns those."""
    artifact = Artifact.of(LocalStore(store), IDENTITY)
    if artifact.is_done:
        return []
    made = [name for name in PARTS if not artifact.has_part(name)]
    for name in made:
        artifact.write_part(name, content(name))
    artifact.finish(IDENTITY, PARTS)
    return made


def files(store: Path) -> dict[str, bytes]:
    folder = Artifact.of(LocalStore(store), IDENTITY).folder
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# --- names


@pytest.mark.parametrize(
    "other",
    [
        replace(IDENTITY, stage="fuse"),
        replace(IDENTITY, version=2),
        replace(IDENTITY, settings={"ratio": 1.25, "k": 51}),
        replace(IDENTITY, settings={"ratio": 1.25}),
        replace(IDENTITY, settings={"ratio": 1.25, "k": 50, "pad": None}),
        replace(IDENTITY, inputs={"images": "ab", "weights": "ce"}),
        replace(IDENTITY, inputs={"images": "cd", "weights": "ab"}),
        replace(IDENTITY, inputs={"images": "ab"}),
        replace(IDENTITY, settings=IDENTITY.inputs, inputs={}),
    ],
)
def test_a_fingerprint_depends_on_stage_version_settings_and_inputs(other: Identity) -> None:
    assert other.fingerprint != IDENTITY.fingerprint


def test_a_fingerprint_depends_on_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CIR_BATCH", "7")
    reordered = Identity(
        inputs={"weights": "cd", "images": "ab"},
        settings={"k": 50, "ratio": 1.25},
        version=1,
        stage="encode",
    )
    assert reordered.fingerprint == IDENTITY.fingerprint
    assert len(IDENTITY.fingerprint) == 32
    assert int(IDENTITY.fingerprint, 16)


def test_the_fingerprint_of_known_values_never_changes() -> None:
    """Else every store is made again: raise STORE_FORMAT on purpose, not by accident."""
    identity = Identity("ingest", 1, {"categories": ["dress", "é"]}, {"a.json": "00"})
    assert identity.fingerprint == "555ac65b23b4a97fe2655093dfe30452"


def test_an_artifact_lies_below_its_stage_and_fingerprint(tmp_path: Path) -> None:
    make(tmp_path)
    folder = tmp_path / "artifacts" / "encode" / IDENTITY.fingerprint
    assert (folder / "manifest.json").is_file()
    assert [artifact.folder for artifact in finished(LocalStore(tmp_path), "encode")] == [folder]


# --- done


def test_nothing_is_done_at_first(tmp_path: Path) -> None:
    artifact = Artifact.of(LocalStore(tmp_path), IDENTITY)
    assert not artifact.is_done
    assert not artifact.has_part("rows-0")
    assert finished(LocalStore(tmp_path), "encode") == []
    assert list(tmp_path.iterdir()) == []


def test_a_finished_artifact_is_done_and_stays_as_it_is(tmp_path: Path) -> None:
    assert make(tmp_path) == PARTS
    before = files(tmp_path)
    assert set(before) == {"manifest.json", *(f"{name}.parquet" for name in PARTS)}
    assert make(tmp_path) == []
    assert files(tmp_path) == before


def test_all_parts_without_a_manifest_are_not_done(tmp_path: Path) -> None:
    artifact = Artifact.of(LocalStore(tmp_path), IDENTITY)
    for name in PARTS:
        artifact.write_part(name, content(name))
    assert not artifact.is_done
    assert all(artifact.has_part(name) for name in PARTS)
    assert finished(LocalStore(tmp_path), "encode") == []


def test_the_manifest_tells_what_the_artifact_is_made_of(tmp_path: Path) -> None:
    make(tmp_path)
    artifact = Artifact(LocalStore(tmp_path), "encode", IDENTITY.fingerprint)
    assert artifact.identity() == IDENTITY.as_json()
    assert artifact.made_with().keys() >= {"python", "torch", "pyarrow"}
    assert artifact.created_at().endswith("+00:00")
    receipts = json.loads(files(tmp_path)["manifest.json"])["parts"]
    assert list(receipts) == PARTS
    assert all(receipt["rows"] == 40 for receipt in receipts.values())


def test_parts_of_a_kind_are_read_in_the_manifests_order(tmp_path: Path) -> None:
    make(tmp_path)
    artifact = Artifact.of(LocalStore(tmp_path), IDENTITY)
    wanted = pa.concat_tables([content("rows-0"), content("rows-1")])
    assert artifact.read("rows").equals(wanted)
    assert artifact.read("notes").equals(content("notes"))


def test_a_kind_that_is_not_there_is_corrupt(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(StoreCorrupt, match="no part 'row'"):
        Artifact.of(LocalStore(tmp_path), IDENTITY).read("row")


@pytest.mark.parametrize("step", ["nothing", "parts", "damaged manifest"])
def test_an_incomplete_artifact_cannot_be_read(tmp_path: Path, step: str) -> None:
    artifact = Artifact.of(LocalStore(tmp_path), IDENTITY)
    if step != "nothing":
        artifact.write_part("rows-0", content("rows-0"))
    if step == "damaged manifest":
        artifact.finish(IDENTITY, ["rows-0"])
        (artifact.folder / "manifest.json").write_text("{")
    readers: list[Callable[[], object]] = [
        lambda: artifact.read("rows"),
        artifact.identity,
        artifact.made_with,
        artifact.created_at,
    ]
    for reader in readers:
        with pytest.raises(StoreCorrupt, match="not complete") as caught:
            reader()
        assert caught.value.exit_code == 6
        assert caught.value.remedy


# --- interrupted


@pytest.mark.parametrize("kept", range(len(PARTS) + 1))
def test_an_interrupted_artifact_goes_on_where_it_was(tmp_path: Path, kept: int) -> None:
    artifact = Artifact.of(LocalStore(tmp_path), IDENTITY)
    for name in PARTS[:kept]:
        artifact.write_part(name, content(name))
    (artifact.folder / ".rows-1.parquet.99.tmp").parent.mkdir(parents=True, exist_ok=True)
    (artifact.folder / ".rows-1.parquet.99.tmp").write_bytes(b"PAR1 half a part")
    assert make(tmp_path) == PARTS[kept:]
    make(tmp_path / "undisturbed")
    assert _without_times(files(tmp_path)) == _without_times(files(tmp_path / "undisturbed"))


def _without_times(content: dict[str, bytes]) -> dict[str, object]:
    manifest = json.loads(content["manifest.json"])
    del manifest["created_at"], manifest["checksum"]
    return {**content, "manifest.json": manifest}


def test_a_part_without_its_receipt_is_made_again(tmp_path: Path) -> None:
    artifact = Artifact.of(LocalStore(tmp_path), IDENTITY)
    artifact.write_part("rows-0", content("rows-0"))
    (artifact.folder / "rows-0.receipt.json").unlink()
    assert make(tmp_path) == PARTS


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[]", b'{"bytes": 3}', b"null"])
def test_a_part_with_a_damaged_receipt_is_made_again(tmp_path: Path, damage: bytes) -> None:
    artifact = Artifact.of(LocalStore(tmp_path), IDENTITY)
    artifact.write_part("rows-0", content("rows-0"))
    (artifact.folder / "rows-0.receipt.json").write_bytes(damage)
    assert make(tmp_path) == PARTS


def test_a_rewritten_part_has_a_new_receipt(tmp_path: Path) -> None:
    artifact = Artifact.of(LocalStore(tmp_path), IDENTITY)
    artifact.write_part("rows-0", content("old"))
    artifact.write_part("rows-0", content("rows-0"))
    assert artifact.has_part("rows-0")
    make(tmp_path)
    assert artifact.read("rows").slice(0, 40).equals(content("rows-0"))


def test_finishing_removes_what_else_is_there(tmp_path: Path) -> None:
    artifact = Artifact.of(LocalStore(tmp_path), IDENTITY)
    artifact.write_part("other-shard-size", content("x"))
    (artifact.folder / ".rows-0.parquet.77.tmp").write_bytes(b"half")
    (artifact.folder / "rows-1.damaged").write_bytes(b"flipped")
    make(tmp_path)
    assert set(files(tmp_path)) == {"manifest.json", *(f"{name}.parquet" for name in PARTS)}


def test_what_a_kill_right_after_the_manifest_left_is_removed_by_the_next_run(
    tmp_path: Path,
) -> None:
    make(tmp_path)
    folder = Artifact.of(LocalStore(tmp_path), IDENTITY).folder
    good = files(tmp_path)
    (folder / "rows-0.receipt.json").write_text("{}")
    (folder / ".rows-0.parquet.77.tmp").write_bytes(b"half")
    assert make(tmp_path) == []
    assert files(tmp_path) == good


# --- damaged

TEARS: dict[str, Callable[[bytes], bytes]] = {
    "0 bytes": lambda good: b"",
    "1 byte": lambda good: good[:1],
    "half": lambda good: good[: len(good) // 2],
    "-1 byte": lambda good: good[:-1],
    "+1 byte": lambda good: good + b"\0",
    "bit in a page": lambda good: flip(good, 60),
    "bit in the footer": lambda good: flip(good, len(good) - 60),
}


def flip(good: bytes, place: int) -> bytes:
    return good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("damage", TEARS)
def test_a_damaged_part_is_found_set_aside_and_alone_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    make(tmp_path)
    good = files(tmp_path)
    artifact = Artifact.of(LocalStore(tmp_path), IDENTITY)
    path = artifact.folder / f"{name}.parquet"
    path.write_bytes(TEARS[damage](path.read_bytes()))
    bad = path.read_bytes()
    with caplog.at_level(logging.WARNING):
        assert not artifact.is_done
    assert [record.getMessage() for record in caplog.records] == [
        f"a part is damaged and is made again: {path}"
    ]
    assert not path.exists()
    assert (artifact.folder / f"{name}.damaged").read_bytes() == bad
    assert make(tmp_path) == [name]
    assert _without_times(files(tmp_path)) == _without_times(good)


def test_a_missing_part_is_found_and_alone_made_again(tmp_path: Path) -> None:
    make(tmp_path)
    (Artifact.of(LocalStore(tmp_path), IDENTITY).folder / "notes.parquet").unlink()
    assert make(tmp_path) == ["notes"]
    assert Artifact.of(LocalStore(tmp_path), IDENTITY).is_done


def test_two_damaged_parts_are_both_made_again(tmp_path: Path) -> None:
    make(tmp_path)
    for name in PARTS[::2]:
        (Artifact.of(LocalStore(tmp_path), IDENTITY).folder / f"{name}.parquet").write_bytes(b"")
    assert make(tmp_path) == PARTS[::2]


def test_a_part_that_was_swapped_for_another_good_one_is_found(tmp_path: Path) -> None:
    make(tmp_path)
    folder = Artifact.of(LocalStore(tmp_path), IDENTITY).folder
    os.replace(folder / "rows-0.parquet", folder / "rows-1.parquet")
    assert make(tmp_path) == ["rows-0", "rows-1"]


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\xff", b"[]", b"null", b"{}", b'{"identity": {}, "parts": {}}'],
    ids=str,
)
def test_a_damaged_manifest_is_found_set_aside_and_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    make(tmp_path)
    good = files(tmp_path)
    artifact = Artifact.of(LocalStore(tmp_path), IDENTITY)
    (artifact.folder / "manifest.json").write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        assert not artifact.is_done
        assert not artifact.is_done
    assert len(caplog.records) == 1
    assert "a manifest is damaged" in caplog.text
    assert (artifact.folder / "manifest.damaged").read_bytes() == damage
    make(tmp_path)
    assert _without_times(files(tmp_path)) == _without_times(good)


def test_a_flipped_bit_anywhere_in_a_manifest_never_changes_what_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that turns rows-0 into rows-1 would otherwise drop a part without a word."""
    caplog.set_level(logging.ERROR, "storage")
    make(tmp_path)
    artifact = Artifact.of(LocalStore(tmp_path), IDENTITY)
    path = artifact.folder / "manifest.json"
    good = path.read_bytes()
    wanted = json.loads(good)
    noticed = 0
    for place in range(len(good)):
        path.write_bytes(flip(good, place))
        try:
            artifact.identity()
        except StoreCorrupt:
            noticed += 1
        else:
            assert json.loads(path.read_bytes()) == wanted  # it hit the white space
    assert noticed > 0.8 * len(good)


def test_a_manifest_that_belongs_to_another_artifact_is_found(tmp_path: Path) -> None:
    make(tmp_path)
    other = replace(IDENTITY, version=2)
    Artifact.of(LocalStore(tmp_path), IDENTITY).folder.rename(
        Artifact.of(LocalStore(tmp_path), other).folder
    )
    assert not Artifact.of(LocalStore(tmp_path), other).is_done


# --- read


@pytest.mark.parametrize("damage", TEARS)
def test_a_damaged_part_is_never_read(tmp_path: Path, damage: str) -> None:
    make(tmp_path)
    artifact = Artifact.of(LocalStore(tmp_path), IDENTITY)
    path = artifact.folder / "rows-1.parquet"
    path.write_bytes(TEARS[damage](path.read_bytes()))
    with pytest.raises(StoreCorrupt, match="damaged") as caught:
        artifact.read("rows")
    assert caught.value.item == str(path)
    assert artifact.read("notes").equals(content("notes"))


def test_a_damaged_array_is_never_mapped(tmp_path: Path) -> None:
    artifact = Artifact.of(LocalStore(tmp_path), IDENTITY)
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    artifact.write_array("rows-0.npy", array)
    artifact.finish(IDENTITY, ["rows-0.npy"])
    assert artifact.is_done
    assert np.array_equal(artifact.map_arrays("rows")[0], array)
    path = artifact.folder / "rows-0.npy"
    path.write_bytes(flip(path.read_bytes(), 150))
    with pytest.raises(StoreCorrupt, match="damaged"):
        artifact.map_arrays("rows")
    assert not artifact.is_done


def test_an_unchanged_array_is_hashed_once_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.npy"
    arrays.write_array(path, np.arange(5))
    os.utime(path, ns=(0, 0))
    monkeypatch.setattr(arrays, "SETTLED", -1)
    digest = arrays.sha256_once(path)
    assert digest == sha256_of(path)
    monkeypatch.setattr(arrays, "sha256_of", lambda _path: "read again")
    assert arrays.sha256_once(path) == digest
    os.utime(path, ns=(1, 1))
    assert arrays.sha256_once(path) == "read again"


def test_under_a_clock_that_was_set_back_an_array_is_hashed_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its times say of a file is not known then."""
    path = tmp_path / "x.npy"
    arrays.write_array(path, np.arange(5))
    monkeypatch.setattr("storage.arrays.time.time_ns", lambda: 0)
    arrays.sha256_once(path)
    monkeypatch.setattr(arrays, "sha256_of", lambda _path: "read again")
    assert arrays.sha256_once(path) == "read again"


# --- made of what is there

ABOVE = Identity("ingest", 1, {}, {"annotations": "ab"})
BELOW = Identity("fuse", 1, {}, {"ingest": ABOVE.fingerprint, "model": "cd"})
LAST = Identity("retrieve", 1, {}, {"fuse": BELOW.fingerprint})


def write(store: Path, identity: Identity, text: str) -> Artifact:
    artifact = Artifact.of(LocalStore(store), identity)
    (artifact.folder / "manifest.json").unlink(missing_ok=True)  # as of what is made again
    artifact.write_part("rows", content(text))
    artifact.finish(identity, ["rows"])
    return Artifact.of(LocalStore(store), identity)  # as the next task would


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    for identity in (ABOVE, BELOW, LAST):
        assert write(tmp_path, identity, "first").is_done
    return tmp_path


def test_what_is_made_again_with_the_same_bytes_leaves_the_rest_as_it_is(chain: Path) -> None:
    content_before = Artifact.of(LocalStore(chain), LAST).content
    (Artifact.of(LocalStore(chain), ABOVE).folder / "rows.parquet").write_bytes(b"")
    assert not Artifact.of(LocalStore(chain), ABOVE).is_done
    write(chain, ABOVE, "first")
    assert Artifact.of(LocalStore(chain), BELOW).is_done
    assert Artifact.of(LocalStore(chain), LAST).is_done
    assert Artifact.of(LocalStore(chain), LAST).content == content_before


def test_what_is_made_again_with_other_bytes_makes_what_is_below_again(
    chain: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(chain, ABOVE, "second")
    below = Artifact.of(LocalStore(chain), BELOW)
    for stale in (
        below,
        Artifact.of(LocalStore(chain), LAST),
        Artifact(LocalStore(chain), "retrieve", LAST.fingerprint),
    ):
        with pytest.raises(StoreCorrupt, match="other bytes") as caught:
            stale.require_current()
        assert caught.value.item == str(below.folder)
    assert not below.is_done
    assert "other bytes" in caplog.text
    assert not below.has_part("rows")  # its receipt is gone with the manifest that held it
    write(chain, BELOW, "second")
    assert Artifact.of(LocalStore(chain), BELOW).is_done
    assert not Artifact.of(LocalStore(chain), LAST).is_done


def test_other_bytes_two_stages_above_make_a_stage_again_even_where_its_own_inputs_agree(
    chain: Path,
) -> None:
    """The stage between came out the same; that it did is known only when it was made."""
    write(chain, ABOVE, "second")
    assert Artifact.of(LocalStore(chain), LAST).is_done  # the stage between has not been asked yet
    assert not Artifact.of(LocalStore(chain), BELOW).is_done
    write(chain, BELOW, "first")
    assert not Artifact.of(LocalStore(chain), LAST).is_done


def test_parts_that_an_interrupted_run_made_of_other_bytes_are_made_again(chain: Path) -> None:
    other = replace(BELOW, version=2)
    Artifact.of(LocalStore(chain), other).write_part("rows", content("first"))
    assert Artifact.of(LocalStore(chain), other).has_part("rows")
    write(chain, ABOVE, "second")
    assert not Artifact.of(LocalStore(chain), other).has_part("rows")


def test_an_input_that_is_not_there_any_more_has_no_say(chain: Path) -> None:
    shutil.rmtree(Artifact.of(LocalStore(chain), ABOVE).folder)
    assert Artifact.of(LocalStore(chain), BELOW).is_done
    Artifact.of(LocalStore(chain), LAST).require_current()


def test_the_bytes_that_were_made_of_count_not_when(chain: Path) -> None:
    undisturbed = chain / "another-store"
    for identity in (ABOVE, BELOW, LAST):
        write(undisturbed, identity, "first")
    for identity in (ABOVE, BELOW, LAST):
        mine, theirs = (Artifact.of(LocalStore(store), identity) for store in (chain, undisturbed))
        assert mine.content == theirs.content


def test_a_receipt_of_an_older_version_is_believed(tmp_path: Path) -> None:
    artifact = Artifact.of(LocalStore(tmp_path), IDENTITY)
    artifact.write_part("rows", content("rows"))
    receipt = artifact.folder / "rows.receipt.json"
    told = json.loads(receipt.read_text())
    del told["checksum"]
    receipt.write_text(json.dumps(told))
    assert artifact.has_part("rows")
