"""A real S3-compatible server on this machine (moto's), as a process of its own that can be stopped for a while."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from pyarrow import fs

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}
START_SECONDS = 60


@dataclass
class Server:
    """Where it answers; every `folder` is a bucket of its own."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def files(self) -> fs.S3FileSystem:
        """To look into the buckets beside the code under test."""
        return fs.S3FileSystem(
            endpoint_override=f"http://127.0.0.1:{self.port}",
            region="us-east-1",
            allow_bucket_creation=True,
            access_key=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
            secret_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
        )

    def address(self, path: str) -> str:
        """Of a bucket and a folder in it."""
        return f"s3://{path}?endpoint_override=http://127.0.0.1:{self.port}&region=us-east-1"

    def folder(self) -> str:
        """The address of an empty results folder."""
        bucket = f"bucket-{uuid4().hex[:12]}"
        self.files.create_dir(bucket)
        return self.address(f"{bucket}/some/results")

    def names(self, address: str) -> list[str]:
        """Of all objects below an address that `folder` made."""
        path = address.removeprefix("s3://").partition("?")[0]
        found = self.files.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
        return sorted(info.path.removeprefix(path + "/") for info in found if info.is_file)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It takes connections and answers nothing, as one that is overloaded."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def serve() -> Iterator[Server]:
    """Start it on a free port; it has what it was given in memory and is ended at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    root = Path(__file__).parent.parent
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=root,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield Server(process=process, port=port)
    finally:
        process.kill()
        process.wait()
