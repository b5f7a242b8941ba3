"""Can a run work here? Libraries, devices, the models, the store, and what the environment says."""

import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from urllib.parse import urlsplit

import torch
from packaging.requirements import Requirement
from torch import Tensor

from cir_core.doctor.findings import Finding, State, blocked
from cir_core.errors import CheckpointRefused, PreflightError
from cir_core.families import (
    check_folder,
    require_fit,
    small_retriever,
)
from cir_core.ports import RerankerConfig, Retriever, RetrieverConfig
from storage.models.weights import differing_tensors, read_shapes
from storage.store import Store
from tasks.models.opening import read_reranker_config, read_retriever_config

PACKAGE = "cir-pipeline"
PART = "environment"

MAKE_SERVER = "from prefect.server.api.server import create_app; create_app(ephemeral=True)"

SERVER_SECONDS = 120
"""The import takes 6 s on a quiet machine."""

DEVICE_TOLERANCE = 1e-4
"""Between processors, of embeddings of unit length computed in fp32."""

OFFLINE_FLAGS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")

MIB = 2**20


def check_environment(variables: Mapping[str, str]) -> list[Finding]:
    """Versions against what this package asks for, Prefect's server, each device, and variables
    that change how libraries behave."""
    return [
        Finding(PART, "python", "ok", platform.python_version()),
        *_check_packages(),
        _check_server(),
        *_check_devices(),
        *_check_variables(variables),
    ]


def check_store(store: Store, *, bytes_needed: int | None) -> list[Finding]:
    """Whether it can be written, who holds it, and whether the disk can hold what a run adds."""
    writable = store.is_writable
    findings = [
        Finding(
            "store",
            str(store),
            "ok" if writable else "blocked",
            "writable" if writable else "not writable",
            remedy="" if writable else "pass a writable folder with --store",
        )
    ]
    try:
        holder = store.holder()
        held = f"held by process {holder}" if holder else "free"
        findings.append(Finding("store", "lock", "note" if holder else "ok", held))
    except OSError as error:
        findings.append(Finding("store", "lock", "blocked", str(error)))
    except PreflightError as error:
        findings.append(Finding("store", "lock", "blocked", error.cause, remedy=error.remedy))
    free = store.free // MIB
    needed = None if bytes_needed is None else -(-bytes_needed // MIB)
    is_full = needed is not None and free < needed
    remedy = "free space, or name another disk with --store" if is_full else ""
    state: State = "blocked" if is_full else "ok"
    findings.append(Finding("store", "disk, MiB: free, needed", state, free, needed, remedy=remedy))
    return findings


def check_models(stage1: Path | None, stage2: Path | None) -> list[Finding]:
    """Config and tensor shapes of both stages, from their headers; and, tensor by tensor, that they
    hold the same visual encoder, if stage 2 needs that. Whether the weights are finite is left to
    the run. None is a model that was not given."""
    findings = [
        _check_model("stage1", stage1, read_retriever_config),
        _check_model("stage2", stage2, read_reranker_config),
    ]
    if stage1 is None or stage2 is None or any(one.state == "blocked" for one in findings):
        return findings
    try:
        second = read_reranker_config(stage2)
        shares = second.state_width > 0
        differing = differing_tensors(stage1, stage2, "vision.") if shares else []
        require_fit(read_retriever_config(stage1), second, differing)
        found = "one visual encoder" if shares else "stage 2 sees pictures itself"
        findings.append(Finding("models", "pair", "ok", found))
    except CheckpointRefused as error:
        findings.append(blocked("models", "pair", error))
    return findings


def _check_model(
    stage: str, folder: Path | None, read: Callable[[Path], RetrieverConfig | RerankerConfig]
) -> Finding:
    if folder is None:
        remedy = f"pass --{stage}; `cir-pipeline convert` makes one of a published checkpoint"
        return Finding("models", stage, "note", "not given, and a run needs it", remedy=remedy)
    try:
        config = read(folder)
        check_folder(config, read_shapes(folder), str(folder))
    except (CheckpointRefused, PreflightError) as error:
        return blocked("models", stage, error)
    found = f"{config.kind}, {config.pictures.told}"
    return Finding("models", stage, "ok", found, examples=(str(folder),))


def _check_packages() -> list[Finding]:
    """Each package that this one needs, beside the range it asks for."""
    findings = []
    for line in requires(PACKAGE) or ():
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            findings.append(_check_package(wanted))
    return findings


def _check_package(wanted: Requirement) -> Finding:
    expected, remedy = str(wanted.specifier), f"pip install '{wanted}'"
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return Finding(PART, wanted.name, "blocked", "not installed", expected, remedy=remedy)
    if wanted.specifier.contains(found, prereleases=True):
        return Finding(PART, wanted.name, "ok", found, expected)
    return Finding(PART, wanted.name, "problem", found, expected, remedy=remedy)


def _check_server() -> Finding:
    """Whether Prefect's server can be made, in a process of its own: newer releases of its
    libraries break it though pip is content, and the import is slow."""
    check = "Prefect's server"
    try:
        ended = subprocess.run(
            [sys.executable, "-c", MAKE_SERVER],
            capture_output=True,
            text=True,
            timeout=SERVER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding(PART, check, "problem", f"no answer within {SERVER_SECONDS} s")
    if ended.returncode == 0:
        return Finding(PART, check, "ok", "can be started")
    reason = ended.stderr.strip().splitlines()[-1:] or ["no reason given"]
    return Finding(
        PART,
        check,
        "problem",
        "cannot be started",
        examples=tuple(reason),
        remedy="install the versions of constraints.txt; --engine in-process works without",
    )


def _check_devices() -> list[Finding]:
    """A small model of the real architecture on the CPU and, where there is one, on the GPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = small_retriever()
        size = model.encoder.pictures.size
        pixels = torch.randint(256, (2, size, size, 3), dtype=torch.uint8)
    on_cpu = _embed(model, pixels)
    is_sound = bool(torch.isfinite(on_cpu).all())
    told = f"works, {torch.get_num_threads()} threads"
    findings = [
        Finding(PART, "cpu", "ok" if is_sound else "blocked", told if is_sound else "not finite")
    ]
    if not torch.cuda.is_available():
        return [*findings, Finding(PART, "gpu", "note", "none found")]
    name = torch.cuda.get_device_name()
    try:
        difference = float((_embed(model.to("cuda"), pixels.cuda()).cpu() - on_cpu).abs().max())
    except RuntimeError as error:
        remedy = "check the driver, or pass --device cpu"
        cause = str(error).splitlines()[0]
        return [*findings, Finding(PART, "gpu", "problem", name, examples=(cause,), remedy=remedy)]
    state: State = "ok" if difference < DEVICE_TOLERANCE else "problem"
    return [*findings, Finding(PART, "gpu", state, f"{name}, {difference:.1e} off the CPU")]


@torch.inference_mode()
def _embed(model: Retriever, pixels: Tensor) -> Tensor:
    """In true fp32, as the pipeline computes."""
    with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
        return model.embed(model.encoder.see(pixels))


def _check_variables(variables: Mapping[str, str]) -> list[Finding]:
    """What is set, told only: nothing is ever downloaded, so the offline flags change nothing."""
    findings = [
        Finding(PART, name, "note", variables.get(name) or "not set") for name in OFFLINE_FLAGS
    ]
    for name in sorted(variables):
        if name.startswith("PREFECT_"):
            told = _without_secrets(variables[name]) if name == "PREFECT_API_URL" else "set"
            findings.append(Finding(PART, name, "note", told))
    return findings


def _without_secrets(url: str) -> str:
    """Scheme, host and path: a URL may carry a password or a token."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
