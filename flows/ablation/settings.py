"""What an ablation is asked to do beside what its file declares."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from flows.about import About
from flows.origins import resolve, with_folder
from flows.settings import DECLARED, HomePath, Settings, in_home


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


def parse_ablation(
    flags: Mapping[str, Any], environment: Mapping[str, str], **values: Any
) -> AblationSettings:
    """The flags that a run has too, resolved as a run's, and the ablation's own ``values``. What
    its file says of ``[data]`` is over the environment and ``cir.toml``, and below flags, so here
    it is not set. Raises UsageError listing every mistake at once."""
    found = resolve(flags, environment)
    config = in_home(Path(values["config"]))
    declared = with_folder(_data_in(config))
    kept = {
        name: getattr(found.settings, name)
        for name in found.settings.model_fields_set
        if name not in declared or found.origins[name] == "flag"
    }
    return AblationSettings(data=Settings(**kept), **values)


def _data_in(config: Path) -> dict[str, Any]:
    """Nothing of a file that cannot be read: whoever reads all of it says why."""
    try:
        data = tomllib.loads(config.read_text(encoding="utf-8-sig")).get("data")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}
    return data if isinstance(data, dict) else {}
