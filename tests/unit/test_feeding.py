"""Pixels on their way to a model: the same whoever decodes, in order, ahead but not too far."""

import os
import pickle
import shutil
import signal
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cir_core import errors
from cir_core.errors import CirError, ImageProblem, PreflightError, WorkerLost
from cir_core.layers.preprocess import Preprocess, prepare
from storage.sources.images import sha256_of_bytes
from tasks.feed.decode import ImageFile
from tasks.feed.image_tokens import Sight
from tasks.feed.lookahead import ahead, prepared
from tasks.feed.pixels import Pixels, batches, feed_pixels, load_pixels
from tasks.feed.upload import Upload
from tests.support.processes import children

SIZE = 24
PICTURES = Preprocess(SIZE)
CPU = torch.device("cpu")
BROKEN, WARNED = 3, 8
SIZES = [(40, 30), (30, 40), (24, 24), (60, 20), (7, 90), (1, 1)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with 21 pictures; one breaks off, one makes Pillow warn."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for row in range(21):
        width, height = SIZES[row % len(SIZES)]
        picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        if row == WARNED:
            picture = picture.convert("P")
            picture.info["transparency"] = bytes(range(256))
        picture.save(root / f"{row:02d}.png")
    broken = root / f"{BROKEN:02d}.png"
    broken.write_bytes(broken.read_bytes()[:-60])
    return root


def ingested(root: Path) -> list[ImageFile]:
    return [
        ImageFile(path.stem, path.name, sha256_of_bytes(path.read_bytes()))
        for path in sorted(root.iterdir())
    ]


def feed(root: Path, plan: list[list[int]], workers: int) -> list[Pixels]:
    files = ingested(root)
    with feed_pixels(root, files, plan, PICTURES, device=CPU, workers=workers) as fed:
        return list(fed)


@pytest.fixture
def started() -> Callable[[], list[int]]:
    """The processes that have been started since, and run still: others' may stay, as a
    library's that counts what is shared."""
    before = children()
    return lambda: [one for one in children() if one not in before]


# --- decoded


def test_pixels_are_the_same_whoever_decodes_them(drawn: Path) -> None:
    """Batches of all sizes: below, at and above what a worker takes at a time."""
    plan = [[0], list(range(1, 12)), [15, 13], [12, 14], list(range(16, 21)), [BROKEN]]
    alone = feed(drawn, plan, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none may arise here; there, nobody would hear it
        beside = feed(drawn, plan, 2)
    for rows, one, other in zip(plan, alone, beside, strict=True):
        assert one.rows == other.rows == [row for row in rows if row != BROKEN]
        assert one.problems.keys() == other.problems.keys() == {BROKEN} & set(rows)
        assert torch.equal(one.pixels, other.pixels)
        for row, crop in zip(one.rows, one.pixels, strict=True):
            with Image.open(drawn / f"{row:02d}.png") as picture:
                assert np.array_equal(crop.numpy(), prepare(picture.copy(), SIZE))
    told = [str(batches_of[1].problems[BROKEN]) for batches_of in (alone, beside)]
    assert told[0] == told[1]
    assert alone[1].problems[BROKEN].kind == "truncated"


def test_a_few_files_at_once_are_numbered_as_asked(drawn: Path) -> None:
    files = ingested(drawn)
    loaded = load_pixels(drawn, [files[2], files[BROKEN], files[5]], PICTURES)
    assert (loaded.rows, [*loaded.problems]) == ([0, 2], [1])
    assert torch.equal(loaded.pixels, feed(drawn, [[2, 5]], 0)[0].pixels)


def test_nothing_asked_starts_nothing(drawn: Path, started: Callable[[], list[int]]) -> None:
    assert feed(drawn, [], 2) == []
    assert started() == []


@pytest.mark.parametrize("workers", [0, 1])
def test_what_must_stop_does_so_in_its_turn_and_whole(
    drawn: Path, tmp_path: Path, workers: int
) -> None:
    """What was decoded before it is still delivered."""
    root = shutil.copytree(drawn, tmp_path / "images")
    files = ingested(root)
    (root / "10.png").write_bytes(b"another")
    (root / "18.png").unlink()
    plan = [[0, 1], [9, 10, 11]]
    with feed_pixels(root, files, plan, PICTURES, device=CPU, workers=workers) as fed:
        assert next(fed).rows == [0, 1]
        with pytest.raises(PreflightError) as changed:
            next(fed)
    assert (changed.value.item, changed.value.exit_code) == ("10.png", 4)
    assert "at rest" in changed.value.remedy
    with (
        feed_pixels(root, files, [[17, 18]], PICTURES, device=CPU, workers=workers) as fed,
        pytest.raises(ImageProblem) as missing,
    ):
        next(fed)
    assert (missing.value.kind, missing.value.item) == ("missing", "18.png")


def test_a_killed_worker_is_a_clear_error(drawn: Path, started: Callable[[], list[int]]) -> None:
    plan = [[row] for row in range(21) if row != BROKEN]
    with feed_pixels(drawn, ingested(drawn), plan, PICTURES, device=CPU, workers=1) as fed:
        next(fed)
        (worker,) = started()
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(WorkerLost) as lost:
            list(fed)
    assert lost.value.exit_code == 10
    assert "signal 9" in lost.value.cause
    assert "--workers 0" in lost.value.remedy
    assert started() == []


def test_a_consumer_that_gives_up_leaves_no_process(
    drawn: Path, started: Callable[[], list[int]]
) -> None:
    plan = [[row] for row in range(21) if row != BROKEN]
    with (
        suppress(KeyboardInterrupt),
        feed_pixels(drawn, ingested(drawn), plan, PICTURES, device=CPU, workers=1) as fed,
    ):
        next(fed)
        assert len(started()) == 1
        raise KeyboardInterrupt
    assert started() == []


@given(count=st.integers(0, 20), size=st.integers(1, 8))
def test_batches_are_the_rows_in_order(count: int, size: int) -> None:
    cut = batches(range(count), size)
    assert [row for rows in cut for row in rows] == list(range(count))
    assert all(len(rows) == size for rows in cut[:-1])
    assert all(0 < len(rows) <= size for rows in cut)


# --- ahead


@given(count=st.integers(0, 12), most=st.integers(1, 5))
def test_work_is_begun_in_order_and_never_more_than_agreed(count: int, most: int) -> None:
    begun: list[int] = []

    def submit(item: int) -> "Future[int]":
        begun.append(item)
        future: Future[int] = Future()
        future.set_result(item * item)
        return future

    for used, result in enumerate(ahead(submit, range(count), most)):
        assert result == used * used
        assert begun == list(range(min(used + most, count)))
    assert begun == list(range(count))


def test_the_next_is_made_while_the_last_is_used() -> None:
    with prepared(lambda item: item + 1, [1, 2, 3]) as made:
        assert list(made) == [2, 3, 4]


def test_what_has_not_begun_is_dropped() -> None:
    made: list[int] = []
    with prepared(made.append, range(50)) as results:
        next(results)
    assert len(made) <= 2


# --- to the device


def test_on_the_cpu_nothing_is_copied() -> None:
    upload = Upload(CPU)
    filled = upload.buffer(2, 3, dtype=torch.uint8)
    sent = upload.send(filled)
    assert upload.claim(sent).data_ptr() == filled.data_ptr()


def test_on_a_gpu_a_stream_of_its_own_copies_and_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With stand-ins for what only a GPU has: in which order is it asked?"""
    told: list[str] = []
    device: Any = SimpleNamespace(type="cuda")
    stream = SimpleNamespace(synchronize=lambda: told.append("waited"))

    class Sent:
        def to(self, where: Any, *, non_blocking: bool) -> "Sent":
            assert (where, non_blocking) == (device, True)
            told.append("copied")
            return self

        def record_stream(self, current: str) -> None:
            told.append(f"recorded for {current}")

    def pinned(shape: tuple[int, ...], **settings: Any) -> Any:
        assert settings == {"dtype": torch.uint8, "pin_memory": True}
        return shape

    monkeypatch.setattr("torch.cuda.Stream", lambda _: stream)
    monkeypatch.setattr("torch.cuda.stream", lambda _: nullcontext())
    monkeypatch.setattr("torch.cuda.current_stream", lambda _: "the model's")
    monkeypatch.setattr("torch.empty", pinned)
    upload, sent = Upload(device), Sent()
    assert upload.buffer(2, 3, dtype=torch.uint8) == (2, 3)
    upload.claim(upload.send(sent))  # type: ignore[arg-type]
    assert told == ["copied", "waited", "recorded for the model's"]


# --- errors between processes


def test_every_error_is_whole_in_another_process() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    family = [kind for kind in kinds if issubclass(kind, CirError) and kind is not ImageProblem]
    told = {"item": "a.jpg", "cause": "why", "remedy": "what now"}
    made = [kind("what", **told) for kind in family]
    for error in [*made, ImageProblem("empty", "what", item="a.jpg", cause="why")]:
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), vars(again), again.args) == (type(error), vars(error), error.args)
        assert str(again) == str(error)


# --- as many at once as memory has room for


class SmallMemory:
    """An encoder that has room for so many pictures, and remembers how many it was shown."""

    device = CPU

    def __init__(self, room: int) -> None:
        self.room, self.shown = room, list[int]()

    def see(self, pixels: torch.Tensor) -> torch.Tensor:
        self.shown.append(len(pixels))
        if len(pixels) > self.room:
            torch.empty(2**55)  # what a CPU that has no memory raises
        return pixels.flatten(1).float()


def test_out_of_memory_halves_the_pictures_at_once_for_good(
    caplog: pytest.LogCaptureFixture,
) -> None:
    encoder = SmallMemory(room=4)
    sight: Any = Sight(encoder)  # type: ignore[arg-type]  # no more of an encoder is used
    pixels = torch.arange(9 * 2 * 2 * 3, dtype=torch.uint8).reshape(9, 2, 2, 3)
    for _ in range(2):
        assert sight.see(pixels).equal(pixels.flatten(1).float())
    assert sight.see(pixels[:0]).shape == (0, 12)
    assert encoder.shown == [9, 4, 4, 1, 4, 4, 1, 0]
    assert caplog.messages == ["out of memory: going on with 4 pictures at a time"]


def test_out_of_memory_with_one_picture_is_told() -> None:
    sight: Any = Sight(SmallMemory(room=0))  # type: ignore[arg-type]
    with pytest.raises(PreflightError, match="too small to encode a single picture"):
        sight.see(torch.zeros((5, 2, 2, 3), dtype=torch.uint8))
