"""What a section of the page is made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cir_core.protocols import PROTOCOLS, Protocol
from storage.answers import OpenCatalog
from storage.views import Evaluated
from tasks.results.album import MOST_FILES, Album
from tasks.results.wording import of_run


@dataclass(frozen=True)
class Source:
    """A run: its evaluation, its row of ``runs``, the catalog that has its numbers, the folder with
    its images, and how many pictures may lie beside the page (None: all)."""

    evaluated: Evaluated
    run: Mapping[str, Any]
    catalog: OpenCatalog
    root: Path
    pictures: int | None = MOST_FILES

    @property
    def protocol(self) -> Protocol:
        return PROTOCOLS[self.run["protocol"]]

    @property
    def is_reranked(self) -> bool:
        return self.evaluated.is_reranked

    @property
    def of_run(self) -> str:
        """The condition that a row is this run's."""
        return of_run(self.run)

    @cached_property
    def album(self) -> Album:
        """Of the run's images."""
        return Album(self.evaluated.ingested.read("images"), self.root)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        return self.catalog.rows(sql)
