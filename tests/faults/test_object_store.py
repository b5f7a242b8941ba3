"""A bucket has no locks and no renames, and a network in between: what a store in one promises."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from obstore.exceptions import GenericError

from cir_core.errors import (
    ImageProblem,
    PreflightError,
    ProblemsFound,
    StoreBusy,
    StoreFailing,
    UsageError,
)
from storage import leases
from storage.artifacts import Artifact
from storage.catalog import query
from storage.identities import Identity
from storage.object_store import ObjectStore
from storage.objects import Objects
from storage.sources.images import read_image
from storage.sources.looks import Looks
from storage.store import open_store
from tasks.upkeep.listing import list_artifacts
from tasks.upkeep.verify import verify
from tests.support.buckets import bucket_store, url_of
from tests.support.small_benchmarks import FIQ_CATEGORIES, Bench, Finished

pytestmark = pytest.mark.usefixtures("s3")

IDENTITY = Identity("rank", 1, {}, {})


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return bucket_store(tmp_path)


@pytest.fixture
def elsewhere(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], ObjectStore]:
    """From now on the store as another machine has it: without copies."""

    def go() -> ObjectStore:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
        return store

    return go


def text(content: str) -> Callable[[Path], None]:
    def write_text(path: Path) -> None:
        path.write_text(content)

    return write_text


def write(store: ObjectStore, numbers: list[int]) -> Artifact:
    artifact = Artifact.of(store, IDENTITY)
    artifact.write_part("rows", pa.table({"x": numbers}))
    return artifact


# --- names and bytes


@pytest.mark.parametrize("where", ["s3://b/p", "s3:/b/p", Path("s3://b/p")])
def test_a_bucket_is_named_by_its_url(where: str) -> None:
    """A ``Path`` has made one slash of two."""
    assert str(open_store(Path(where))) == "s3://b/p"


@pytest.mark.parametrize("where", ["gs://b/p", "http://b/p", "s3x://b"])
def test_other_urls_are_refused(where: str) -> None:
    with pytest.raises(UsageError, match="no such kind of place"):
        open_store(Path(where))


def test_a_part_has_its_digest_in_its_name(store: ObjectStore) -> None:
    """So the bytes that a receipt promises are never replaced by another writer's."""
    one = write(store, [1])
    receipt = store.read_text(f"artifacts/rank/{one.fingerprint}/rows.receipt.json")
    write(store, [2])
    names = store.names(f"artifacts/rank/{one.fingerprint}")
    digest = json.loads(receipt)["sha256"][:16]
    assert f"rows.{digest}.parquet" in names
    assert len(names) == 3, "both parts, and the receipt of the last"
    one.finish(IDENTITY, ["rows"])
    assert one.read("rows")["x"].to_pylist() == [2]
    assert len(store.names(f"artifacts/rank/{one.fingerprint}")) == 2


def test_what_another_machine_has_put_is_fetched_and_what_it_removed_goes(
    store: ObjectStore, elsewhere: Callable[[], ObjectStore]
) -> None:
    store.put("f/a", text("one"))
    here = store.local("f/a")
    assert here.read_text() == "one"
    elsewhere().put("f/a", text("two"))
    there = store.local("f/a")
    assert there != here
    assert there.read_text() == "two"


def test_a_copy_of_other_bytes_is_fetched_again(store: ObjectStore) -> None:
    store.put("f/a", text("one"))
    copy = store.local("f/a")
    Objects(str(store)).put("f/a", b"two")  # as another machine does
    assert store.local("f/a").read_text() == "two"
    copy.unlink()
    assert store.local("f/a").read_text() == "two"
    Objects(str(store)).remove("f/a")
    assert not store.local("f/a").exists()


def test_a_folder_is_replaced_whole(store: ObjectStore) -> None:
    def fill(*names: str) -> Callable[[Path], None]:
        def write_files(folder: Path) -> None:
            for name in names:
                (folder / name).write_text(name)

        return write_files

    store.put_folder("f/pictures", fill("a", "b"))
    store.put_folder("f/pictures", fill("b", "c"))
    assert store.names("f/pictures") == ["b", "c"]
    assert sorted(path.name for path in store.local_folder("f/pictures").iterdir()) == ["b", "c"]


# --- a run


def test_a_run_in_a_bucket_has_the_bytes_of_one_in_a_folder(
    fiq: Bench, fiq_run: Finished, tmp_path: Path, elsewhere: Callable[[], ObjectStore]
) -> None:
    where = Path(url_of(tmp_path))
    run = fiq.run(where)
    assert run.run_id == fiq_run.run.run_id
    mine = {path.name.split(".")[0]: path for path in run.artifacts["rank"].folder.iterdir()}
    theirs = fiq_run.run.artifacts["rank"].folder / "rankings.parquet"
    assert mine["rankings"].read_bytes() == theirs.read_bytes()
    elsewhere()
    again = fiq.run(where)
    assert again.made == (), "all of it is in the bucket"
    rows = "SELECT * FROM recall ORDER BY ALL"
    assert query(again.catalog, rows) == query(fiq_run.run.catalog, rows)
    found = verify(open_store(where), (), ())
    assert (found.faults, found.notes) == ((), ())
    assert {one.state for one in list_artifacts(open_store(where))} == {"whole"}
    pictures = again.report.with_name("pictures")
    assert again.report.read_bytes() == run.report.read_bytes()
    assert len([*pictures.iterdir()]) == len([*run.report.with_name("pictures").iterdir()])


# --- who holds it


def test_a_second_run_is_told_who_holds_it(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.1)
    monkeypatch.setattr(leases, "_machine", lambda: "another")
    with store.lease(), pytest.raises(StoreBusy, match="another run holds"), store.lease():
        pass
    assert store.holder() is None


def test_a_holder_of_another_machine_that_is_silent_is_dead(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.04)
    monkeypatch.setattr(leases, "PATIENCE", 0.2)
    left = {"host": "far", "process": 7, "began": 1, "machine": "x", "lease": "y", "beat": 3}
    store.put_text(leases.NAME, json.dumps(left))
    assert store.holder() == "7 on far"
    with store.lease():
        assert store.holder() is not None
        assert "7 on far is dead" in caplog.text
    assert store.holder() is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_lease_of_no_meaning_is_taken_over(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.04)
    monkeypatch.setattr(leases, "PATIENCE", 0.2)
    store.put_text(leases.NAME, content)
    with store.lease():
        assert store.holder() is not None


def test_who_has_lost_the_lease_writes_nothing_more(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was cut off for longer than others waited."""
    monkeypatch.setattr(leases, "BEAT", 0.05)
    with store.lease():
        store.put_text("a", "mine")
        Objects(str(store)).put(leases.NAME, b'{"process": 1, "host": "far"}')
        while not leases._lost:
            time.sleep(0.01)
        for write_again in (
            lambda: store.put_text("a", "late"),
            lambda: store.put_new("b", "late"),
            lambda: store.put("c", text("late")),
            lambda: store.put_part("d", text("late")),
            lambda: store.put_folder("e", lambda folder: None),
        ):
            with pytest.raises(StoreBusy, match="not held any more"):
                write_again()
    assert store.read_text("a") == "mine"
    assert store.holder() == "1 on far", "another's lease is not given back"
    assert not leases._lost


# --- a server that fails


def test_no_bucket() -> None:
    store = ObjectStore("s3://no-such-bucket/x")
    for ask in (
        lambda: store.names("f"),
        lambda: store.put_text("f/a", ""),
        lambda: store.lease().__enter__(),
    ):
        with pytest.raises(PreflightError, match="no such bucket"):
            ask()


def test_a_request_that_fails_again_and_again_is_told(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise GenericError("Generic S3 error: 503 Slow Down\n<xml>")

    for name in ("put", "get", "head", "list", "list_with_delimiter", "delete", "copy"):
        monkeypatch.setattr(f"obstore.{name}", fail)
    for ask in (
        lambda: store.put_text("a", ""),
        lambda: store.read_text("a"),
        lambda: store.size("a"),
        lambda: store.names("a"),
        lambda: store.folders("a"),
        lambda: store.has_folder("a"),
        lambda: store.remove("a"),
        lambda: store.set_aside("a"),
        lambda: store.local("a"),
    ):
        with pytest.raises(StoreFailing, match="does not answer") as told:
            ask()
        assert told.value.cause == "Generic S3 error: 503 Slow Down"


def test_a_write_whose_answer_is_lost_is_known_as_ones_own(store: ObjectStore) -> None:
    """The request is sent again, and finds what it has written."""
    objects = Objects(str(store))
    tag = objects.create("a", b"one")
    assert tag is not None
    assert objects.create("a", b"one") == tag
    assert objects.create("a", b"two") is None
    other = objects.replace("a", b"two", tag)
    assert objects.replace("a", b"two", tag) == other
    assert objects.replace("a", b"three", tag) is None


# --- images and annotations in a bucket


def upload(root: Path, url: str) -> None:
    objects = Objects(url)
    for path in root.rglob("*"):
        if path.is_file():
            objects.put(path.relative_to(root).as_posix(), path)


def test_images_are_read_from_a_bucket(
    fiq: Bench, fiq_run: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They have the hashes, and so the run has the name, of those in a folder."""
    url = f"{url_of(tmp_path)}/data"
    upload(fiq.root, url)
    there = replace(fiq, root=Path(url))
    run = there.run(tmp_path / "store", workers=1)
    assert run.run_id == fiq_run.run.run_id
    assert run.evaluated.content == fiq_run.run.evaluated.content
    assert run.changed == ()
    assert not (tmp_path / "cache").exists(), "images are not kept"
    Objects(url).remove(f"images/{FIQ_CATEGORIES[0]}-00.png")
    with pytest.raises(ProblemsFound, match="1 images"):
        there.run(tmp_path / "another")


def test_an_own_folder_can_be_in_a_bucket(fiq: Bench, tmp_path: Path) -> None:
    folder, url = tmp_path / "own", url_of(tmp_path)
    shutil.copytree(fiq.root / "images", folder / "photos")
    name = min(path.name for path in (folder / "photos").iterdir())
    (folder / "queries.csv").write_text(f"reference,text\nphotos/{name},is red\n")
    (folder / "cir-dataset.toml").write_text('name = "mine"\n')
    (folder / "photos" / ".hidden.png").write_bytes(b"")
    upload(folder, url)
    ingested = [
        replace(fiq, dataset="own", root=root, categories=())
        .run(tmp_path / "store", until="encode")
        .artifacts["ingest"]
        for root in (folder, Path(url))
    ]
    assert ingested[0] == ingested[1]
    assert ingested[1].read("gallery").num_rows == len([*(fiq.root / "images").iterdir()])


def test_an_object_that_changes_meanwhile_is_told(tmp_path: Path) -> None:
    url = url_of(tmp_path)
    objects = Objects(url)
    for name in ("f/a", "f/b", "f/c"):
        objects.put(name, b"one")
    looks = Looks(Path(url))
    for name in ("f/a", "f/b", "f/c", "f/none"):
        looks.note(name)
    objects.put("f/a", b"one")
    objects.put("f/b", b"two")
    objects.remove("f/c")
    assert looks.differing() == ["f/b", "f/c"], "the same bytes have the same tag"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("none.png", "missing"),
        ("a//b.png", "missing"),
        ("./a.png", "missing"),
        ("empty.png", "empty"),
        ("../a.png", "unsafe_path"),
        ("/a.png", "unsafe_path"),
        ("large.png", "too_large"),
    ],
)
def test_a_bad_object_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    url = url_of(tmp_path)
    objects = Objects(url)
    objects.put("empty.png", b"")
    objects.put("large.png", b"12345")
    monkeypatch.setattr("storage.sources.images.MOST_BYTES", 4)
    with pytest.raises(ImageProblem) as told:
        read_image(Path(url), name)
    assert told.value.kind == kind
