"""Write the locks anew: every package of ``constraints.txt`` with the hashes of its files.

    python .ci/lock.py UV        (``make lock``)

All extras and groups of pyproject.toml are resolved together, for every Python and platform, so
that a package has one version in all locks: that of ``constraints.txt``. What is not there yet gets
its newest version, and is added there; what nothing asks for any longer is taken out. The same
constraints give the same locks, but for files that were published since. Only ``torch-cpu.txt``, of
files that PyPI does not have, is kept by hand.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
LOCKS = ROOT / ".ci" / "locks"
OTHER_BUILD = LOCKS / "torch-cpu.txt"

EXTRAS = set(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
)

LOCKED = {
    "runtime": ([], ["--extra=vlm", "--extra=s3"]),
    "cpu": (["runtime"], ["--extra=vlm", "--extra=s3", "--extra=cpu"]),
    "cuda": ([], []),
    "gpu": (["runtime", "cuda"], ["--extra=vlm", "--extra=s3", "--extra=gpu"]),
    "build": ([], ["--group=build"]),
    "dev": (["cpu", "build"], [*(f"--extra={name}" for name in EXTRAS - {"gpu"}), "--group=build"]),
    "tools": ([], ["--group=tools"]),
}
"""Of each lock the locks that it begins with, and what asks for all its packages."""

OF_CUDA = re.compile(r"torch|triton|(cuda|nvidia)-(?!.*-cu12$).*")
"""torch as PyPI has it for Linux, and what that asks for. FAISS asks for its own, of CUDA 12."""


def main(uv: str) -> None:
    everything = _blocks(uv, ["--all-extras", "--group=build", "--group=tools"])
    _require_the_same(everything["torch"])
    _pin(everything)
    cuda = {name for name in everything if OF_CUDA.fullmatch(name)}
    held: dict[str, set[str]] = {}
    for lock, (begins, asks) in LOCKED.items():
        held[lock] = set(_blocks(uv, asks)) - cuda if asks else cuda
        own = held[lock].difference(*(held[other] for other in begins))
        lines = ["# Written by `make lock`.", *(f"-r {other}.txt" for other in begins)]
        lines += [everything[name] for name in sorted(own)]
        (LOCKS / f"{lock}.txt").write_text("\n".join(lines) + "\n")


def _blocks(uv: str, asks: list[str]) -> dict[str, str]:
    """Of each package its lines in a lock: version, marker, hashes."""
    command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version=3.11"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--constraint=constraints.txt"]
    command += asks if asks[0].startswith("--group") else ["pyproject.toml", *asks]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if told.returncode:
        sys.exit(told.stderr)
    blocks = re.split(r"\n(?=\S)", told.stdout.strip())
    return {block.split("==")[0]: block for block in blocks}


def _pin(everything: dict[str, str]) -> None:
    """Add to the constraints what they lack, and take out what nothing asks for."""
    lines = CONSTRAINTS.read_text().splitlines()
    comments = [line for line in lines if line.startswith("#")]
    pins = {_normal(line.split("==")[0]): line for line in lines if line not in comments}
    new = [_pinned(block) for name, block in everything.items() if name not in pins]
    kept = [line for name, line in pins.items() if name in everything]
    told = sorted([*kept, *new], key=str.lower)
    CONSTRAINTS.write_text("\n".join([*comments, *told]) + "\n")
    for change, names in (("added to", new), ("taken out of", sorted(set(pins) - set(everything)))):
        if names:
            sys.stderr.write(f"{change} {CONSTRAINTS.name}: {', '.join(names)}\n")


def _require_the_same(torch: str) -> None:
    """Exits when the CPU build of torch that may be installed is of another version."""
    if f"\n{_pinned(torch)}+cpu " not in OTHER_BUILD.read_text():
        sys.exit(
            f"{OTHER_BUILD} is not of {_pinned(torch)}: take the hashes of that version's files"
        )


def _pinned(block: str) -> str:
    return re.split(r"[ \\]", block, maxsplit=1)[0]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main(sys.argv[1])
