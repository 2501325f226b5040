"""Objects by name in a bucket, through `pyarrow.fs`: patient where the storage is away, short in what it says.

Nothing here depends on folders: an object store has none, and what pyarrow shows as one may be empty.
"""

import errno
import random
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

from pyarrow import fs

from results.errors import BadAddress, StorageRefused, StorageTrouble, first_line

OPTIONS = ("endpoint_override", "region", "scheme")
"""What an S3 address may say after `?`. Keys are not among them: they would end in logs and shells' histories."""
LONGEST_PAUSE = 8.0
"""Seconds between two tries."""

Result = TypeVar("Result")

_FINAL = re.compile(
    r"AWS Error (ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID"
    r"|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION_TOKEN|OPT_IN_REQUIRED|ACCOUNT_PROBLEM)"
    r"|InvalidBucketName|\(HTTP status (401|403)\)"
)
"""Refusals that trying again does not change."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """`s3://bucket/folder?region=...`, taken apart. Holds no secret: credentials come from the environment."""

    scheme: str
    bucket: str
    folder: str
    """Without slashes at its ends; may be empty."""
    options: tuple[tuple[str, str], ...]

    def text(self, name: str = "") -> str:
        """The address, or that of something in the folder."""
        path = "/".join(part for part in (self.bucket, self.folder, name) if part)
        query = "&".join(f"{key}={value}" for key, value in self.options)
        return f"{self.scheme}://{path}" + (f"?{query}" if query else "")


def parse(address: str) -> Address:
    """Raises BadAddress, which never repeats a secret that the address holds."""
    try:
        parts = urlsplit(address)
        options = parse_qsl(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        raise BadAddress("not an address such as s3://bucket/folder") from None
    if parts.scheme not in ("s3", "gs"):
        raise BadAddress(f"{parts.scheme}: no such kind of results folder; a folder, or s3://bucket/folder")
    if "@" in address or any(re.search("key|token|secret|pass", name) for name, _ in options):
        raise BadAddress("an address must not hold credentials; they are taken from the environment, or ~/.aws")
    unknown = [name for name, _ in options if parts.scheme != "s3" or name not in OPTIONS]
    if unknown:
        raise BadAddress(f"{unknown[0]}: no such option of an address; there are {', '.join(OPTIONS)}")
    folder = parts.path.strip("/")
    if not parts.netloc or parts.fragment or any(part in ("", ".", "..") for part in folder.split("/") if folder):
        raise BadAddress(f"{parts.scheme}://{parts.netloc}{parts.path}: not an address such as s3://bucket/folder")
    return Address(scheme=parts.scheme, bucket=parts.netloc, folder=folder, options=tuple(options))


@lru_cache(maxsize=8)
def _connect(address: Address) -> fs.FileSystem:
    """A connection of this process."""
    if address.scheme == "gs":
        return fs.GcsFileSystem()
    options = dict(address.options)
    if "endpoint_override" not in options and "region" not in options:
        with suppress(OSError):  # else as the environment says
            options["region"] = fs.resolve_s3_region(address.bucket)
    # Delayed: a small object is one request, so it is there whole or not at all.
    retries = fs.AwsStandardS3RetryStrategy(max_attempts=2)
    return fs.S3FileSystem(**options, allow_delayed_open=True, connect_timeout=5, retry_strategy=retries)


@dataclass(frozen=True, kw_only=True)
class Remote:
    """The objects below an address. Every method raises StorageTrouble where the storage stays away."""

    address: Address
    patience: float
    """Seconds for which what fails is tried again."""

    @property
    def _fs(self) -> fs.FileSystem:
        return _connect(self.address)

    def _path(self, name: str) -> str:
        return "/".join(part for part in (self.address.bucket, self.address.folder, name) if part)

    def read(self, name: str) -> bytes:
        """An object's content. Raises FileNotFoundError."""

        def read() -> bytes:
            with self._fs.open_input_stream(self._path(name)) as stream:
                content = bytes(stream.read())
            # pyarrow asks for the size first, and cuts an object that has been replaced by a longer one since.
            if self._fs.get_file_info(self._path(name)).size not in (None, len(content)):
                raise OSError("it was replaced while it was read")
            return content

        return self._patiently(read)

    def write(self, name: str, content: bytes) -> None:
        """One object, whole or not at all, in one request where it is small."""

        def write() -> None:
            with self._fs.open_output_stream(self._path(name)) as stream:
                stream.write(content)

        self._patiently(write)

    def upload(self, path: Path, name: str) -> int:
        """One object from a file of this machine, whole or not at all; returns how many bytes it has."""

        def upload() -> int:
            with path.open("rb") as source:
                with self._fs.open_output_stream(self._path(name)) as stream:
                    shutil.copyfileobj(source, stream, 2**22)
                return source.tell()

        return self._patiently(upload)

    def download(self, name: str, path: Path) -> int:
        """A file of this machine from an object; returns how many bytes it has. Raises FileNotFoundError."""

        def download() -> int:
            with self._fs.open_input_stream(self._path(name)) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 2**22)
                return target.tell()

        return self._patiently(download)

    def names(self, folder: str) -> list[str]:
        """What is directly in a folder, sorted."""
        return sorted(info.base_name for info in self._list(folder, deep=False))

    def below(self, folder: str) -> dict[str, int]:
        """Name (from the folder on) -> bytes, of all objects in a folder and in those below it."""
        start = len(self._path(folder)) + 1
        return {info.path[start:]: info.size for info in self._list(folder, deep=True) if info.is_file}

    def _list(self, folder: str, deep: bool) -> list[fs.FileInfo]:
        path = self._path(folder)
        selector = fs.FileSelector(path, recursive=deep, allow_not_found=True)
        return [info for info in self._patiently(lambda: self._fs.get_file_info(selector)) if info.path != path]

    def delete(self, name: str) -> None:
        """Delete an object that may not be there."""
        with suppress(FileNotFoundError):
            self._patiently(lambda: self._fs.delete_file(self._path(name)))

    def delete_below(self, folder: str) -> None:
        """Delete all objects in a folder, which may not be there."""
        with suppress(FileNotFoundError):
            self._patiently(lambda: self._fs.delete_dir(self._path(folder)))

    def check_bucket(self) -> None:
        """Raises StorageRefused where there is no such bucket."""
        info = self._patiently(lambda: self._fs.get_file_info(self.address.bucket))
        if info.type == fs.FileType.NotFound:
            raise StorageRefused(errno.ENOENT, f"{self.address.text()}: there is no bucket {self.address.bucket}")

    def _patiently(self, act: Callable[[], Result]) -> Result:
        """Try again for a while. Every act here may be done twice."""
        given_up = time.monotonic() + self.patience
        pause = 0.25
        while True:
            try:
                return act()
            except FileNotFoundError:
                raise
            except OSError as error:
                if isinstance(error, StorageTrouble) or _is_local(error):
                    raise
                line = re.sub(r"\s*\(Request ID: [^)]*\)", "", first_line(error))
                if _FINAL.search(str(error)):
                    raise StorageRefused(errno.EACCES, f"{self.address.text()}: {line}") from None
                if time.monotonic() + pause > given_up:
                    raise StorageTrouble(errno.ETIMEDOUT, f"{self.address.text()}: {line}") from None
            time.sleep(pause * random.uniform(0.7, 1.3))
            pause = min(2 * pause, LONGEST_PAUSE)


def _is_local(error: OSError) -> bool:
    """Whether it is this machine's disk that failed."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EISDIR, errno.ENOTDIR)
