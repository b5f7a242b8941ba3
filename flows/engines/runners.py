"""Whose workers share the shards of a run, as its settings say."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from types import ModuleType

from cir_core.errors import PreflightError, UsageError
from flows.engines.clusters import Cluster, Local
from flows.engines.processes import Processes
from flows.engines.scouting import Needs
from flows.engines.sharing import Workers
from flows.inputs import Inputs
from flows.settings import Settings

MODULES = {"dask": "distributed", "ray": "ray"}
"""What each extra installs."""


Opening = AbstractContextManager[Workers]
"""Workers that are there, and ready, while it is open."""


def open_workers(settings: Settings, inputs: Inputs) -> Opening:
    """As the settings say. Raises UsageError for some that contradict each other, and as ``here``
    and ``elsewhere``."""
    _require_meant(settings)
    if settings.runner == "processes":
        return nullcontext(Processes())
    if settings.address is None:
        return here(settings.runner, inputs.machine.processes)
    return elsewhere(settings.runner, settings.address, _needs(inputs), settings.processes)


@contextmanager
def here(runner: str, processes: int) -> Iterator[Workers]:
    """So many of this machine. Raises PreflightError when the runner is not installed."""
    with ExitStack() as stack:
        yield Local(_module(runner).local(processes), stack)


@contextmanager
def elsewhere(runner: str, address: str, needs: Needs, most: int | None) -> Iterator[Workers]:
    """Those of a running cluster, at most so many. Raises PreflightError when the runner is not
    installed, nobody answers, there is no worker, or one cannot do this run's work."""
    with _module(runner).connected(address) as library, ExitStack() as stack:
        workers = Cluster(library, needs, most)
        stack.callback(workers.dismiss)
        yield workers


def _require_meant(settings: Settings) -> None:
    if settings.address is None:
        return
    if settings.runner == "processes":
        raise UsageError(
            "--address is a cluster's",
            cause="processes are of this machine",
            remedy="pass --runner dask or --runner ray with it",
        )
    if settings.devices is not None:
        raise UsageError(
            "--devices are this machine's",
            cause="each worker of a cluster has its own GPU",
            remedy="leave out --devices; pass --device cuda",
        )


def _module(name: str) -> ModuleType:
    if find_spec(MODULES[name]) is None:
        raise PreflightError(
            f"--runner {name} is not installed",
            remedy=f"pip install 'cir-pipeline[{name}]'; --runner processes needs nothing",
        )
    if name == "dask":
        from flows.engines import dask_runner

        return dask_runner
    from flows.engines import ray_runner

    return ray_runner


def _needs(inputs: Inputs) -> Needs:
    files = [*inputs.models.values(), inputs.data_root]
    on_gpu = inputs.machine.device.startswith("cuda")
    return Needs(inputs.store, tuple(one for one in files if one.exists()), on_gpu)
