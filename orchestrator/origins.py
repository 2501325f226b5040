"""What settings of identifiers and models stand for: files by what they hold, and nothing that has no effect."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from workers.corpus.files import content
from workers.errors import BadInput
from workers.settings import AnyIdentifiers, split_model

ELSEWHERE = ("embedding", "queries")
"""Settings of identifiers that may name a model, a folder or a file."""


def identifiers_values(identifiers: AnyIdentifiers) -> dict[str, Any]:
    """Settings that decide what the identifiers are, as plain values."""
    effective = in_effect(identifiers)
    values = effective.model_dump(mode="json")
    for name in values.keys() & set(ELSEWHERE):
        prefix, value = split_model(values[name])
        values[name] = f"{prefix}{origin(value)}"
    return values


def in_effect(identifiers: AnyIdentifiers) -> AnyIdentifiers:
    """The kind with its settings, those put to their defaults that its identifiers do not depend on."""
    fields = type(identifiers).model_fields
    idle = ["pairs", "only"]
    if "queries" in fields and not split_model(getattr(identifiers, "queries", ""))[0]:
        idle.append("per_document")  # of queries that a model writes
    return identifiers.model_copy(update={name: fields[name].default for name in idle})


def origin(model: str | None) -> str | None:
    """A hub name as it is; a local file or folder as the hash of what it holds, wherever it lies."""
    if model is None or not Path(model).is_absolute():
        return model
    try:
        found = [Path(model)] if Path(model).is_file() else Path(model).rglob("*")
        files = sorted(path for path in found if path.is_file() and path.name[0] != ".")
        states = [path.stat() for path in files]
        return _content(tuple(files), tuple((state.st_size, state.st_mtime_ns) for state in states))
    except OSError as error:
        raise BadInput(f"{model}: cannot be read: {error.strerror}: {error.filename}") from None


@lru_cache(maxsize=64)
def _content(files: tuple[Path, ...], _states: tuple[tuple[int, int], ...]) -> str:
    """SHA-256 of files; read again only where their sizes or times have changed."""
    return f"sha256:{content(files)}"
