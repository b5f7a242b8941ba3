"""Under which protocol images and queries were ingested."""

from cir_core.protocols import PROTOCOLS, Protocol
from storage.artifacts import Artifact


def protocol_of(ingested: Artifact) -> Protocol:
    """The one that the artifact's identity names."""
    return PROTOCOLS[ingested.identity()["settings"]["protocol"]]
