"""What a run leaves beside its artifacts: files, made of its evaluation, with one receipt."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cir_core.planning.disk import Counts
from cir_core.planning.effort import Effort, Forecast
from cir_core.ports import Widths
from storage.manifests import digest
from storage.products import Product
from storage.runs import probes_of
from storage.views import Evaluated


@dataclass(frozen=True)
class Output(ABC):
    """Files that are there already or to be made, of one run or of all of its store."""

    evaluated: Evaluated

    name: ClassVar[str]
    missing: ClassVar[str]
    """Why it is made: in a few words what is not there."""

    seconds_per_pair: ClassVar[float]
    """Measured with two million pairs (docs/performance.md)."""

    @property
    @abstractmethod
    def product(self) -> Product:
        """The files; ``content_of`` the evaluation is their source, by run id."""

    @abstractmethod
    def write(self) -> Mapping[str, str]:
        """Write the files; gives the content of each run that they are made of."""

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        """As ``Stage.effort``."""
        return forecast.tables()

    @staticmethod
    @abstractmethod
    def disk(counts: Counts, widths: Widths) -> int:
        """As ``Stage.disk``."""

    @property
    def is_done(self) -> bool:
        """Whether the files are what was written of this run, as the store has it."""
        evaluated = self.evaluated
        return evaluated.is_whole and self.product.holds(evaluated.run_id, content_of(evaluated))

    @property
    def files(self) -> tuple[Path, ...]:
        """Where they are on this machine."""
        return self.product.paths


def content_of(evaluated: Evaluated) -> str:
    """A digest of all that outputs tell of a run: its evaluation's content, and that of its label
    and of its probes if it has them. Raises as ``Artifact.content``, and asks as ``probes_of``: the
    caller holds the store."""
    probed = probes_of(evaluated)
    return labelled_content(evaluated, *([] if probed is None else [probed.content]))


def labelled_content(evaluated: Evaluated, *others: str) -> str:
    """The same without probes, but with others' contents. It writes nothing."""
    label = evaluated.label.text
    told = [*([label] if label else []), *others]
    return digest([evaluated.content, *told]) if told else evaluated.content


def folder_of(evaluated: Evaluated) -> str:
    """Where the files of one run are in its store."""
    return f"reports/{evaluated.run_id}"


def make_output(output: Output) -> tuple[str, ...]:
    """Write the files if they are not there; the output's name if they were not."""
    if output.is_done:
        return ()
    write_output(output)
    return (output.name,)


def write_output(output: Output) -> None:
    """Write the files, whatever is there, and then their receipt."""
    sources = output.write()
    output.product.record(sources)  # of the files that there are now
