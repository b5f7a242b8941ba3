"""Section ``queries``: queries to look at."""

from typing import Any

from tasks.results.album import Album
from tasks.results.report.source import Source
from tasks.results.samples import samples


def queries(source: Source) -> list[dict[str, Any]]:
    album = Album(source.evaluated.ingested.read("images"), source.root)
    return samples(source.catalog, source.evaluated.run_id, album, reranked=source.is_reranked)
