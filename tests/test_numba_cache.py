"""Machine code that Numba keeps on disk is not used once a file that is compiled into it has changed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workers.decoding import numba_cache

INNER = """
import numba
import numba_cache

@numba.njit(cache=True)
def inner():
    return {value}
"""

OUTER = """
import numba
from numba_inner import inner

@numba.njit(cache=True)
def outer():
    return inner()

print(outer(), sum(outer.stats.cache_hits.values()))
"""


@pytest.mark.parametrize("own_folder", [False, True])
def test_an_edit_of_another_file_is_noticed(tmp_path: Path, own_folder: bool) -> None:
    """In the modules' own folder or in one that the user names: kept code is used until the other file changes."""
    modules, kept = tmp_path / "modules", tmp_path / "kept"
    modules.mkdir()
    shutil.copy(numba_cache.__file__, modules)
    (modules / "numba_outer.py").write_text(OUTER)
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    if own_folder:
        environment["NUMBA_CACHE_DIR"] = str(kept)

    def run() -> list[str]:
        command = [sys.executable, modules / "numba_outer.py"]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()

    (modules / "numba_inner.py").write_text(INNER.format(value=1))
    assert run() == ["1", "0"]
    assert run() == ["1", "1"], "kept and found again"
    (modules / "numba_inner.py").write_text(INNER.format(value=2))
    assert run() == ["2", "0"]
    assert kept.exists() == own_folder


def test_every_compiled_module_is_covered() -> None:
    """Each imports the module that sees to it, or another one that does, before it compiles anything."""
    for path in numba_cache.FOLDER.glob("numba_*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name != "numba_cache.py":
            assert re.search(r"^(from|import) workers\.decoding\.numba_", text.split("@numba.njit")[0], re.M), path.name
