"""Workers of a Dask cluster."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory
from typing import Any

from distributed import Client, LocalCluster

from cir_core.errors import PreflightError
from flows.engines.library import (
    SECONDS_TO_ANSWER,
    SECONDS_TO_CONNECT,
    SECONDS_TO_START,
    Asked,
    Gone,
    require_listener,
)
from tasks.agent import Agent

LOOPBACK = "127.0.0.1"


@contextmanager
def local(workers: int) -> Iterator["Dask"]:
    """In this process, without any port: scheduler and workers are threads, since what they do is
    to start processes and to listen to them."""
    with (
        TemporaryDirectory(prefix="cir-dask-") as scratch,
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=False,
            protocol="inproc://",
            dashboard_address=f"{LOOPBACK}:0",
            worker_dashboard_address=f"{LOOPBACK}:0",
            scheduler_kwargs={"dashboard": False},
            local_directory=scratch,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield Dask(client)


@contextmanager
def connected(address: str) -> Iterator["Dask"]:
    """A running one. Raises PreflightError when nobody answers there."""
    require_listener(Dask.noun, address)
    try:
        client = Client(address, timeout=SECONDS_TO_CONNECT)
    except (OSError, ValueError) as error:
        raise PreflightError(
            "no Dask scheduler answers",
            item=address,
            cause=str(error) or type(error).__name__,
            remedy="pass the address that `dask scheduler` tells, such as tcp://10.0.0.1:8786",
        ) from error
    with client:
        yield Dask(client)


class Dask:
    """See ``Library``. A GPU is a worker's own, which was started with it."""

    noun = "Dask"

    def __init__(self, client: Client) -> None:
        self._client = client

    def places(self, *, on_gpu: bool) -> Mapping[str, int]:
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        return {place: worker["nthreads"] for place, worker in workers.items()}

    def agent(self, place: str, *, on_gpu: bool) -> "DaskAgent":
        return DaskAgent(self, self._client, place)


class DaskAgent(Asked):
    """See ``Distant``."""

    def __init__(self, cluster: Dask, client: Client, place: str) -> None:
        self._cluster, self._place = cluster, place
        self._future = client.submit(
            Agent, actor=True, pure=False, workers=[place], allow_other_workers=False
        )
        try:
            self._actor = self._future.result(timeout=SECONDS_TO_START)
        except ImportError as error:
            raise PreflightError(
                "a worker of the cluster does not have this pipeline",
                item=place,
                cause=str(error),
                remedy="start it in an environment in which cir-pipeline is installed",
            ) from error
        except (OSError, RuntimeError) as error:
            raise Gone(str(error)) from error

    def _ask(self, method: str, *given: Any) -> Any:
        try:
            answer = getattr(self._actor, method)(*given)
            while True:
                with suppress(TimeoutError):
                    return answer.result(timeout=SECONDS_TO_ANSWER)
                if self._place not in self._cluster.places(on_gpu=False):
                    raise Gone("the worker is not there any more")
        except (OSError, RuntimeError, ValueError) as error:
            raise Gone(str(error)) from error
