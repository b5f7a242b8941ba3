"""The arithmetic of docs/scale.md: 100 million images and a million queries, on paper.

    python benchmarks/scale.py                                   # the page's tables
    python benchmarks/scale.py --images 10000000 --queries 100000 --gpu-hour 2.5

Unit costs are the constants of ``scale_costs.py``, each with its source. Prices are assumptions of
the page, to be replaced by one's own.
"""

from typing import Annotated, NamedTuple

import scale_costs as cost
import typer
from scale_task import Prices, Table, Task

from cir_core.search.faiss_index import PROBED_SHARE

HOUR, GB = 3600, 1e9

KS = 50, 100

ByK = tuple[float, float]

OTHERWISE = "of it", "instead"
"""In the names of what is a part of another row, or in the place of one: in no sum."""

PHOTOS = "photos, below the data root"


def work(task: Task) -> Table:
    """What there is to do."""
    asked = task.parts * (cost.PUTS + cost.GETS + cost.DELETES)
    waited = asked * cost.REQUEST / HOUR
    rows = [
        ["images; queries", *[f"{task.images:,}; {task.queries:,}"] * 2],
        ["pairs", *(f"{task.pairs(k):,}" for k in KS)],
        ["images that are candidates, at most", *(f"{task.seen(k) / 1e6:.1f} million" for k in KS)],
        ["shards of 256 images; parts of artifacts", *[f"{task.shards:,}; {task.parts:,}"] * 2],
        ["FLOPs of exact search", *[f"{task.compared:.1e}"] * 2],
        ["a bucket's requests; in turn, at 20 ms", *[f"{asked:,}; {waited:.0f} h"] * 2],
    ]
    return Table(["", *(f"K = {k}" for k in KS)], rows)


class Lying(NamedTuple):
    """On a disk: the bytes of each, how many there are, and how that is known."""

    what: str
    size: int
    number: int
    label: str = "measured"

    @property
    def gigabytes(self) -> float:
        return self.size * self.number / GB


def lying(task: Task) -> list[Lying]:
    pairs = task.pairs(KS[-1])
    return [
        Lying("images and gallery: ids, paths, sha256", cost.IMAGE_ROW, task.images),
        Lying("embeddings, float32[256]", cost.EMBEDDING, task.images),
        Lying("fp16 instead: not built", 2 * cost.WIDTH, task.images, "counted"),
        Lying("z_t, a query", cost.Z_T, task.queries, "counted"),
        Lying(f"candidates, K = {KS[-1]}", cost.CANDIDATE, pairs),
        Lying("scores", cost.SCORE, pairs),
        Lying("rankings", cost.RANKING, pairs),
        Lying("catalog, the old and the new: a candidate and an image", 2 * cost.CATALOG, pairs),
        Lying("manifests", cost.RECEIPT, task.parts),
        Lying(PHOTOS, cost.PHOTO, task.images, "assumed"),
        Lying("kept image tokens instead, fp32: never", cost.TOKENS, task.images, "counted"),
    ]


def stored(task: Task) -> Table:
    rows = [
        [one.what, f"{one.size:,}", f"{one.number:,}", f"{one.gigabytes:,.1f}", one.label]
        for one in lying(task)
    ]
    return Table(["what", "bytes each", "number", "GB", "bytes are"], rows)


class Hours(NamedTuple):
    """What a stage takes, by K: hours of a GPU with its cores, or of cores; and how its speed is
    known."""

    stage: str
    gpu: ByK = (0.0, 0.0)
    core: ByK = (0.0, 0.0)
    label: str = "measured"


def hours(task: Task) -> list[Hours]:
    """Stage by stage."""

    def both(seconds: float) -> ByK:
        return seconds / HOUR, seconds / HOUR

    def pairs(each: float) -> ByK:
        return task.pairs(KS[0]) * each / HOUR, task.pairs(KS[1]) * each / HOUR

    def again(speed: float) -> ByK:
        return task.seen(KS[0]) / speed / HOUR, task.seen(KS[1]) / speed / HOUR

    ingested = task.images * (cost.INGESTED + cost.PHOTO / cost.HASHED)
    searched = task.compared / cost.SEARCHED
    probed = task.compared / PROBED_SHARE / cost.PROBED + task.clustered / cost.CLUSTERED
    return [
        Hours("ingest, one process", core=both(ingested)),
        Hours("encode: decoding and ViT, bf16", both(task.images / cost.FED)),
        Hours("of it the ViT, were photos decoded in no time", both(task.images / cost.BARE)),
        Hours("encode in fp32 instead", both(task.images / cost.FED_FP32)),
        Hours("fuse", both(task.queries / cost.ASKED), label="assumed"),
        Hours("retrieve, exact, one process", core=both(searched)),
        Hours("ranks of all targets, at most, the same", core=both(searched)),
        Hours("retrieve by ivf instead, its lists included", core=both(probed), label="scaled"),
        Hours("rerank: images again, bf16, at most", again(cost.FED)),
        Hours("rerank: pairs, bf16", pairs(1 / cost.SCORED)),
        Hours("pairs in fp32 instead", pairs(1 / cost.SCORED_FP32)),
        Hours("rank, one process", core=pairs(cost.RANKED)),
        Hours("evaluate, one process", core=pairs(cost.EVALUATED)),
        Hours("publish, one process", core=pairs(cost.PUBLISHED)),
        Hours("ranked.jsonl and .parquet, own data", core=pairs(cost.TAKEN)),
        Hours("commits of parts", core=both(task.parts * cost.COMMITTED)),
    ]


def is_summed(what: str) -> bool:
    return not any(word in what for word in OTHERWISE)


def taken(task: Task) -> Table:
    rows = [
        [one.stage, *(f"{hour:,.2f}" if hour else "" for hour in (*one.gpu, *one.core)), one.label]
        for one in hours(task)
    ]
    head = [f"{kind} hours, K = {k}" for kind in ("GPU", "core") for k in KS]
    return Table(["stage", *head, "speed is"], rows)


def dollars(task: Task, prices: Prices) -> Table:
    """Of a run from nothing, and of a month in which it is kept."""
    stages = [one for one in hours(task) if is_summed(one.stage)]
    kept = sum(one.gigabytes for one in lying(task) if is_summed(one.what))
    photos = task.images * cost.PHOTO / GB
    bills = [
        ("GPU hours", [sum(one.gpu[k] for one in stages) for k in (0, 1)], prices.gpu_hour),
        ("core hours", [sum(one.core[k] for one in stages) for k in (0, 1)], prices.core_hour),
        ("a month of the store, GB", [kept - photos] * 2, prices.gb_month),
        ("a month of the photos, GB", [photos] * 2, prices.gb_month),
        ("thousand puts, in a bucket", [task.parts * cost.PUTS / 1000] * 2, prices.puts),
        ("thousand gets and heads", [task.parts * cost.GETS / 1000] * 2, prices.gets),
    ]
    rows = [
        [what, f"{price:g}", *(f"{each:,.0f}: {each * price:,.0f}" for each in numbers)]
        for what, numbers, price in bills
    ]
    return Table(["what", "dollars each", *(f"number: dollars, K = {k}" for k in KS)], rows)


def limits(task: Task) -> Table:
    """Where memory and 32-bit offsets end, in images, where queries and pairs grow with them."""
    queries, pairs = task.queries / task.images, task.pairs(KS[-1]) / task.images
    several = f"{cost.PROCESSES} processes on a machine"
    reranking = cost.RERANKING + cost.ROW * pairs + 2 * cost.Z_T * queries
    each = [
        (f"rerank, {several}", cost.PROCESSES * reranking),
        (f"encode, {several}: lists of pictures", cost.PROCESSES * cost.ENCODING),
        ("retrieve: embeddings as they are read", cost.VECTORS),
        ("rerank, one process: the lists, rows, z_t twice", reranking),
        ("ingest: images as Python objects", cost.INGESTING),
        ("evaluate", cost.EVALUATING * pairs),
        ("publish", cost.PUBLISHING * pairs),
        ("rank", cost.RANKING_ROW * pairs),
    ]
    ends = [(what, cost.MEMORY / size, f"{size:,.0f} bytes an image") for what, size in each]
    ends += [
        ("**all after ingest**: sha256 as text", 2**31 / 64, "2 GiB an Arrow array: 64 bytes each"),
        ("all after ingest: ids of 21 bytes", 2**31 / 21, "the same"),
    ]
    ends.sort(key=lambda one: one[1])
    rows = [[what, f"{count / 1e6:,.1f} million", why] for what, count, why in ends]
    return Table(["what ends", "at images", "because of"], rows)


def tables(task: Task, prices: Prices) -> list[Table]:
    """Those of the page, in its order."""
    return [work(task), stored(task), taken(task), dollars(task, prices), limits(task)]


def main(
    images: Annotated[int, typer.Option(min=1)] = Task.images,
    queries: Annotated[int, typer.Option(min=1)] = Task.queries,
    gpu_hour: Annotated[float, typer.Option(help="Dollars.")] = Prices.gpu_hour,
    core_hour: Annotated[float, typer.Option(help="Dollars.")] = Prices.core_hour,
    gb_month: Annotated[float, typer.Option(help="Dollars.")] = Prices.gb_month,
    puts: Annotated[float, typer.Option(help="Dollars a thousand.")] = Prices.puts,
    gets: Annotated[float, typer.Option(help="Dollars a thousand.")] = Prices.gets,
) -> None:
    """The page's tables, of so many images and queries at these prices."""
    prices = Prices(gpu_hour, core_hour, gb_month, puts, gets)
    print(*tables(Task(images, queries), prices), sep="\n\n")


if __name__ == "__main__":
    typer.run(main)
