"""Anybody's table of points: a CSV or Parquet file and the names of its columns.

    read_points("points.csv", Columns(n="params", d="tokens", y="loss"))

A column of numbers must hold numbers: text is refused, and so is a column that is not there. Rows without a positive
finite value on an axis, or without a finite y, are left out and counted; a row that is there twice counts once.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from laws.forms import SYMBOLS, Array, Axis
from laws.points import Group, Points, Selection
from laws.questions import Asked
from laws.tables import BadTable
from results.errors import first_line

AXES: tuple[Axis, ...] = ("n", "d", "beams", "c")
_SAME_TRAINING = 1e-9
"""Compute that a linear function of ln N and ln D gives to within this (in ln C) is that of the training."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column holds what; None: no column does."""

    y: str
    """What is fitted: a loss, or with `is_metric` a metric in [0, 1]."""
    n: str | None = None
    d: str | None = None
    beams: str | None = None
    c: str | None = None
    """FLOPs: of an inference budget where it varies at equal N and D, of the training where it does not."""
    lo: str | None = None
    hi: str | None = None
    run: str | None = None
    family: str | None = None
    is_metric: bool = False
    """Whether y is a metric in [0, 1], higher being better."""

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Those that have a column."""
        return tuple(axis for axis in AXES if getattr(self, axis) is not None)

    @property
    def numbers(self) -> dict[str, str]:
        """Roles that are numbers, and their columns."""
        return {role: name for role in (*AXES, "y", "lo", "hi") if (name := getattr(self, role)) is not None}

    @property
    def words(self) -> dict[str, str]:
        """Roles that are names, and their columns."""
        return {role: name for role in ("run", "family") if (name := getattr(self, role)) is not None}


def asked_of(path: str | Path, columns: Columns) -> list[Asked]:
    """What may be asked of each family's points. Raises BadTable or OSError."""
    name = Path(path).name
    found = read_points(path, columns)
    shared = {"corpus_hash": "", "identifiers": "", "init": "", "recipe": "", "split": ""}
    named = {SYMBOLS[axis]: getattr(columns, axis) for axis in columns.axes}
    definitions = {symbol: f"column {column!r} of {name}" for symbol, column in named.items()}
    definitions["compute"] = f"column {columns.c!r} of {name}" if columns.c else "N times D"
    return [
        Asked(
            group=Group(corpus=name, family=family or "all points", **shared),
            points=selection.points,
            axes=tuple(axis for axis in columns.axes if getattr(selection.points, axis) is not None),
            notes=selection.notes,
            definitions=definitions,
            source=name,
        )
        for family, selection in found.items()
    ]


def read_points(path: str | Path, columns: Columns) -> dict[str, Selection]:
    """The points of each family, by its name (one without a name where no column tells families apart).

    Raises:
        BadTable: one line that names the file and what is wrong with it.
        OSError: it cannot be read.
    """
    if not columns.axes:
        raise BadTable(f"{path}: no axis: name a column of N, D, beams or C")
    table = _read(Path(path), {**columns.numbers, **columns.words})
    if not len(table):
        raise BadTable(f"{path}: no rows")
    numbers = {role: _as_numbers(table, name, path) for role, name in columns.numbers.items()}
    words = {role: tuple(map(str, table.column(name).to_pylist())) for role, name in columns.words.items()}
    if columns.is_metric and ((numbers["y"] < 0) | (numbers["y"] > 1)).any():
        raise BadTable(f"{path}: column {columns.y!r} holds a value outside [0, 1], so it is no metric in [0, 1]")
    family = np.array(words.get("family", [""] * len(table)))
    whole = _points(columns, numbers, words.get("run", ()))
    return {name: _usable(whole.where(family == name), columns) for name in dict.fromkeys(family.tolist())}


def header(path: str | Path) -> list[str]:
    """Names of the columns. Raises BadTable or OSError."""
    path = Path(path)
    return list(_parquet(path).schema_arrow.names) if _is_parquet(path) else _header(_text(path), path)[0]


def _read(path: Path, wanted: dict[str, str]) -> pa.Table:
    """The wanted columns; those of a CSV as text."""
    there = header(path)
    for role, name in wanted.items():
        if name not in there:
            alike = [one for one in there if one.strip().lower() == name.strip().lower()]
            near = alike or get_close_matches(name, there, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(there[:20])}"
            raise BadTable(f"{path}: no column {name!r} (--{role}); {hint}")
        if there.count(name) > 1:
            raise BadTable(f"{path}: {there.count(name)} columns are called {name!r}")
    names = list(dict.fromkeys(wanted.values()))
    return _parquet_columns(path, names) if _is_parquet(path) else _csv_columns(path, names)


def _parquet(path: Path) -> pq.ParquetFile:
    content = path.read_bytes()
    try:
        return pq.ParquetFile(pa.BufferReader(content))
    except (OSError, pa.ArrowException) as error:  # the bytes are here, so it is they that are wrong
        raise BadTable(f"{path}: not a readable Parquet file ({first_line(error)})") from None


def _parquet_columns(path: Path, names: list[str]) -> pa.Table:
    try:
        return _parquet(path).read(columns=names)
    except (OSError, pa.ArrowException) as error:
        raise BadTable(f"{path}: not a readable Parquet file ({first_line(error)})") from None


def _csv_columns(path: Path, names: list[str]) -> pa.Table:
    text = _text(path)
    try:
        return pyarrow.csv.read_csv(
            pa.BufferReader(text),
            parse_options=pyarrow.csv.ParseOptions(delimiter=_header(text, path)[1]),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=names, column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True
            ),
        )
    except pa.ArrowException as error:
        raise BadTable(f"{path}: not a readable CSV file ({first_line(error)})") from None


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1" or path.suffix == ".parquet"


def _text(path: Path) -> bytes:
    try:
        with pa.input_stream(path, compression="detect") as stream:
            content: bytes = stream.read()
    except pa.ArrowException as error:
        raise BadTable(f"{path}: not a readable file ({first_line(error)})") from None
    return content


def _header(text: bytes, path: Path) -> tuple[list[str], str]:
    """The names of the columns and what stands between them: a comma, a semicolon or a tab."""
    lines = text.decode("utf-8-sig", errors="replace").splitlines()
    if not lines or not lines[0].strip():
        raise BadTable(f"{path}: empty" if not text.strip() else f"{path}: the first line does not name the columns")
    delimiter = max(",;\t", key=lines[0].count)
    return next(csv.reader(lines[:1], delimiter=delimiter)), delimiter


def _as_numbers(table: pa.Table, name: str, path: str | Path) -> Array:
    """A column as float64; nulls are NaN. Raises BadTable with the first row that is no number."""
    column = table.column(name)
    if pa.types.is_decimal(column.type) or pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.array([math.nan if value is None else float(value) for value in column.to_pylist()])
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise BadTable(f"{path}: column {name!r} is {column.type} and holds no numbers")
    found = []
    for row, value in enumerate(column.to_pylist(), start=1):
        try:
            found.append(math.nan if value is None or not value.strip() else float(value))
        except ValueError:
            raise BadTable(f"{path}: column {name!r}, row {row}: {value[:40]!r} is no number") from None
    return np.array(found)


def _points(columns: Columns, numbers: dict[str, Array], run: Sequence[str]) -> Points:
    nothing = np.full(len(numbers["y"]), math.nan)
    is_training = _is_of_training(columns, numbers)
    lo, hi = numbers.get("lo"), numbers.get("hi")
    y = numbers["y"]
    if columns.is_metric:  # the error: its ends change places
        y, lo, hi = 1 - y, None if hi is None else 1 - hi, None if lo is None else 1 - lo
    return Points(
        n=numbers.get("n", nothing),
        d=numbers.get("d", nothing),
        y=y,
        beams=numbers.get("beams"),
        c=None if is_training else numbers.get("c"),
        train_flops=numbers.get("c") if is_training else None,
        lo=lo,
        hi=hi,
        run=tuple(run),
        metric=columns.y,
        quantity="error" if columns.is_metric else "loss",
    )


def _is_of_training(columns: Columns, numbers: dict[str, Array]) -> bool:
    """Whether C follows from N and D, as 6 N D does: then it is no axis beside them."""
    axes = [numbers[axis] for axis in ("n", "d") if axis in numbers]
    return "c" in numbers and bool(axes) and _follows(np.stack(axes, axis=1), numbers["c"])


def _follows(axes: Array, c: Array) -> bool:
    """Whether equal rows of `axes` (points, a) have equal c (points,)."""
    usable = np.isfinite(axes).all(axis=1) & np.isfinite(c)
    _, cell = np.unique(axes[usable], axis=0, return_inverse=True)
    cell, values = cell.reshape(-1), c[usable]
    return all(np.ptp(values[cell == one]) <= _SAME_TRAINING * np.abs(values[cell == one]).max() for one in set(cell))


def _usable(points: Points, columns: Columns) -> Selection:
    """Rows with a value on every axis and a y, each once."""
    axes = [axis for axis in columns.axes if getattr(points, axis) is not None]
    notes = []
    good = np.isfinite(points.y)
    if dropped := int((~good).sum()):
        notes.append(f"{dropped} rows left out: no finite {columns.y}")
    for axis in axes:
        values = points.axis(axis)
        positive = np.isfinite(values) & (values > 0)
        if dropped := int((good & ~positive).sum()):
            notes.append(f"{dropped} rows left out: {SYMBOLS[axis]} is not a positive number")
        good &= positive
    kept = points.where(good)
    once = _once(kept, axes)
    if dropped := int((~once).sum()):
        notes.append(f"{dropped} repeated rows left out")
    return Selection(points=kept.where(once), notes=tuple(notes))


def _once(points: Points, axes: Iterable[Axis]) -> NDArray[np.bool_]:
    """False at rows that repeat an earlier one: the same axes, y and run."""
    columns = [points.axis(axis).tolist() for axis in axes]
    rows = list(zip(*columns, points.y.tolist(), points.run or [""] * len(points), strict=True))
    first = {row: index for index, row in reversed(list(enumerate(rows)))}
    return np.array([first[row] == index for index, row in enumerate(rows)], dtype=bool)
