"""Every index by worked examples: order, cuts, removed references, refusals, missing FAISS."""

import sys
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from cir_core.errors import CirError, NonFiniteError, PreflightError, UsageError
from cir_core.search import indexes
from cir_core.search.blocks import map_blocks
from cir_core.search.candidates import NONE_REMOVED, Candidates
from cir_core.search.choice import IndexChoice, IndexKind
from cir_core.search.indexes import open_index, require_available
from cir_core.search.ranks import target_ranks
from cir_core.search.scores import Gallery, error_bound, near_scores, pair_scores

pytestmark = pytest.mark.numeric

EXACT = IndexChoice()
CHOICES = [EXACT, IndexChoice("flat"), IndexChoice("ivf")]
every_index = pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.kind)


def vectors(rows: list[list[float]], width: int = 1) -> np.ndarray:
    return np.array(rows, dtype=np.float32).reshape(-1, width)


def unit(rng: np.random.Generator, count: int, width: int = 256) -> np.ndarray:
    drawn = rng.standard_normal((count, width)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def ask(
    gallery: np.ndarray,
    queries: np.ndarray,
    choice: IndexChoice = EXACT,
    *,
    k: int,
    removed: list[int] | None = None,
) -> Candidates:
    out = np.array(removed or [NONE_REMOVED] * len(queries), dtype=np.int64)
    return open_index(Gallery(gallery), choice).search(queries, k=k, removed=out)


@every_index
def test_a_cut_inside_a_tie_keeps_the_lower_gallery_rows(choice: IndexChoice) -> None:
    found = ask(vectors([[0], [1], [1], [2], [1], [1]]), vectors([[1]]), choice, k=3)
    assert found.images.tolist() == [3, 1, 2]
    assert found.ranks.tolist() == [1, 2, 3]
    assert found.scores.tolist() == [2, 1, 1]


@every_index
def test_a_removed_reference_gives_its_place_to_the_next(choice: IndexChoice) -> None:
    gallery, queries = vectors([[2], [2], [1]]), vectors([[1], [1]])
    found = ask(gallery, queries, choice, k=2, removed=[0, NONE_REMOVED])
    assert found.queries.tolist() == [0, 0, 1, 1]
    assert found.images.tolist() == [1, 2, 0, 1]


@every_index
def test_fewer_than_k_images_are_all_returned(choice: IndexChoice) -> None:
    assert ask(vectors([[1], [2]]), vectors([[1]]), choice, k=50).images.tolist() == [1, 0]


@every_index
def test_one_image_answers_but_for_its_own_query(choice: IndexChoice) -> None:
    found = ask(vectors([[1]]), vectors([[1], [-1]]), choice, k=3, removed=[0, NONE_REMOVED])
    assert (found.queries.tolist(), found.images.tolist()) == ([1], [0])
    assert (found.ranks.tolist(), found.scores.tolist()) == ([1], [-1])


@every_index
@pytest.mark.parametrize(("images", "queries"), [(0, 2), (2, 0), (0, 0)])
def test_no_queries_or_no_gallery_no_candidates(
    choice: IndexChoice, images: int, queries: int
) -> None:
    found = ask(np.ones((images, 3)), np.ones((queries, 3)), choice, k=3)
    assert [len(column) for column in vars(found).values()] == [0, 0, 0, 0]


@every_index
@pytest.mark.parametrize("side", ["query", "gallery"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_no_numbers_are_refused(
    choice: IndexChoice, side: str, value: float
) -> None:
    asked = {"query": np.ones((2, 3)), "gallery": np.ones((4, 3))}
    asked[side][1, 2] = value
    with pytest.raises(NonFiniteError, match=f"{side} embeddings are"):
        ask(asked["gallery"], asked["query"], choice, k=1)


@every_index
def test_scores_that_would_overflow_are_refused(choice: IndexChoice) -> None:
    with pytest.raises(NonFiniteError, match="overflow"):
        ask(vectors([[1e20], [1]]), vectors([[1e20]]), choice, k=1)


@pytest.mark.parametrize(("queries", "images"), [(1, 10), (7, 33), (100, 100)])
def test_equal_embeddings_tie_wherever_they_stand(queries: int, images: int) -> None:
    """A matrix product may round the same row differently in different columns."""
    rng = np.random.default_rng(0)
    gallery, twins = unit(rng, images), [0, images // 2, images - 1]
    gallery[twins] = gallery[0]
    found = ask(gallery, unit(rng, queries), k=images)
    for query in range(queries):
        mine = found.images[found.queries == query].tolist()
        first = mine.index(0)
        assert mine[first : first + 3] == twins
        assert len(set(found.scores[found.queries == query][first : first + 3].tolist())) == 1


def test_a_score_does_not_depend_on_its_neighbours() -> None:
    rng = np.random.default_rng(1)
    queries, gallery = unit(rng, 15, width=37), unit(rng, 700, width=37)
    rows = rng.integers(0, 15, 1000), rng.integers(0, 700, 1000)
    together = pair_scores(queries, gallery, *rows)
    for place in (0, 1, 255, 256, 999):
        query, image = queries[[rows[0][place]]], gallery[[rows[1][place]]]
        alone = pair_scores(query, image, np.array([0]), np.array([0]))
        assert together[place] == alone[0]


def test_near_scores_lie_within_the_error_bound() -> None:
    rng = np.random.default_rng(2)
    queries, gallery = 3 * unit(rng, 20), Gallery(unit(rng, 1500))
    nothing = np.full(20, NONE_REMOVED)
    near = np.concatenate([one.copy() for _, one in near_scores(queries, gallery, nothing)], axis=1)
    rows = np.divmod(np.arange(near.size), near.shape[1])
    exact = pair_scores(queries, gallery.vectors, *rows).reshape(near.shape)
    distance = np.abs(near.astype(np.float64) - exact)
    assert (distance <= error_bound(queries, gallery)[:, None]).all()
    assert distance.max() > 0


# --- targets


def rank_targets(gallery: np.ndarray, found: Candidates, targets: list[int]) -> list[int]:
    """Of a query that is 1."""
    ranks = target_ranks(
        vectors([[1]]),
        Gallery(gallery),
        found,
        removed=np.array([NONE_REMOVED]),
        target_queries=np.zeros(len(targets), dtype=np.int64),
        target_images=np.array(targets, dtype=np.int64),
    )
    return list(ranks.tolist())


def test_a_target_beyond_the_candidates_is_counted() -> None:
    gallery = vectors([[0], [1], [1], [2], [1], [1]])
    found = ask(gallery, vectors([[1]]), k=3)
    assert rank_targets(gallery, found, [5, 3, 4, 0, 2]) == [5, 1, 4, 6, 3]
    assert rank_targets(gallery, found, []) == []


def test_a_target_that_an_index_missed_comes_after_what_it_found() -> None:
    gallery = vectors([[4], [3], [2], [1]])
    found = Candidates(np.array([0, 0]), np.array([1, 3]), np.array([1, 2]), np.array([3.0, 1.0]))
    assert rank_targets(gallery, found, [0, 1, 2, 3]) == [3, 1, 3, 2]


# --- indexes an index


@pytest.mark.parametrize(
    ("kind", "lists", "probes", "told"),
    [
        ("exact", 4, None, "has neither lists nor probes"),
        ("flat", None, 2, "has neither lists nor probes"),
        ("gpu", 4, 2, "has neither lists nor probes"),
        ("ivf", 4, 5, "5 of 4 lists cannot be probed"),
        ("ivf", 0, None, "--nlist is 0"),
        ("ivf", None, -1, "--nprobe is -1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    kind: IndexKind, lists: int | None, probes: int | None, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        IndexChoice(kind, lists, probes)


def test_what_changes_candidates_is_part_of_their_identity() -> None:
    choices = [
        *CHOICES,
        IndexChoice("gpu"),
        IndexChoice("ivf", 4),
        IndexChoice("ivf", 4, 2),
        IndexChoice("ivf", None, 2),
    ]
    named = [tuple(choice.settings().items()) for choice in choices]
    assert len(set(named)) == len(choices)
    assert IndexChoice().settings() == {"index": "exact"}


def test_more_lists_than_the_gallery_can_teach_are_refused() -> None:
    with pytest.raises(UsageError, match="4 lists are too many for a gallery of 155") as refused:
        open_index(Gallery(np.ones((155, 2))), IndexChoice("ivf", 4))
    assert "--nlist 3 or less" in refused.value.remedy


def test_more_probes_than_lists_look_through_all(capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(3)
    gallery, queries = unit(rng, 100, width=8), unit(rng, 5, width=8)
    exact = ask(gallery, queries, k=7)
    for choice in (IndexChoice("ivf", None, 50), IndexChoice("ivf", 2, 2)):
        assert ask(gallery, queries, choice, k=7).images.tolist() == exact.images.tolist()
    assert capfd.readouterr().err == ""  # FAISS warns there when clusters are too small


def test_few_probes_find_fewer_than_k() -> None:
    rng = np.random.default_rng(4)
    found = ask(unit(rng, 400, 8), unit(rng, 3, 8), IndexChoice("ivf", 10, 1), k=390)
    counts = np.bincount(found.queries)
    assert ((counts > 0) & (counts < 390)).all()
    assert found.ranks.tolist() == [place + 1 for count in counts for place in range(count)]


def test_without_faiss_the_install_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "find_spec", lambda _name: None)
    require_available(IndexChoice())
    for kind, extra in (("flat", "[cpu]"), ("ivf", "[cpu]"), ("gpu", "[gpu]")):
        with pytest.raises(PreflightError, match="FAISS, which is not installed") as refused:
            open_index(Gallery(np.ones((2, 2))), IndexChoice(kind))  # type: ignore[arg-type]
        assert extra in refused.value.remedy


@pytest.mark.parametrize(
    "build",
    [SimpleNamespace(), SimpleNamespace(StandardGpuResources=None, get_num_gpus=lambda: 0)],
    ids=["the CPU build", "no device"],
)
def test_without_a_gpu_the_gpu_index_is_refused(
    monkeypatch: pytest.MonkeyPatch, build: Any
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", build)
    monkeypatch.setattr(indexes, "find_spec", lambda name: ModuleSpec(name, None))
    with pytest.raises(PreflightError, match="FAISS finds no GPU"):
        require_available(IndexChoice("gpu"))


@pytest.fixture
def faiss_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The CPU build, with what the GPU build has beside it; the devices that were asked for."""
    devices: list[int] = []

    def move(_resources: object, device: int, index: Any) -> Any:
        devices.append(device)
        return index

    for name, value in {
        "StandardGpuResources": object,
        "get_num_gpus": lambda: 1,
        "index_cpu_to_gpu": move,
    }.items():
        monkeypatch.setattr(faiss, name, value, raising=False)
    return devices


def test_the_gpu_index_answers_as_the_flat_one(faiss_with_a_gpu: list[int]) -> None:
    rng = np.random.default_rng(5)
    gallery, queries = unit(rng, 50, width=8), unit(rng, 5, width=8)
    flat = ask(gallery, queries, IndexChoice("flat"), k=7)
    gpu = ask(gallery, queries, IndexChoice("gpu"), k=7)
    assert gpu.images.tolist() == flat.images.tolist()
    assert faiss_with_a_gpu == [0]


def test_a_k_beyond_what_gpu_kernels_return_is_refused(faiss_with_a_gpu: list[int]) -> None:
    gallery, queries = np.ones((3000, 1)), np.ones((1, 1))
    assert len(ask(gallery, queries, IndexChoice("gpu"), k=2040).images) == 2040
    with pytest.raises(UsageError, match="2040 candidates at most"):
        ask(gallery, queries, IndexChoice("gpu"), k=2041)


def test_every_refusal_has_a_remedy() -> None:
    for make in (
        lambda: IndexChoice("flat", 1),
        lambda: IndexChoice("ivf", 1, 2),
        lambda: IndexChoice("ivf", 0),
        lambda: open_index(Gallery(np.ones((3, 2))), IndexChoice("ivf", 4)),
    ):
        with pytest.raises(CirError) as refused:
            make()
        assert refused.value.remedy


@pytest.mark.parametrize(("queries", "each"), [(1024, 1), (512, 2), (1, 4)])
def test_blocks_share_the_threads_among_their_products(
    monkeypatch: pytest.MonkeyPatch, queries: int, each: int
) -> None:
    """Of four threads: four blocks at once have one each, a single block all of them. numpy's
    library has threads of its own; libraries on OpenMP count them thread by thread."""
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    blas = ThreadpoolController().select(threading_layer="pthreads")

    def threads(_: slice) -> set[int]:
        return {library["num_threads"] for library in blas.info() if "numpy" in library["filepath"]}

    with blas.limit(limits=4):
        assert map_blocks(threads, queries, most=256) == [{each}] * max(1, queries // 256)
        assert threads(slice(0)) == {4}
