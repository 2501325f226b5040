"""From a path or an address to the results folder that is there."""

import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from results.local import LocalStore
from results.objects import ObjectStore
from results.remote import parse
from results.store import Store

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")


def open_store(address: str | Path, scratch: Path | None = None) -> Store:
    """The results folder at a path or an address; nothing is looked at yet.

    Args:
        scratch: a folder of this machine for what an object store's steps are worked on in and fetched to.

    Raises:
        BadAddress: it is neither.
    """
    scheme = _SCHEME.match(str(address))
    if isinstance(address, Path) or not scheme:
        return LocalStore(root=Path(address).absolute())
    if scheme[1] == "file":
        return LocalStore(root=Path(url2pathname(urlsplit(str(address)).path)).absolute())
    return ObjectStore(parse(str(address)), scratch)
