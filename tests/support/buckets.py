"""An S3 server of this machine, with an empty bucket."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from moto.server import ThreadedMotoServer

from storage.object_store import ObjectStore

BUCKET = "cir"


@contextmanager
def s3_server() -> Iterator[Mapping[str, str]]:
    """Gives the environment that leads to it."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line a request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with urlopen(Request(f"{url}/{BUCKET}", method="PUT")) as answer:
        assert answer.status == 200
    yield {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    server.stop()


def url_of(path: Path) -> str:
    """A prefix in the bucket that is as much the test's own as the path."""
    return f"s3://{BUCKET}/{'/'.join(path.parts[-3:])}"


def bucket_store(path: Path) -> ObjectStore:
    return ObjectStore(url_of(path))
