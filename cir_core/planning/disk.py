"""What the disk that a run takes depends on; each stage says how much is its own."""

from dataclasses import dataclass

FLOAT = 4
"""Bytes of a number in embeddings and z_t, which are stored in fp32."""


@dataclass(frozen=True)
class Counts:
    """``tokens`` is the length of all modification texts, [ENC] and [SEP] included; ``pairs`` the
    candidates of all queries in all pools; ``kept`` the images whose tokens are kept, ``again`` the
    numbers that stage 2 keeps by an encoder of its own; ``ranked`` the pairs that are written as
    files to take away, too."""

    images: int
    queries: int
    tokens: int
    pairs: int
    kept: int = 0
    again: int = 0
    ranked: int = 0
