"""What of a run's work earlier runs have done, but for scores, which are no part of a workload."""

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.planning.effort import Known, Workload
from tasks.shards import rows_in
from tasks.stages.contents import Contents
from tasks.stages.earlier.embeddings import find_embeddings
from tasks.stages.earlier.fusions import find_fusions
from tasks.stages.earlier.tokens import which_tokens
from tasks.stages.encode import Encode
from tasks.stages.fuse import Fuse
from tasks.stages.tokens import Tokens

NONE = np.empty(0, dtype=np.int64)


def find_known(work: Workload, encode: Encode | None, fuse: Fuse | None) -> Known:
    """Of the stages that are left to make."""
    embedded = fused = NONE
    if encode is not None:
        pictures = Contents.of(encode.ingested).pictures
        embedded = find_embeddings(encode.made, pictures).pictures
    if fuse is not None:
        asked = Contents.of(fuse.ingested).of_questions(pa.array(work.asked_by, pa.string()))
        found = asked.take(pa.array(find_fusions(fuse.made, asked).question))
        fused = np.flatnonzero(pc.is_in(asked, found.combine_chunks()).to_numpy())
    return Known(embedded, fused)


def count_tokens(tokens: Tokens, shards: Collection[str]) -> int:
    """Pictures of these shards that are kept with another list of images."""
    known = which_tokens(tokens.made, Contents.of(tokens.ingested).pictures)
    return sum(int(np.isin(known, np.array(rows_in(shard))).sum()) for shard in shards)
