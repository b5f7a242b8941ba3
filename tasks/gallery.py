"""Which of the ingested images a run could use."""

import pyarrow as pa
import pyarrow.compute as pc

from storage.artifacts import Artifact


def usable_images(ingested: Artifact, encoded: Artifact) -> pa.Table:
    """Rows of the table ``images``, without those that were ingested and could not be decoded:
    these are no more usable than the ones that are missing."""
    images = ingested.read("images")
    undecoded = encoded.read("problems")["item"].combine_chunks()
    return images.filter(pc.invert(pc.is_in(images["image_id"], undecoded)))
