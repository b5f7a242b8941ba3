"""What ``scale_units.py`` measures of a store: bytes of rows, parts, manifests."""

import hashlib
import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
from retrieval import Clock, unit
from scale_inputs import Units, all_columns, peak_of

from storage import manifests, schemas
from storage.atomic import sha256_of
from storage.identities import Identity
from storage.store import LocalStore
from storage.tables import vector_column, write_table
from storage.views import Encoded
from tasks.shards import PICTURES, shards_of
from tasks.stages.vectors import read_vectors

ROUNDS = 3


def candidate_bytes(candidates: pa.Table) -> Units:
    """In Parquet, where nearly every image is another."""
    rows, columns = candidates.num_rows, all_columns(candidates)
    kinds = {
        "candidates": schemas.CANDIDATES,
        "scores": schemas.SCORES,
        "rankings": schemas.RANKINGS,
    }
    units: Units = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, schema in kinds.items():
            path = Path(folder) / kind
            write_table(path, pa.table({name: columns[name] for name in schema.names}).cast(schema))
            units[f"{kind}, bytes a row"] = path.stat().st_size / rows
    return units


def read_embeddings(images: int) -> Units:
    """As a search does: parts of 256, hashed, into one matrix."""
    schema = schemas.of_width(schemas.EMBEDDINGS, 256)
    vectors = vector_column(unit(np.random.default_rng(0), PICTURES))
    with tempfile.TemporaryDirectory() as folder:
        identity = Identity("encode", 0, {}, {})
        view = Encoded.named(LocalStore(Path(folder)), identity)
        names = [f"embeddings-{shard}" for shard in shards_of(images)]
        for name in names:
            ids = [f"{name[11:]}-{row}" for row in range(PICTURES)]
            view.write(name, pa.table([ids, vectors], schema))
        view.finish(identity, names)
        clock = Clock()
        peak = peak_of(lambda: clock.take(lambda: read_vectors(view, "embeddings", "image_id")))
    return {
        "embeddings read, s of CPU per million": clock.cpu * 1e6 / images,
        "embeddings read, bytes of memory an image": peak / images,
    }


def committed_parts(files: int) -> Units:
    """A shard's embeddings, into a folder that has so many files."""
    rng = np.random.default_rng(0)
    names = [f"{number:012d}" for number in range(PICTURES)]
    table = pa.table(
        [names, vector_column(unit(rng, PICTURES))], schemas.of_width(schemas.EMBEDDINGS, 256)
    )
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        view = Encoded.named(store, Identity("encode", 0, {}, {}))
        view.write("embeddings-first", table)
        for number in range(files):
            (view.folder / f"{number:07d}.parquet").touch()
        numbers, clock = count(), Clock()
        for _ in range(10 * ROUNDS):
            clock.take(lambda: view.write(f"embeddings-{next(numbers)}", table))
    return {"a part and its receipt, ms": clock.wall * 1e3}


def read_manifest(parts: int) -> Units:
    """As whoever reads anything of an artifact does, each time."""
    identity = Identity("encode", 0, {}, {})
    shards = shards_of(parts * PICTURES)
    digests = (hashlib.sha256(shard.encode()).hexdigest() for shard in shards)
    receipts = {
        f"embeddings-{shard}": {"rows": PICTURES, "bytes": 250_000, "sha256": digest}
        for shard, digest in zip(shards, digests, strict=True)
    }
    text = manifests.render(identity.as_json(), receipts, {})
    clock = Clock()
    for _ in range(ROUNDS):
        clock.take(lambda: manifests.parse(text, identity.fingerprint))
    return {
        "manifest, s of CPU per million parts": clock.cpu * 1e6 / parts,
        "manifest, bytes a part": len(text) / parts,
    }


def hashed_bytes(mebibytes: int) -> Units:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bytes"
        path.write_bytes(bytes(mebibytes * 2**20))
        clock = Clock()
        for _ in range(ROUNDS):
            clock.take(lambda: sha256_of(path))
    return {"sha256, GB a second of CPU": mebibytes * 2**20 / 1e9 / clock.cpu}
