"""Ray, begun on this machine or found elsewhere. What it reads from the environment it reads when
it is imported, so that this is before."""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cir_core.errors import PreflightError
from flows.engines.library import require_listener

if TYPE_CHECKING:
    from flows.engines.ray_library import Ray

NO_TELEMETRY = {"RAY_USAGE_STATS_ENABLED": "0"}

ON_LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux, too: else it listens on all interfaces
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # GPUs are given to our processes, not to Ray's
}
"""And a token of its own lets nobody else's process in; Ray would keep one in the home."""


@contextmanager
def local(workers: int) -> Iterator["Ray"]:
    """A cluster of this machine, which nobody reaches from outside; its files go with it."""
    token = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # of a short name: those of its sockets have 107 characters at most
    with (
        _environment(NO_TELEMETRY | ON_LOOPBACK | token),
        TemporaryDirectory(prefix="cir-ray-") as scratch,
    ):
        import ray

        from flows.engines.ray_library import Ray

        ray.init(
            num_cpus=workers,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            _temp_dir=scratch,
        )
        try:
            yield Ray(a_worker_per_cpu=True)
        finally:
            ray.shutdown()


@contextmanager
def connected(address: str) -> Iterator["Ray"]:
    """A running one. Raises PreflightError when nobody answers there."""
    require_listener("Ray", address)
    with _environment(NO_TELEMETRY):
        import ray
        from ray.exceptions import RayError

        from flows.engines.ray_library import Ray

        try:
            ray.init(address, log_to_driver=False, logging_level=logging.WARNING)
        except (OSError, ValueError, RuntimeError, RayError) as error:
            raise PreflightError(
                "no Ray cluster answers",
                item=address,
                cause=str(error).strip().splitlines()[0],
                remedy="pass the address that `ray start --head` tells: host:6379 on a machine of "
                "the cluster, ray://host:10001 elsewhere",
            ) from error
        try:
            yield Ray(a_worker_per_cpu=False)
        finally:
            ray.shutdown()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """With these meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
