"""What a benchmark ran on, in a line: numbers without it say nothing.

python benchmarks/machine.py
"""

import datetime
import os

import psutil
import torch

PRODUCTS = {
    "amx_tile": "AMX",
    "amx_bf16": "AMX bf16",
    "avx512_bf16": "AVX-512 bf16",
    "avx512_f": "AVX-512",
    "avx2": "AVX2",
}
"""Instructions that multiply matrices, the widest first, by torch's names."""


def machine() -> str:
    """Date, processor, cores, what else they do, memory, instructions, torch, and a GPU if any."""
    known = torch.cpu.get_capabilities()
    found = [name for key, name in PRODUCTS.items() if known.get(key)] or [known["architecture"]]
    cores, load = os.cpu_count(), os.getloadavg()[0]
    memory = psutil.virtual_memory().total / 2**30
    told = [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        f"{known.get('cpu_name', known['architecture'])}, {cores} cores (load {load:.1f})",
        f"{memory:.0f} GiB",
        f"instructions: {', '.join(found)}",
        f"torch {torch.__version__}, {torch.get_num_threads()} threads",
    ]
    if torch.cuda.is_available():
        told.append(torch.cuda.get_device_name())
    return "; ".join(told)


if __name__ == "__main__":
    print(machine())
