"""Flows: compose tasks, read settings, talk to the terminal. The only layer that knows Prefect."""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

LAYERS = ("flows", "tasks", "storage", "cir_core")
"""The packages of this application, each with loggers of its name."""


def _import_neighbours() -> None:
    """The layers below, from where this one lies and whatever else has their names.

    Python puts a script's own folder first on its path, and Prefect runs hooks by a script beside
    which a ``storage.py`` lies.
    """
    for name in LAYERS:
        if name not in sys.modules:
            spec = PathFinder.find_spec(name, [str(Path(__file__).parents[1])])
            if spec is None or spec.loader is None:
                raise ModuleNotFoundError(f"{name} does not lie beside {__name__}", name=name)
            module = sys.modules[name] = module_from_spec(spec)
            spec.loader.exec_module(module)


_import_neighbours()
