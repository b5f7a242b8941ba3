"""Unit costs for ``scale.py``: each with where it is from. Measured: docs/performance.md, or by
``scale_units.py`` on machine E, 2026-11-28; counted: by the models' formulas; or assumed.
"""

# bf16 on an H200 with 16 cores, the models of the published sizes: measured (docs/performance.md)
FED, FED_FP32 = 572, 319
"""Images a second, decoded and encoded. In bf16 16 cores do not decode more."""
BARE = 3_359
"""Images a second of the ViT alone, bf16."""
SCORED, SCORED_FP32 = 23_971, 3_094
"""Pairs a second, at 4 an image. At one an image a pair has 1 % more FLOPs (counted)."""
ASKED = 0.41 * 729e12 / 19.5e9
"""Queries a second: 19.5 GFLOP each (counted) at scoring's share of a product's speed (assumed)."""

# a core: of machine A the searches, of machine E (scale_units.py) the others
SEARCHED = 80e9
"""FLOPs a second of the exact search: measured, 1,000,000 x 10,000 in 32.0 s on two cores."""
PROBED = 3.2e9
"""The same in ivf's lists, each read from memory for each query: measured, 500 queries, 56 of 1,789
lists of 200,000 images, in 0.25 s on two cores."""
CLUSTERED = 44e9
"""The same while lists are learnt and filled: measured, 200,000 images in 14 s on two cores."""
HASHED = 1.3e9
"""Bytes a second of sha256: measured."""
INGESTED = 101e-6
"""Seconds an image of next to no bytes: measured."""
RANKED, EVALUATED, PUBLISHED, TAKEN = 2.3e-6, 3.0e-6, 7.5e-6, 4e-6
"""Seconds a candidate: measured."""
COMMITTED = 6.5e-3
"""Seconds a part and its receipt on a local disk, fsync included: measured."""

REQUEST = 0.02
"""Seconds of a bucket's answer: assumed."""
PARTS = 5
"""A shard: embeddings, problems, fused queries, unfused ones, scores."""
PUTS, GETS, DELETES = 2, 7, 1
"""Requests a part, heads with the gets, until its artifact is whole, and is read once where it was
written. Counted with a stand-in: two gets to see that it is missing; a head and two puts to commit
it; a get and a delete of its receipt; two heads to see that it is whole, one to read it."""

WIDTH = 256
"""Numbers of an embedding, the published models'."""

# bytes: measured, but for z_t (counted: 14.3 tokens of 768 numbers), and a photo's (assumed)
PHOTO, TOKENS, EMBEDDING, Z_T = 90_000, 577 * 768 * 4, 864, 43_950
IMAGE_ROW, CANDIDATE, SCORE, RANKING, CATALOG, RECEIPT = 40, 8, 8, 13, 82, 156

# bytes of memory: measured, but for z_t, which is there twice: the column, and the copy
INGESTING, ENCODING, RERANKING, VECTORS, ROW = 1_110, 950, 810, 2_570, 240
RANKING_ROW, EVALUATING, PUBLISHING = 234, 434, 390

MEMORY, PROCESSES = 128 * 2**30, 8
"""Of a machine, with eight GPUs: assumed."""
