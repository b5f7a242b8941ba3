"""Image tokens that are kept with other lists of images."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.relatives import relatives
from storage.tables import rows_of
from storage.views import KeptTokens
from tasks.feed.pictures import Distinct
from tasks.feed.token_cache import TokenCache
from tasks.stages.earlier.wanted import Wanted, contents_for


@dataclass(frozen=True)
class KnownTokens:
    """Of these ``pictures``, ascending, from whose cache and where there."""

    pictures: np.ndarray
    cache: np.ndarray
    row: np.ndarray
    caches: list[TokenCache]

    def left(self, pictures: range) -> list[int]:
        """Those of these pictures that nobody has kept."""
        rows = np.arange(pictures.start, pictures.stop)
        left: list[int] = rows[~np.isin(rows, self.pictures)].tolist()
        return left

    def fill(self, tokens: np.ndarray, pictures: range) -> None:
        """Into ``tokens`` of these pictures, those that are known."""
        start, stop = np.searchsorted(self.pictures, [pictures.start, pictures.stop])
        place, cache = self.pictures[start:stop] - pictures.start, self.cache[start:stop]
        for number in np.unique(cache):
            mine, one = cache == number, self.caches[number]
            out = np.empty((int(mine.sum()), *one.shape), dtype=np.float32)
            one.read(self.row[start:stop][mine], out)
            tokens[place[mine]] = out


def find_tokens(kept: KeptTokens, pictures: Distinct) -> KnownTokens:
    """Those of the pictures that are kept with another list of images."""
    every = relatives(kept, apart_from=["images"], kind=KeptTokens)
    wanted, caches = Wanted(len(pictures)), list[TokenCache]()
    found = [np.empty((3, 0), dtype=np.int64)]
    for sha256, rows, kept_there in wanted.read(every, _tokens):
        some, place = wanted.take(rows_of(sha256, pictures.table["sha256"]))
        found.append(np.stack([some, np.full(len(some), len(caches)), rows[place]]))
        caches.append(kept_there)
    mine, cache, row = np.concatenate(found, axis=1)
    order = np.argsort(mine)
    return KnownTokens(mine[order], cache[order], row[order], caches)


def which_tokens(kept: KeptTokens, pictures: Distinct) -> np.ndarray:
    """The pictures of ``find_tokens``, if all that is kept is whole: that is far too much to be
    hashed just to count it."""
    every = relatives(kept, apart_from=["images"], kind=KeptTokens)
    wanted = Wanted(len(pictures))
    found = [
        wanted.take(rows_of(sha256, pictures.table["sha256"]))[0]
        for sha256, _ in wanted.read(every, _usable)
    ]
    return np.concatenate([np.empty(0, dtype=np.int64), *found])


def _tokens(kept: KeptTokens) -> tuple[pa.ChunkedArray, np.ndarray, TokenCache]:
    return *_usable(kept), TokenCache(kept)


def _usable(kept: KeptTokens) -> tuple[pa.ChunkedArray, np.ndarray]:
    """The sha256 of usable pictures, and their rows."""
    table = contents_for(kept, "images").pictures.table
    is_bad = pc.is_in(table["image_id"], kept.read("problems")["item"].combine_chunks())
    rows = np.flatnonzero(~is_bad.to_numpy())
    return table["sha256"].take(pa.array(rows)), rows
