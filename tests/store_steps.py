"""What tests of results folders share."""

import os

from results.store import Store

FILES = {"metrics.json": b"{}", "weights/model.bin": os.urandom(100_000), "empty": b""}


def finish(store: Store, key: str, files: dict[str, bytes], owner: str = "me") -> None:
    """One attempt at a step that writes these files and succeeds."""
    with store.work("train", key, owner) as out:
        assert out is not None
        for name, content in files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(content)
