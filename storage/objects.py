"""An object store's requests: what each promises, and what its failures are called here."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from cir_core.errors import PreflightError, StoreFailing

RETRIES = timedelta(seconds=60)
"""For requests that fail by chance, with pauses that grow. obstore's own three minutes are long to
say nothing in."""

REQUEST = timedelta(minutes=10)
"""One request with its bytes: a part of kept image tokens, 454 MB, at 1 MB/s. obstore's own 30 s
would end it."""

CONNECTION = timedelta(seconds=5)

NOT_FOUND = "404 Not Found"
"""In an error of a listing, which knows no name that could be missing but the bucket's."""

CAUSE = 300
"""Characters of an answer: servers send pages."""


class Found(NamedTuple):
    """An object: its bytes' number, and the tag that any other write of it changes."""

    size: int
    tag: str


@dataclass(frozen=True)
class Objects:
    """Those below one prefix of a bucket, ``s3://bucket/prefix``. Where the server is, and what it
    is shown, say the environment variables that other programs read, too (``AWS_ENDPOINT_URL``,
    ``AWS_REGION``, ``AWS_ACCESS_KEY_ID``, ...).

    Every request raises StoreFailing when it fails again and again, and PreflightError when the
    server refuses it; one that lists or writes also where there is no such bucket.
    """

    url: str

    def put(self, name: str, content: bytes | Path) -> str:
        """All of it or nothing, by one request; the tag that it has now."""
        with self._writing(name):
            return self._put(name, content)

    def create(self, name: str, content: bytes) -> str | None:
        """``put`` where there is no such object; None where there is, with other bytes. With the
        same ones it may be this very request, whose answer was lost."""
        with self._writing(name):
            try:
                return self._put(name, content, mode="create")
            except AlreadyExistsError:
                return self._tag_of(name, content)

    def replace(self, name: str, content: bytes, tag: str) -> str | None:
        """``put`` in the place of what has this tag; None where that is not there any more, as
        ``create``."""
        with self._writing(name):
            try:
                return self._put(name, content, mode={"e_tag": tag})
            except (PreconditionError, FileNotFoundError):
                return self._tag_of(name, content)

    def get(self, name: str, *, most: int | None = None) -> tuple[bytes, str]:
        """Bytes and tag. Raises FileNotFoundError; OSError EFBIG, before it reads them, for more
        bytes than ``most``."""
        with self._asking(name):
            answer = obstore.get(self._client, name)
            if most is not None and answer.meta["size"] > most:
                raise OSError(errno.EFBIG, f"{answer.meta['size']} bytes", name)
            return bytes(answer.bytes()), str(answer.meta["e_tag"])

    def fetch(self, name: str, path: Path) -> str:
        """Write the bytes to a file, piece by piece; the tag. Raises FileNotFoundError."""
        with self._asking(name), path.open("wb") as file:
            answer = obstore.get(self._client, name)
            for piece in answer.stream():
                file.write(piece)
            return str(answer.meta["e_tag"])

    def find(self, name: str) -> Found | None:
        """None where there is no such object."""
        with self._asking(name):
            try:
                meta = obstore.head(self._client, name)
            except (FileNotFoundError, ValueError):  # or no possible name
                return None
            return Found(meta["size"], str(meta["e_tag"]))

    def names(self, folder: str) -> list[str]:
        """Of the objects directly in a folder, the last parts, sorted."""
        return sorted(self.tags(folder))

    def tags(self, folder: str) -> dict[str, str]:
        """Of the objects directly in a folder, by the last parts of their names."""
        return {_last(one["path"]): str(one["e_tag"]) for one in self._listing(folder)["objects"]}

    def folders(self, folder: str) -> list[str]:
        """``names`` of the folders."""
        return sorted(map(_last, self._listing(folder)["common_prefixes"]))

    def entries(self, folder: str) -> frozenset[str]:
        """Names of both, by one listing."""
        listing = self._listing(folder)
        paths = [one["path"] for one in listing["objects"]] + [*listing["common_prefixes"]]
        return frozenset(map(_last, paths))

    def has_folder(self, folder: str) -> bool:
        """Whether there is any object in a folder, or in its folders."""
        with self._asking(folder):
            return any(obstore.list(self._client, folder or None, chunk_size=1))

    def below(self, folder: str) -> list[str]:
        """The names of all objects in a folder, and in its folders, sorted."""
        with self._asking(folder):
            listing = obstore.list(self._client, folder or None)
            return sorted(one["path"] for some in listing for one in some)

    def sizes(self) -> dict[str, int]:
        """The bytes of all objects, by name."""
        with self._asking(""):
            return {one["path"]: one["size"] for some in obstore.list(self._client) for one in some}

    def copy(self, name: str, other: str) -> None:
        """Raises FileNotFoundError."""
        with self._asking(name):
            obstore.copy(self._client, name, other)

    def remove(self, name: str) -> None:
        """Nothing where there is no such object."""
        with self._asking(name):
            obstore.delete(self._client, name)

    def _listing(self, folder: str) -> Any:
        with self._asking(folder):
            return obstore.list_with_delimiter(self._client, folder or None)

    def told(self, name: str) -> str:
        """To a user."""
        return f"{self.url}/{name}"

    def _put(self, name: str, content: bytes | Path, mode: Any = None) -> str:
        """Not by parts, of which a killed one leaves some that nobody sees and somebody pays."""
        answer = obstore.put(self._client, name, content, mode=mode, use_multipart=False)
        return str(answer["e_tag"])

    def _tag_of(self, name: str, content: bytes) -> str | None:
        try:
            there, tag = self.get(name)
        except FileNotFoundError:
            return None
        return tag if there == content else None

    @property
    def _client(self) -> S3Store:
        return _client_of(self.url)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            with self._asking(name):
                yield
        except FileNotFoundError as error:
            raise self._no_bucket() from error

    def _no_bucket(self) -> PreflightError:
        return PreflightError(
            "the object store has no such bucket",
            item=self.url,
            remedy="make it, or correct --store or AWS_ENDPOINT_URL",
        )

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise PreflightError(
                "the object store refuses this",
                item=self.told(name),
                cause=_first_line(error),
                remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE's like, of "
                "somebody who may read, list, write and delete there",
            ) from error
        except ValueError as error:
            raise FileNotFoundError(errno.ENOENT, "no possible name", name) from error
        except BaseError as error:
            if NOT_FOUND in str(error):
                raise self._no_bucket() from error
            raise StoreFailing(
                "the object store does not answer as it should",
                item=self.told(name),
                cause=_first_line(error),
                remedy="see to the network, AWS_ENDPOINT_URL and AWS_REGION, then run the same "
                "command again: what is there is kept",
            ) from error


@cache
def _client_of(url: str) -> S3Store:
    """One a process, which keeps connections open."""
    parts = urlsplit(url)
    return S3Store(
        parts.netloc,
        prefix=parts.path.strip("/") or None,
        client_options={
            "timeout": REQUEST,
            "connect_timeout": CONNECTION,
            "allow_http": True,  # where the endpoint's URL says http, that is meant
        },
        retry_config={"retry_timeout": RETRIES},
    )


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:CAUSE]
