"""What an ablation is asked to do beside what its file declares."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from flows.about import About
from flows.settings import DECLARED, HomePath, Settings


class AblationSettings(BaseModel):
    """``data`` are settings of the runs that the rows share; the file's ``[data]`` stands in for
    those that are not set."""

    model_config = DECLARED

    config: Annotated[
        HomePath,
        About("The ablation: a .toml file of its rows.", changes_results=True, flags=("--config",)),
    ]
    out: Annotated[
        HomePath,
        About("Folder of the rows' trainings.", changes_results=False),
    ] = Path("ablation")
    data: Annotated[
        Settings,
        About("What a run takes too: dataset, split, store and so on.", changes_results=True),
    ] = Field(default_factory=Settings)
