"""What else lies in a store's artifacts: left alone, left out, and never a traceback."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cir_core.errors import StoreCorrupt, UsageError
from storage import manifests
from storage.artifacts import Artifact
from storage.identities import Identity
from storage.listings import finished, left_out
from storage.runs import find_run, read_as_ours
from storage.store import LocalStore
from storage.views import Evaluated

IDENTITY = Identity("evaluate", 1, {"protocol": "demo", "k": 5}, {})


def make(store: Path, identity: Identity = IDENTITY) -> Artifact:
    artifact = Artifact.of(LocalStore(store), identity)
    artifact.finish(identity, [])
    return artifact


def make_other(store: Path, *, without: str = "", **identity: Any) -> str:
    """The fingerprint of an artifact that a version writes which differs in this."""
    manifest = json.loads(manifests.render(IDENTITY.as_json() | identity, {}, {}))
    del manifest["checksum"]
    manifest.pop(without, None)
    fingerprint = manifests.digest(manifest["identity"])[:32]
    folder = store / "artifacts" / "evaluate" / fingerprint
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(manifests.seal(manifest))
    return fingerprint


def test_foreign_files_in_an_artifact_stay_and_its_own_leftovers_go(tmp_path: Path) -> None:
    folder = make(tmp_path).folder
    ours = ["rows-9.receipt.json", ".rows-9.parquet.1.tmp", "rows-8.parquet", "manifest.damaged"]
    foreign = [".DS_Store", "._rows-9.parquet", "notes.txt"]
    for name in ours + foreign:
        (folder / name).write_text("x")
    (folder / "@eaDir").mkdir()
    (folder / "old.parquet").mkdir()
    assert Artifact.of(LocalStore(tmp_path), IDENTITY).is_done
    left = {path.name for path in folder.iterdir()}
    assert left == {*foreign, "@eaDir", "old.parquet", "manifest.json"}


def test_what_is_no_artifact_is_no_run(tmp_path: Path) -> None:
    run = make(tmp_path)
    stage = run.folder.parent
    (stage / ".DS_Store").write_text("x")
    (stage / "@eaDir").mkdir()
    (stage / "odd" / "manifest.json").mkdir(parents=True)
    shutil.copytree(run.folder, stage / "copy of it")
    shutil.copytree(run.folder, stage / run.fingerprint[:8])
    half = stage / ("0" * 32)
    half.mkdir()
    (half / "manifest.json").write_text('{"identity": {')
    assert [one.fingerprint for one in finished(LocalStore(tmp_path), "evaluate")] == [
        run.fingerprint
    ]
    assert find_run(LocalStore(tmp_path), None).fingerprint == run.fingerprint
    assert len(list(stage.iterdir())) == 7


@pytest.mark.parametrize("change", [{"without": "sources"}, {"store_format": 2}, {"settings": []}])
def test_another_versions_run_is_left_out_and_refused_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: dict[str, Any]
) -> None:
    run, other = make(tmp_path), make_other(tmp_path, **({"version": 7} | change))
    assert [one.fingerprint for one in left_out(LocalStore(tmp_path), "evaluate")] == [other]
    assert find_run(LocalStore(tmp_path), None).fingerprint == run.fingerprint
    assert other[:12] in caplog.text
    with pytest.raises(StoreCorrupt, match="another version") as caught:
        find_run(LocalStore(tmp_path), other[:12])
    assert caught.value.exit_code == 6
    with pytest.raises(UsageError):
        find_run(LocalStore(tmp_path), "nosuchrun")


def test_a_run_that_lacks_what_is_read_is_named(tmp_path: Path) -> None:
    run = make(tmp_path)
    with (
        pytest.raises(StoreCorrupt, match="another version") as caught,
        read_as_ours(Evaluated(run.store, run.fingerprint)),
    ):
        run.identity()["inputs"]["ingest"]
    assert caught.value.item == str(run.folder)
    assert "ingest" in caught.value.cause
