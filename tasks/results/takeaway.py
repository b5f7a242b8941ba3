"""A run's rankings as files to take away: JSONL and Parquet, beside its report."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from cir_core.planning.disk import Counts
from cir_core.ports import Widths
from storage.products import Product
from storage.tables import write_jsonl, write_table
from tasks.results.ranking_rows import ranking_rows, read_rankings
from tasks.stages.output import Output, content_of, folder_of

VERSION = 1
FILES = ("ranked.jsonl", "ranked.parquet")


@dataclass(frozen=True)
class Takeaway(Output):
    """``ranked.jsonl`` and ``ranked.parquet`` in ``<store>/reports/<run>/``: a row per query, pool
    and candidate, in the order of the queries and of the final ranks.

    Text and ids decode to the very characters that came in; a score reads as the same number.
    Where nothing was re-ranked, the order is stage 1's and there is no score of stage 2.
    Queries that could not be asked have no rows; they are in the table ``problems``.
    """

    name = "ranked"
    missing = "no sound files of this run"
    seconds_per_pair = 8e-6

    @property
    def product(self) -> Product:
        store, folder = self.evaluated.store, folder_of(self.evaluated)
        return Product(store, folder, "ranked", str(VERSION), FILES)

    def write(self) -> Mapping[str, str]:
        evaluated = self.evaluated
        queries = evaluated.ingested.read("queries")
        table = ranking_rows(queries, read_rankings(evaluated))
        for file, write in zip(FILES, (write_jsonl, write_table), strict=True):
            evaluated.store.put(f"{folder_of(self.evaluated)}/{file}", partial(write, table=table))
        return {evaluated.run_id: content_of(evaluated)}

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        """290 bytes of a pair, measured: 244 of JSON with short ids, and Parquet's."""
        return 290 * counts.ranked
