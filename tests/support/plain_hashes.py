"""What names a model, computed from its files by their published format alone."""

import hashlib
import json
from pathlib import Path

_TYPES = {"F32": "torch.float32", "F16": "torch.float16"}


def plain_tensors_sha256(weights: Path) -> str:
    """Over each tensor in the order of names: name, type and shape as JSON, then its bytes."""
    content = weights.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    digest = hashlib.sha256()
    for name, entry in sorted(header.items()):
        first, last = entry["data_offsets"]
        digest.update(json.dumps([name, _TYPES[entry["dtype"]], entry["shape"]]).encode())
        digest.update(content[start + first : start + last])
    return digest.hexdigest()


def plain_model_sha256(folder: Path) -> str:
    config = json.dumps(json.loads((folder / "config.json").read_text()), sort_keys=True)
    tensors = plain_tensors_sha256(folder / "model.safetensors")
    return hashlib.sha256((config + tensors).encode()).hexdigest()
