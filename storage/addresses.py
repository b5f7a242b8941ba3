"""What a user names as a place: a folder of this machine, or a prefix of a bucket."""

import re
from importlib.util import find_spec
from pathlib import Path, PosixPath

from cir_core.errors import UsageError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""At the beginning of a URI; a ``Path`` has made one slash of two."""

OBJECTS = "s3://"
"""The one kind of object store that is tried: others promise other things."""


class UriPath(PosixPath):
    """A path that somebody has typed as a URI, and that is told as it was: with two slashes, of
    which a ``Path`` keeps one."""

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)


def as_typed(path: Path) -> Path:
    """The path, as a ``UriPath`` where it is one."""
    return UriPath(path) if _SCHEME.match(str(path)) and not isinstance(path, UriPath) else path


def bucket_url(where: Path) -> str | None:
    """The URL of a place in a bucket; None of a folder. Raises UsageError for any other URI, and
    where the extra that buckets need is missing."""
    if not _SCHEME.match(str(where)):
        return None
    url = str(as_typed(where))
    if not url.startswith(OBJECTS):
        raise UsageError(
            "there is no such kind of place",
            item=url,
            cause=f"a folder can be named, or {OBJECTS}bucket/prefix",
            remedy="name one of these; of a folder that is called so, its absolute path",
        )
    if find_spec("obstore") is None:
        raise UsageError(
            "a bucket needs an extra",
            item=url,
            cause="obstore is not installed",
            remedy="pip install 'cir-pipeline[s3]', in the environment that has cir-pipeline",
        )
    return url
