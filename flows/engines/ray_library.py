"""Workers of a Ray cluster, once it is connected."""

from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flows.engines.library import SECONDS_TO_ANSWER, SECONDS_TO_START, Asked, Gone
from tasks.agent import Agent


class Ray:
    """See ``Library``. A worker is a GPU, or a machine with all of its CPUs; its place is the
    machine's id, and a number on it."""

    noun = "Ray"

    def __init__(self, *, a_worker_per_cpu: bool) -> None:
        self._a_worker_per_cpu = a_worker_per_cpu

    def places(self, *, on_gpu: bool) -> Mapping[str, int]:
        places = dict[str, int]()
        for node in ray.nodes():
            resources = node["Resources"] if node["Alive"] else {}
            cpus = int(resources.get("CPU", 0))
            workers = int(resources.get("GPU", 0)) if on_gpu else min(cpus, 1)
            if self._a_worker_per_cpu:
                workers = cpus
            places |= {f"{node['NodeID']}/{one}": cpus // workers for one in range(workers)}
        return places

    def agent(self, place: str, *, on_gpu: bool) -> "RayAgent":
        threads = self.places(on_gpu=on_gpu).get(place)
        if threads is None:
            raise Gone("the machine is not there any more")
        return RayAgent(place, cpus=0 if on_gpu else threads, gpus=int(on_gpu))


class RayAgent(Asked):
    """See ``Distant``. Ray gives it its GPU, and no other's."""

    def __init__(self, place: str, *, cpus: int, gpus: int) -> None:
        node = NodeAffinitySchedulingStrategy(place.partition("/")[0], soft=False)
        options = {"num_cpus": cpus, "num_gpus": gpus, "scheduling_strategy": node}
        agents: Any = ray.remote(Agent)
        self._actor = agents.options(max_restarts=0, **options).remote()
        try:
            self._ask("end", seconds=SECONDS_TO_START)
        except Gone:
            self.dismiss()
            raise

    def dismiss(self) -> None:
        ray.kill(self._actor)

    def _ask(self, method: str, *given: Any, seconds: float = SECONDS_TO_ANSWER) -> Any:
        try:
            return ray.get(getattr(self._actor, method).remote(*given), timeout=seconds)
        except RayTaskError as error:
            raise Gone(str(error.cause)) from error
        except GetTimeoutError as error:
            raise Gone(f"no answer within {seconds:.0f} s; its machine may be busy") from error
        except RayActorError as error:
            raise Gone(str(error).splitlines()[0]) from error
