"""Every number of a report as data: `laws.json`, and `laws.parquet` with a row a law."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from laws import tuning
from laws.points import label
from laws.reporting.provenance import provenance
from laws.study import Finding
from laws.tables import Tables

_GROUP = ("corpus", "corpus_hash", "identifiers", "family", "init", "recipe", "split")
_NUMBER = pa.float64()


def _records(**fields: pa.DataType) -> pa.DataType:
    return pa.list_(pa.struct(list(fields.items())))


SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in (*_GROUP, "metric", "fitted_quantity", "form")),
        ("axes", pa.list_(pa.string())),
        ("formula", pa.string()),
        ("latex", pa.string()),
        ("held", _records(axis=pa.string(), value=_NUMBER)),
        ("n_points", pa.int64()),
        ("n_distinct", pa.int64()),
        ("n_parameters", pa.int64()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("notes", pa.list_(pa.string())),
        ("parameters", _records(name=pa.string(), value=_NUMBER, lo=_NUMBER, hi=_NUMBER)),
        *(
            (name, _NUMBER)
            for name in ("r2", "rmse", "leave_out_rmse", "leave_out_null_rmse", "leave_out_skill", "starts_agree")
        ),
        ("limits", pa.list_(pa.string())),
        ("chance", _NUMBER),
        (
            "points",
            _records(n=_NUMBER, d=_NUMBER, beams=_NUMBER, y=_NUMBER, lo=_NUMBER, hi=_NUMBER, fitted=_NUMBER),
        ),
    ]
)
"""Columns of laws.parquet: scalars, and lists of records that DuckDB, pandas and Polars unnest."""


def as_numbers(tables: Tables, findings: Sequence[Finding]) -> dict[str, Any]:
    """Everything in the report as plain values; what is unknown or infinite is None."""
    reasons = [{"trial": row.trial, "grid": row.grid, "error": row.error} for row in tables.failed]
    counts = {"done": len(tables.trials) - len(reasons), "failed": len(reasons), "duplicates": tables.duplicates}
    baselines = [
        {"corpus": row.corpus, "corpus_hash": row.corpus_hash, "baseline": row.baseline}
        | {name: vars(measured) for name, measured in row.measured.items()}
        for row in tables.baselines
    ]
    plain: dict[str, Any] = _finite(
        {
            "trials": counts,
            "failed": reasons,
            "baselines": baselines,
            "laws": [_law(finding) for finding in findings],
            "learning_rates": [tuning.numbers(transfer) for transfer in tuning.transfers(tables.studies)],
            "provenance": provenance(tables),
        }
    )
    return plain


def write_json(numbers: dict[str, Any], path: Path) -> None:
    """The whole of it. Raises OSError."""
    text = json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_parquet(numbers: dict[str, Any], path: Path) -> None:
    """A row a law; what belongs to no law stands as JSON under `gridlaw` in the file's metadata. Raises OSError."""
    others = {name: value for name, value in numbers.items() if name != "laws"}
    schema = SCHEMA.with_metadata({"gridlaw": json.dumps(others, ensure_ascii=False)})
    table = pa.Table.from_pylist([_row(law) for law in numbers["laws"]], schema=schema)
    pq.write_table(table, path, compression="zstd")


def _row(law: dict[str, Any]) -> dict[str, Any]:
    """A law of laws.json as a row: its fit beside it, dictionaries and columns as records."""
    fit = law["law"] or {}
    names = list(law["points"])
    return {
        **law,
        **fit,
        "held": [{"axis": axis, "value": value} for axis, value in law["held"].items()],
        "parameters": [{"name": name, **ends} for name, ends in fit.get("parameters", {}).items()],
        "points": [dict(zip(names, row, strict=True)) for row in zip(*law["points"].values(), strict=True)],
    }


def _law(finding: Finding) -> dict[str, Any]:
    law, points = finding.law, finding.points
    columns = {"n": points.n, "d": points.d, "beams": points.beams, "y": points.y, "lo": points.lo, "hi": points.hi}
    fitted: dict[str, Any] | None = None
    if law is not None:
        columns["fitted"] = law.predict([points.axis(axis) for axis in finding.form.axes])
        fitted = {
            "parameters": {item.name: {"value": item.value, "lo": item.lo, "hi": item.hi} for item in law.parameters},
            "r2": law.r2,
            "rmse": law.rmse,
            "leave_out_rmse": law.leave_out.rmse if law.leave_out else None,
            "leave_out_null_rmse": law.leave_out.null_rmse if law.leave_out else None,
            "leave_out_skill": law.leave_out.skill if law.leave_out else None,
            "starts_agree": law.agree,
            "limits": list(law.limits),
        }
    return {
        **vars(finding.group),
        "metric": finding.metric,
        "fitted_quantity": label(finding.metric),
        "form": finding.form.name,
        "axes": list(finding.form.axes),
        "formula": finding.form.text,
        "latex": finding.form.latex,
        "held": dict(finding.held),
        "n_points": len(points),
        "n_distinct": points.distinct(finding.form.axes),
        "n_parameters": len(finding.form.parameters),
        "verdict": finding.verdict.word,
        "reason": finding.verdict.reason,
        "notes": list(finding.notes),
        "law": fitted,
        "chance": points.chance,
        "points": {name: values.tolist() for name, values in columns.items() if values is not None},
    }


def _finite(value: Any) -> Any:
    """The same with None for NaN and infinities: JSON has neither."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
