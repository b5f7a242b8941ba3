"""What a comparison is asked to do, beside where runs and their images lie."""

from typing import Annotated

from pydantic import BaseModel, Field, PositiveInt

from cir_core.submissions.formats import Stage
from flows.about import About
from flows.settings import DECLARED, HomePath


class ComparisonSettings(BaseModel):
    """``changes_results`` means the comparison's numbers. Defaults of ``rounds`` and
    ``persistence`` are those of ``Asked``, to which a test holds them: its import takes numpy."""

    model_config = DECLARED

    runs: Annotated[
        tuple[str, ...],
        About(
            "Names, or first digits of ids, of two runs or more; the first is compared with each.",
            changes_results=True,
            positional=True,
        ),
    ] = ()
    tags: Annotated[
        tuple[str, ...],
        About(
            "Beside these, the runs that have this tag; all of them, if repeated.",
            changes_results=True,
            default="none",
            flags=("--tag",),
        ),
    ] = ()
    stage: Annotated[
        Stage | None, About("Whose order.", changes_results=True, default="each run's last")
    ] = None
    anyway: Annotated[
        bool,
        About(
            "Also runs of another protocol, split or gallery: the queries that they share.",
            changes_results=True,
            flags=("--anyway",),
        ),
    ] = False
    rounds: Annotated[PositiveInt, About("Of tests that are drawn.", changes_results=True)] = 19_999
    persistence: Annotated[
        Annotated[float, Field(ge=0.01, le=0.999)],
        About("p of rank-biased overlap: near 1 for deep lists.", changes_results=True),
    ] = 0.9
    out: Annotated[
        HomePath | None,
        About("Folder to write into.", changes_results=False, default="one in STORE/reports"),
    ] = None
