"""The benchmark of a GPU, in small on the CPU: it runs, and a part that fails loses no other."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
ROUNDING = 1e-5
"""Of scores between -1 and 1 in fp32."""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """As it is when it is run: beside the other benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu")


def test_parts_are_measured_and_one_that_fails_is_told(
    gpu: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def encode(_scale: object, _seconds: float) -> None:
        raise RuntimeError("no kernel image is available")

    def demo(_scale: object, _seconds: float) -> None:
        while True:
            pass

    monkeypatch.setitem(gpu.PARTS, "encode", gpu.Part(1, encode))
    monkeypatch.setitem(gpu.PARTS, "demo", gpu.Part(0.05, demo))
    wanted = ["encode", "demo", "exactness", "memory", "speed"]
    gpu.main(device="cpu", tiny=True, part=wanted, out=tmp_path / "gpu.json")
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert list(parts) == wanted
    exact = parts["exactness"]["fp32"]
    assert exact["largest_difference"] < ROUNDING
    assert (exact["overlap"], exact["ties"], exact["changed"]) == (1.0, 0, 0)
    assert len(parts["memory"]["messages"]) == 1
    assert parts["memory"]["largest_difference"] < ROUNDING
    assert parts["speed"]["published"]["ratio"] == 1
    table = capsys.readouterr().out
    assert "| encode |  | failed: RuntimeError: no kernel image is available |" in table
    assert "| demo |  | failed: TimeoutError: more than 0 s |" in table
