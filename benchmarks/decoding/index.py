"""Building an index of all suffixes: tokens a second, bytes a token, memory.

Each build runs in a process of its own (this module's `__main__`), which first builds a small one, so that nothing is
compiled in the timed build. Timed: `build_index`, from the rows' tokens in memory to the index in memory; the median of
three builds of 10 M tokens, and a single build of 50 M. Memory is the process's highest resident set (VmHWM) less what
it had before the build; "beyond the index" is that less the index.

Goals are absolute. Beside them the build of 10 M has a baseline, which is the one thing that it cannot do without:
`pydivsufsort.divsufsort` over the same bytes, in the same process after the build. So the ratio is the sort's share of
the build's time. It is given with 32-bit positions, which the build has too as long as they suffice, and with the
64-bit ones of a plain sort that takes any size, which may well take longer than the whole build.

What is said of 3 billion tokens is extrapolated: an index is built shard by shard, each of at most `SHARD_TOKENS`, so
size and memory beyond the index are the largest measured build's in proportion, to all tokens and to one shard's.
Seconds a token grow with the logarithm of a shard's tokens, as between the two builds measured.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from pydivsufsort import divsufsort

from benchmarks.decoding.data import VOCABULARY, zipf_rows
from benchmarks.rows import Options, Row, Skipped, at_least, at_most, rate
from workers.decoding.index import SHARD_TOKENS, Index, build_index
from workers.ragged import Ragged

NEEDED_GB = 4
"""Free memory that the large build asks for."""
WIKIPEDIA = 3e9
"""Tokens of 21 M passages."""
SORTS = {32: False, 64: True}
"""Bits of a position in the sorted order, and what `divsufsort` is asked for to have them."""


def measure(options: Options) -> Iterator[Row | Skipped]:
    """Rows for each size, and what they say of Wikipedia's passages."""
    small = 0.2 if options.quick else 10
    first = built = _in_process(small, 1 if options.quick else 3)
    yield at_least(f"index, {small:g} M tokens, build", built["tokens"] / built["seconds"] / 1e6, "M tokens/s", 3)
    yield at_most(f"index, {small:g} M tokens, size", built["index"] / built["tokens"], "bytes a token", 12)
    yield _beyond(small, built)
    yield from _sort_shares(small, built)
    if options.quick:
        yield Skipped(name="index, 50 M tokens", why="--quick")
    elif _free_gb() < NEEDED_GB:
        yield Skipped(name="index, 50 M tokens", why=f"asks for {NEEDED_GB} GB of free memory")
    else:
        built = _in_process(50, 1)
        speed = built["tokens"] / built["seconds"] / 1e6
        yield Row(name="index, 50 M tokens, build", value=speed, unit="M tokens/s")
        yield at_most("index, 50 M tokens, memory with the index", built["peak"] / 1e9, "GB", 2)
        yield _beyond(50, built)
    yield from _extrapolated(first, built)


def _sort_shares(millions: float, built: dict[str, float]) -> Iterator[Row]:
    """The build's speed against that of the sort in it alone."""
    for bits in SORTS:
        what = f"index, {millions:g} M tokens, build, against divsufsort alone (int{bits})"
        value, baseline = (built["tokens"] / built[each] / 1e6 for each in ("seconds", f"sort{bits}"))
        yield rate(what, value, "M tokens/s", baseline)


def _extrapolated(first: dict[str, float], built: dict[str, float]) -> Iterator[Row]:
    name = "extrapolated, index, 3 billion tokens"
    yield Row(name=f"{name}, size", value=WIKIPEDIA * built["index"] / built["tokens"] / 1e9, unit="GB")
    yield Row(name=f"{name}, build", value=WIKIPEDIA * _seconds_a_token(first, built) / 60, unit="minutes")
    beyond = (built["peak"] - built["index"]) / built["tokens"]
    yield Row(name=f"{name}, memory beyond the index", value=SHARD_TOKENS * beyond / 1e9, unit="GB")


def _seconds_a_token(first: dict[str, float], built: dict[str, float]) -> float:
    """In a whole shard; what the larger build took where it was not slower, or the only one."""
    slow, fast = (each["seconds"] / each["tokens"] for each in (built, first))
    if built is first or slow <= fast:
        return slow
    growth = (slow - fast) / np.log(built["tokens"] / first["tokens"])
    return slow + float(growth * np.log(SHARD_TOKENS / built["tokens"]))


def _beyond(millions: float, built: dict[str, float]) -> Row:
    beyond = (built["peak"] - built["index"]) / built["tokens"]
    return Row(name=f"index, {millions:g} M tokens, memory beyond the index", value=beyond, unit="bytes a token")


def _free_gb() -> float:
    return _kilobytes(Path("/proc/meminfo"), "MemAvailable") / 1e6


def _kilobytes(file: Path, key: str) -> int:
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(f"{key}:"))


def _in_process(millions: float, repeats: int) -> dict[str, float]:
    """The median over builds, each in a process of its own, of every figure."""
    with TemporaryDirectory() as folder:
        zipf_rows(int(millions * 1e6), VOCABULARY).save(Path(folder), "rows")
        command = [sys.executable, "-m", "benchmarks.decoding.index", folder]
        printed = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(repeats)]
    builds = [json.loads(each) for each in printed]
    return {name: float(np.median([build[name] for build in builds])) for name in builds[0]}


def _build(folder: Path) -> dict[str, float]:
    build_index(zipf_rows(10_000, VOCABULARY), VOCABULARY, "suffixes")
    mapped = Ragged.load(folder, "rows")
    rows = Ragged(values=np.array(mapped.values), offsets=mapped.offsets)
    status = Path("/proc/self/status")
    before = _kilobytes(status, "VmRSS")
    began = time.perf_counter()
    index: Index = build_index(rows, VOCABULARY, "suffixes")
    seconds = time.perf_counter() - began
    peak = 1024 * (_kilobytes(status, "VmHWM") - before)
    sorts = {f"sort{bits}": _sort_seconds(index.shards[0].tokens, force) for bits, force in SORTS.items()}
    return {"tokens": len(rows.values), "seconds": seconds, "index": index.nbytes, "peak": peak, **sorts}


def _sort_seconds(tokens: np.ndarray, force64: bool) -> float:
    """Of the bare sort of the tokens' big-endian bytes."""
    of_tokens = tokens.astype(tokens.dtype.newbyteorder(">")).view(np.uint8)
    began = time.perf_counter()
    divsufsort(of_tokens, force64=force64)
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(_build(Path(sys.argv[1]))))
