"""Lines of text files, plain or compressed, with the place of a fault in every error."""

import gzip
import hashlib
import io
import json
import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from workers.errors import BadInput

COMPRESSED = (".gz", ".xz", ".zst")


def existing(path: str, key: str = "corpus.path") -> Path:
    """The path, where something is there; an error that names the key elsewhere."""
    if not Path(path).exists():
        raise BadInput(f"{key}: {path} does not exist")
    return Path(path)


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix == ".xz":
        return cast(IO[bytes], lzma.open(path, "rb"))
    if path.suffix == ".zst":
        return io.BufferedReader(_WholeZst(path))
    return path.open("rb")


class _WholeZst(io.RawIOBase):
    """Decompressed bytes of a .zst file; unlike zstandard's own reader, an error where the file is cut off."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._rest = b""
        self._open = False
        """Whether a frame has begun and not ended."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            raw = self._frame.unused_data if self._frame.eof else b""
            raw = raw or self._file.read(io.DEFAULT_BUFFER_SIZE)
            if not raw:
                if self._open:
                    raise EOFError("the file ends within a zstd frame")
                return 0
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._rest = self._frame.decompress(raw)
            self._open = not self._frame.eof
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line without its end) of a UTF-8 file."""
    number = 0
    try:
        with _open(path) as file:
            for number, raw in enumerate(file, start=1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}:{number}: not UTF-8 ({error.reason})") from error
    except (OSError, EOFError, lzma.LZMAError, zstandard.ZstdError) as error:
        raise BadInput(f"{path}: cannot be read after line {number} ({error})") from error


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a file with one JSON object a line; blank lines are passed over."""
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", "nested too deep")
            raise BadInput(f"{path}:{number}: malformed JSON ({reason})") from error
        if not isinstance(value, dict):
            raise BadInput(f"{path}:{number}: a JSON object is expected, not {type(value).__name__}")
        yield number, value


def content(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and bytes of files, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        with path.open("rb") as file:
            digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
