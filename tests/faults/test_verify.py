"""A store is verified: one flipped bit anywhere is found, and the file that it is in is named."""

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cir_core.errors import PreflightError, StoreCorrupt
from cir_core.protocols import PROTOCOLS
from flows.leasing import leased
from flows.settings import shipped_model
from storage.artifacts import Artifact
from storage.catalog import CATALOG_FILE
from storage.formats import FORMAT_FILE
from storage.identities import Identity
from storage.labels import Label, write_label
from storage.models.folders import read_config, read_tensors, write_checkpoint
from storage.products import SUMS, Product
from storage.store import LocalStore, open_store
from storage.views import Evaluated
from tasks.stages.output import write_output
from tasks.stages.publish import Publish
from tasks.upkeep.verify import Verified, require_whole, verify
from tests.support.made_runs import circo_benchmark, random_scores, write_run

PROTOCOL = next(name for name, one in PROTOCOLS.items() if one.dataset == "circo")

OFFSETS = 6
"""Random ones of each file; beside the first and the last bit."""


def fill(root: Path) -> None:
    """One file of each kind that a store has, or several."""
    store, rng = LocalStore(root), np.random.default_rng(0)
    benchmark = circo_benchmark(12, 5)
    stage1, stage2 = (random_scores(benchmark, rng, 9) for _ in range(2))
    made = write_run(root, benchmark, protocol=PROTOCOL, k=4, stage1=stage1, stage2=stage2)
    run = Evaluated(store, made)
    with leased(store):
        write_label(store, run.run_id, Label("bäse").tagged(["paper"]))
        write_output(Publish(run))
        report = f"reports/{run.run_id}"
        for name in ("index.html", "pictures/0.webp"):
            store.put_text(f"{report}/{name}", f"<p>{name}")
        digest = store.put_text(f"{report}/pictures/0.webp", "picture")
        store.put_text(f"{report}/pictures/{SUMS}", f"{digest}  0.webp\n")
        files = ("index.html", f"pictures/{SUMS}")
        Product(store, report, "report", "7", files).record({run.run_id: "c0ffee"})
        tokens = Identity("tokens", 2, {}, {"images": "ab", "vision": "cd"})
        kept = Artifact.of(store, tokens)
        kept.write_array("tokens-0.npy", np.arange(12.0).reshape(3, 4))
        kept.finish(tokens, ["tokens-0.npy"])
        begun = Artifact.of(store, Identity("rerank", 9, {}, {"retrieve": "ab"}))
        begun.write_part("scores-0", pa.table({"x": [1.5, 2.5]}))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "store"
    fill(root)
    return root


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> LocalStore:
    """To be damaged."""
    shutil.copytree(whole, tmp_path / "store")
    return LocalStore(tmp_path / "store")


def verified(store: LocalStore) -> Verified:
    return verify(store, (), ())


def named(store: LocalStore) -> list[str]:
    return [fault.item for fault in verified(store).faults]


def kinds(store: LocalStore) -> Iterator[str]:
    """Every file that vouches for something, or is vouched for."""
    return (name for name in store.files() if not name.startswith("lock"))


def test_what_is_whole_is_told_as_such_and_nothing_is_written(store: LocalStore) -> None:
    def seen() -> dict[str, tuple[int, int]]:
        every = {name: store.local(name).stat() for name in store.files()}
        return {name: (one.st_mtime_ns, one.st_ino) for name, one in every.items()}

    before = seen()
    found = verified(store)
    require_whole(found, store)
    assert found.is_whole
    assert [note.told.partition(":")[0] for note in found.notes] == ["begun only"]
    assert seen() == before


def test_there_is_a_file_of_each_kind(store: LocalStore) -> None:
    ends = {name.rpartition("/")[2].split(".", 1)[-1] for name in kinds(store)}
    wanted = {"json", "parquet", "receipt.json", "npy", "duckdb", "duckdb.sha256", "sha256", "html"}
    assert wanted | {SUMS, "webp"} <= ends


def test_any_flipped_bit_is_found_in_the_file_that_it_is_in(store: LocalStore) -> None:
    draws = random.Random(0)
    for name in kinds(store):
        path = store.local(name)
        good = path.read_bytes()
        last = 8 * len(good) - 1
        for bit in (0, last, *(draws.randint(0, last) for _ in range(OFFSETS))):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            path.write_bytes(bad)
            if name == FORMAT_FILE:
                with pytest.raises(StoreCorrupt, match=FORMAT_FILE):
                    open_store(store.root)
            else:
                assert named(store) == [name], f"bit {bit}"
        path.write_bytes(good)
    assert verified(store).is_whole


@pytest.mark.parametrize("damage", ["gone", "shorter", "empty"])
def test_what_is_gone_or_shorter_is_found(store: LocalStore, damage: str) -> None:
    promised = [name for name in kinds(store) if name.endswith((".parquet", ".npy", ".html", "b"))]
    for name in promised:
        path = store.local(name)
        good = path.read_bytes()
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(good[:-1] if damage == "shorter" else b"")
        assert named(store) == [name]
        path.write_bytes(good)


def test_what_is_damaged_is_told_with_what_to_do(store: LocalStore) -> None:
    (label,) = os.listdir(store.local("labels"))
    names = [f"labels/{label}", CATALOG_FILE]
    for name in names:
        store.local(name).write_bytes(b"{}")
    with pytest.raises(StoreCorrupt) as caught:
        require_whole(verified(store), store)
    assert caught.value.exit_code == 6
    assert caught.value.item.splitlines() == names
    assert "runs name" in caught.value.remedy
    assert "written anew" in caught.value.remedy


def test_what_is_no_damage_is_noted(store: LocalStore) -> None:
    (rank,) = store.local("artifacts/rank").iterdir()
    for name in ("rankings.damaged", "more.parquet", ".rankings.parquet.1-2-3.tmp", "notes.txt"):
        (rank / name).write_text("x")
    store.put_text("exports/run/a.trec", "x")
    notes = {Path(note.item).name: note.told for note in verified(store).notes}
    assert named(store) == []
    assert "set aside" in notes["rankings.damaged"]
    assert "nothing vouches" in notes["more.parquet"]
    assert "killed" in notes[".rankings.parquet.1-2-3.tmp"]
    assert "not ours" in notes["notes.txt"]
    assert "no receipt" in notes["run"]


def test_what_was_made_of_other_bytes_is_noted(store: LocalStore) -> None:
    (old,) = store.local("artifacts/rerank").glob("*/manifest.json")
    told = json.loads(old.read_text())
    scored = Artifact(store, "rerank", old.parent.name)
    identity = Identity(**{k: v for k, v in told["identity"].items() if k != "store_format"})
    old.unlink()
    scored.write_part("scores", pa.table({"x": [0]}))
    Artifact.of(store, identity).finish(identity, ["scores"])
    (note,) = [one for one in verified(store).notes if "other bytes" in one.told]
    assert note.item.startswith("artifacts/rank/")


def test_a_store_that_is_not_there_is_no_whole_one(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="no store"):
        verified(LocalStore(tmp_path / "none"))


def test_a_file_that_cannot_be_read_is_found(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> str:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr("tasks.upkeep.verify.sha256_of", fail)
    faults = verified(store).faults
    assert {fault.damage for fault in faults} == {"it cannot be read: Input/output error"}


def test_a_model_with_a_flipped_bit_is_found(store: LocalStore, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shipped = shipped_model("stage1")
    write_checkpoint(model, read_config(shipped), read_tensors(shipped))
    notes = verify(store, [model], ()).notes
    assert notes[-1].item == str(model)
    assert "nothing here was made with it" in notes[-1].told
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-99] ^= 4
    weights.write_bytes(content)
    (fault,) = verify(store, [model], ()).faults
    assert fault.item == str(weights)
