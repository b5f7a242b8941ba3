"""The disk that a run takes, against the bytes of a finished one."""

from cir_core.families import PUBLISHED_RETRIEVER
from cir_core.planning.disk import Counts
from cir_core.ports import Widths
from flows.graph import STAGES
from tasks.results.report.report import Report
from tests.support.small_benchmarks import Finished


def bytes_needed(counts: Counts, widths: Widths) -> int:
    return sum(stage.disk(counts, widths) for stage in STAGES)


def test_each_part_by_hand() -> None:
    """4 bytes a number, 200 a row, 52 + 2 · 64 + 290 a pair; 2 MB of report, 450 a query
    and 12,000 a picture there; and what `analyse` adds, a query's ranks, and 8 dropped images of 28
    bytes each."""
    counts = Counts(images=10, queries=3, tokens=40, pairs=30, kept=2, ranked=30)
    widths = Widths(embedding=8, z_t=16, image=5 * 12)
    report = 2_000_000 + 450 * 3 + 12_000 * 10
    vectors, z_t, kept, rows, pairs = 4 * 8 * 13, 4 * 16 * 40, 4 * 60 * 2, 200 * 13, 470 * 30
    probes = (36 + 8 * 28) * 3
    assert bytes_needed(counts, widths) == vectors + z_t + kept + rows + pairs + report + probes


def test_fashion_iqs_validation_at_its_published_size_is_some_hundred_megabytes() -> None:
    """15,415 images, 6,016 queries of 14 tokens, K = 100; most of it is z_t, and pictures."""
    counts = Counts(images=15_415, queries=6_016, tokens=6_016 * 14, pairs=601_600)
    assert 530e6 < bytes_needed(counts, PUBLISHED_RETRIEVER.widths) < 640e6


def test_the_derived_bytes_of_vectors_and_z_t_are_those_on_the_disk(fiq_run: Finished) -> None:
    retrieved = fiq_run.run.evaluated.candidates
    encoded, fused = retrieved.encoded, retrieved.fused
    vectors, queries = encoded.read("embeddings"), fused.read("queries")
    lengths = sum(queries["length"].to_pylist())
    width = len(queries["z_t"][0].as_py()) // 4 // queries["length"][0].as_py()
    embedding = vectors["embedding"].type.list_size
    counts = Counts(vectors.num_rows, queries.num_rows, lengths, 0)
    needed = bytes_needed(counts, Widths(embedding, width, 0)) - Report.disk(
        counts, Widths(0, 0, 0)
    )
    counted = sum(len(value.as_py()) for value in queries["z_t"])
    counted += 4 * embedding * (vectors.num_rows + queries.num_rows)
    probes = 260 * queries.num_rows
    assert needed - 200 * (vectors.num_rows + queries.num_rows) - probes == counted
