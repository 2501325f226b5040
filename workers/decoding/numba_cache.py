"""Numba's cache on disk, for modules of compiled loops that call each other.

Numba keeps machine code with the hash of the file that a function is written in. What the function calls is compiled
into it, from other files too, whose edits it would miss: a pull could leave old code running. Once this module is
imported, code of every `numba_*.py` of this folder is kept with the hash of all of them. Each of these modules
imports it before it compiles anything; where the cache lies is as ever.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from numba.core.caching import CacheImpl

FOLDER = Path(__file__).resolve().parent


@cache
def stamp(folder: Path) -> str:
    """One hash of the names and contents of all `numba_*.py` of a folder."""
    digests = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in sorted(folder.glob("numba_*.py"))]
    return hashlib.sha256(repr(digests).encode()).hexdigest()


def _for_this_folder(locator: Any) -> Any:
    """One of Numba's ways to find a cache, for the files here alone and with the hash of all of them."""

    class Together(locator):
        @classmethod
        def from_function(cls, py_func: Any, py_file: str) -> Any:
            path = Path(py_file).resolve()
            if path.parent != FOLDER or not path.name.startswith("numba_"):
                return None
            return super().from_function(py_func, py_file)

        def get_source_stamp(self) -> tuple[Any, str]:
            return super().get_source_stamp(), stamp(FOLDER)

    return Together


CacheImpl._locator_classes = [*map(_for_this_folder, CacheImpl._locator_classes), *CacheImpl._locator_classes]
