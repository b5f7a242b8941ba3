"""What finished runs need stays; the rest goes when it is asked for, manifests first."""

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from cir_core.errors import UsageError
from storage import manifests
from storage.artifacts import Artifact
from storage.garbage import Wish, finished_runs, garbage, needed_by, remove
from storage.identities import Identity
from storage.labels import Label, write_label
from storage.store import LocalStore
from storage.survey import Key, survey
from storage.views import run_id_of
from tasks.upkeep.listing import list_artifacts, measure


class Made:
    """A store with two runs that share what stage 1 has seen, the second of which is evaluated with
    stage 1 alone; and what others have left. Artifacts by names."""

    def __init__(self, root: Path) -> None:
        self.store = LocalStore(root)
        self.keys: dict[str, Key] = {}
        images = {"images": "im"}
        self.make("ingest", "ingest", images)
        self.make("encode", "encode", {**images, "model": "m1"})
        self.make("tokens", "tokens", {**images, "vision": "v"})
        self.make("pair", "pair", {"stage1": "m1", "stage2": "m2"})
        for number in ("1", "2"):
            self.make(f"retrieve{number}", "retrieve", self.inputs("ingest", "encode"))
        self.make("rerank", "rerank", {**self.inputs("retrieve1"), "model": "m2"})
        self.make("rank", "rank", self.inputs("retrieve1", "rerank"))
        self.make("run1", "evaluate", self.inputs("ingest", "retrieve1", "rank"))
        self.make("run2", "evaluate", self.inputs("ingest", "retrieve2"))
        self.make("probe", "probe", self.inputs("run1", "encode"))

    def inputs(self, *names: str) -> dict[str, str]:
        return dict(self.keys[name] for name in names)

    def begin(self, name: str, stage: str, inputs: dict[str, str]) -> tuple[Artifact, Identity]:
        identity = Identity(stage, 1, {"name": name}, inputs)
        artifact = Artifact.of(self.store, identity)
        artifact.write_part("rows", pa.table({"x": [1, 2, 3]}))
        self.keys[name] = (stage, identity.fingerprint)
        return artifact, identity

    def make(self, name: str, stage: str, inputs: dict[str, str]) -> None:
        artifact, identity = self.begin(name, stage, inputs)
        artifact.finish(identity, ["rows"])

    def run_id(self, name: str) -> str:
        return run_id_of(self.keys[name][1])

    def wasted(self, runs: Sequence[str] = (), **wish: bool) -> set[str]:
        """Names of artifacts; of what is none, the item."""
        names = {f"artifacts/{stage}/{one}": name for name, (stage, one) in self.keys.items()}
        found = garbage(survey(self.store), Wish([self.keys[run] for run in runs], **wish))
        return {names.get(one.item, one.item) for one in found}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def test_what_finished_runs_need_is_never_garbage(made: Made) -> None:
    assert made.wasted() == set()
    assert made.wasted(interrupted=True) == set()
    assert made.wasted(tokens=True) == {"tokens"}


def test_a_run_that_is_given_up_leaves_what_others_need(made: Made) -> None:
    write_label(made.store, made.run_id("run1"), Label("first"))
    page, label = f"reports/{made.run_id('run1')}", f"labels/{made.run_id('run1')}.json"
    made.store.put_text(f"{page}/index.html", "x")
    made.store.put_text(f"exports/{made.run_id('run1')}/a.trec", "x")
    mine = {"run1", "rank", "rerank", "retrieve1", "probe"}
    assert made.wasted(["run1"]) == mine | {page, label}
    assert made.wasted(["run2"]) == {"run2", "retrieve2"}
    everything = {*made.keys} | {page, label}
    assert made.wasted(["run1", "run2"]) == everything - {"pair", "tokens"}
    assert made.wasted(["run1", "run2"], interrupted=True) == everything


def test_a_run_that_calibrates_another_is_not_given_up_alone(made: Made) -> None:
    made.make("threshold", "threshold", made.inputs("run2", "encode"))
    made.make("retrieve3", "retrieve", made.inputs("ingest", "encode", "threshold"))
    made.make("run3", "evaluate", made.inputs("ingest", "retrieve3"))
    with pytest.raises(UsageError, match="calibrates") as caught:
        made.wasted(["run2"])
    assert caught.value.item == made.run_id("run2")
    both = made.wasted(["run2", "run3"])
    assert both == {"run2", "run3", "retrieve2", "retrieve3", "threshold"}


def test_what_an_interrupted_run_has_begun_stays_with_what_it_is_made_of(made: Made) -> None:
    made.make("other", "encode", {"images": "other", "model": "m1"})
    made.make("retrieve4", "retrieve", made.inputs("ingest", "other"))
    made.begin("rerank4", "rerank", {**made.inputs("retrieve4"), "model": "m2"})
    made.make("kept", "tokens", {"images": "other", "vision": "v"})
    assert made.wasted() == set()
    assert made.wasted(interrupted=True) == {"other", "retrieve4", "rerank4", "kept"}
    found = survey(made.store)
    known = found.inputs_of(found.artifacts[made.keys["rerank4"]])
    assert [one.key for one in known] == [made.keys["retrieve4"]]


def test_what_another_version_made_goes_unless_it_has_a_label(made: Made) -> None:
    identity = Identity("evaluate", 1, {"k": 9}, {}).as_json() | {"store_format": 2}
    fingerprint = manifests.digest(identity)[:32]
    folder = f"artifacts/evaluate/{fingerprint}"
    made.store.put_text(f"{folder}/manifest.json", manifests.render(identity, {}, {}))
    assert made.wasted() == {folder}
    write_label(made.store, run_id_of(fingerprint), Label("old"))
    assert made.wasted() == set()


def test_what_nobody_reads_goes(made: Made) -> None:
    rank = "/".join(("artifacts", *made.keys["rank"]))
    gone = [f"{rank}/rows.damaged", f"{rank}/more.parquet", f"{rank}/.rows.parquet.1-2-3.tmp"]
    gone += [f"sittings/rank/{'0' * 32}/1.json"]
    for name in (*gone, f"{rank}/notes.txt", f"{rank}/.rows.parquet.{os.getpid()}.txt"):
        path = made.store.local(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    half = f"artifacts/rank/{'1' * 32}"
    made.store.put_text(f"{half}/rows.parquet", "x")
    assert made.wasted() == {*gone, half}
    remove(made.store, garbage(survey(made.store), Wish()))
    assert made.wasted() == set()
    assert not made.store.has_folder(half)
    assert sorted(os.listdir(made.store.local(rank)))[-2:] == ["notes.txt", "rows.parquet"]


def test_a_removal_that_is_killed_leaves_nothing_half_believed(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whichever file it is killed: no run is left whose inputs are gone, no artifact whose parts
    are, and once the manifests are gone, the next removal finds the rest by itself."""
    waste = garbage(survey(made.store), Wish([made.keys["run1"]]))
    removed: list[str] = []

    def note(store: LocalStore, name: str) -> None:
        LocalStore.remove(store, name)
        removed.append(name)
        found = survey(store)
        for one in found.artifacts.values():
            if one.state == "whole":
                assert {*one.inputs.values()} - {"im", "m1", "m2", "v"} <= {
                    key[1] for key, other in found.artifacts.items() if other.state == "whole"
                }
                assert one.files.keys() == {"manifest.json", "rows.parquet"}

    class Noting(LocalStore):
        def remove(self, name: str) -> None:
            note(LocalStore(self.root), name)

    remove(Noting(made.store.root), waste)
    assert len(removed) == 2 * 5
    assert {name.rpartition("/")[2] for name in removed[:5]} == {"manifest.json"}
    assert made.wasted() == set()


def test_runs_share_what_both_need(made: Made) -> None:
    found = survey(made.store)
    run1, run2 = (found.artifacts[made.keys[name]] for name in ("run1", "run2"))
    assert {one.key for one in finished_runs(found)} == {run1.key, run2.key}
    shared = needed_by(found, run1) & needed_by(found, run2)
    assert shared == {made.keys["ingest"], made.keys["encode"]}
    usage = measure(made.store)
    uses = {one.run_id: one for one in usage.runs}
    sizes = {one.key: one.bytes for one in found.artifacts.values()}
    assert {one.shared for one in uses.values()} == {sum(sizes[key] for key in shared)}
    alone = ("run2", "retrieve2")
    assert uses[made.run_id("run2")].own == sum(sizes[made.keys[name]] for name in alone)
    assert usage.unneeded == sizes[made.keys["tokens"]] + sizes[made.keys["pair"]]
    assert usage.bytes == sum(sizes.values()) + sum(usage.beside.values())
    assert sum(stage.bytes for stage in usage.stages) == sum(sizes.values())


def test_artifacts_are_listed_with_the_runs_that_need_them(made: Made) -> None:
    write_label(made.store, made.run_id("run1"), Label("first"))
    made.begin("begun", "rerank", {"model": "m3"})
    listed = {(one.stage, one.fingerprint): one for one in list_artifacts(made.store)}
    assert listed.keys() == {*made.keys.values()}
    encode, begun = listed[made.keys["encode"]], listed[made.keys["begun"]]
    assert {*encode.runs} == {"first", made.run_id("run2")}
    assert (encode.parts, encode.rows, encode.state) == (1, 3, "whole")
    assert (begun.parts, begun.rows, begun.state, begun.runs) == (1, 3, "begun", ())
