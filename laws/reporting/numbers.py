"""Every number of a report as data: `laws.json`, and `laws.parquet` with a row a law."""

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from laws import tuning
from laws.fitting import Law, Profile
from laws.planning.planner import Optimum
from laws.points import Group, label
from laws.reporting.found import Found
from laws.reporting.plans import Plan
from laws.reporting.provenance import provenance
from laws.study import Finding
from laws.together import Together
from laws.trust.comparison import Rival

_GROUP = tuple(field.name for field in fields(Group))
_NUMBER, _TEXT, _COUNT, _YES = pa.float64(), pa.string(), pa.int64(), pa.bool_()
_ENDS = {"lo": _NUMBER, "hi": _NUMBER}


def _records(**columns: pa.DataType) -> pa.DataType:
    return pa.list_(pa.struct(list(columns.items())))


SCHEMA = pa.schema(
    [
        *((name, _TEXT) for name in (*_GROUP, "metric", "fitted_quantity", "form", "formula", "latex")),
        ("axes", pa.list_(_TEXT)),
        ("held", _records(axis=_TEXT, value=_NUMBER)),
        *((name, _COUNT) for name in ("n_points", "n_distinct", "n_parameters")),
        ("is_best", _YES),
        ("verdict", _TEXT),
        ("reason", _TEXT),
        ("notes", pa.list_(_TEXT)),
        ("parameters", _records(name=_TEXT, value=_NUMBER, **_ENDS, open_below=_YES, open_above=_YES)),
        *((name, _NUMBER) for name in ("r2", "rmse", "objective", "noise", "aicc")),
        *((name, _NUMBER) for name in ("leave_out_rmse", "leave_out_null_rmse", "leave_out_skill", "starts_agree")),
        ("limits", pa.list_(_TEXT)),
        ("chance", _NUMBER),
        (
            "comparison",
            _records(
                form=_TEXT, quantity=_TEXT, parameters=_COUNT, n_points=_COUNT, n_distinct=_COUNT, objective=_NUMBER,
                aicc=_NUMBER, behind=_NUMBER, leave_out_rmse=_NUMBER, skill=_NUMBER,
            ),
        ),
        (
            "holdouts",
            _records(
                axis=_TEXT, held=pa.list_(_NUMBER), n_train=_COUNT, n_held=_COUNT, predicted=_NUMBER, measured=_NUMBER,
                error=_NUMBER, **_ENDS, p=_NUMBER, inside=_YES,
            ),
        ),
        (
            "profiles",
            _records(
                name=_TEXT, values=pa.list_(_NUMBER), objective=pa.list_(_NUMBER), **_ENDS, open_below=_YES,
                open_above=_YES,
            ),
        ),
        ("structure", pa.struct([("p", _NUMBER), ("share", _NUMBER), ("what", _TEXT), ("lack_of_fit", _NUMBER)])),
        ("card", _TEXT),
        (
            "points",
            _records(
                n=_NUMBER, d=_NUMBER, beams=_NUMBER, c=_NUMBER, y=_NUMBER, **_ENDS, fitted=_NUMBER,
                train_flops=_NUMBER, infer_flops=_NUMBER, run=_TEXT,
            ),
        ),
    ]
)  # fmt: skip
"""Columns of laws.parquet: scalars, and lists of records that DuckDB, pandas and Polars unnest. The card is JSON."""


def as_numbers(found: Found) -> dict[str, Any]:
    """Everything in the report as plain values; what is unknown or infinite is None."""
    tables = found.tables
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
            "laws": [_law(finding) for finding in found.findings],
            "families": [_together(one) for one in found.families],
            "plans": [_plan(one) for one in found.plans],
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
        "card": json.dumps(law["card"], ensure_ascii=False) if law["card"] else None,
        "points": [dict(zip(names, row, strict=True)) for row in zip(*law["points"].values(), strict=True)],
    }


def _law(finding: Finding) -> dict[str, Any]:
    points = finding.points
    columns = {name: getattr(points, name) for name in ("n", "d", "beams", "c", "y", "lo", "hi")}
    columns |= {name: getattr(points, name) for name in ("train_flops", "infer_flops")}
    if finding.law is not None:
        columns["fitted"] = finding.law.predict([points.axis(axis) for axis in finding.form.axes])
    listed = {name: values.tolist() for name, values in columns.items() if values is not None}
    return {
        **vars(finding.group),
        "metric": finding.metric,
        "fitted_quantity": label(finding.metric, points.quantity),
        "form": finding.form.name,
        "axes": list(finding.form.axes),
        "formula": finding.form.text,
        "latex": finding.form.latex,
        "held": dict(finding.held),
        "n_points": len(points),
        "n_distinct": points.distinct(finding.form.axes),
        "n_parameters": len(finding.form.parameters),
        "is_best": finding.is_best,
        "verdict": finding.verdict.word,
        "reason": finding.verdict.reason,
        "notes": list(finding.notes),
        "law": None if finding.law is None else _fit(finding.law),
        "comparison": [_rival(rival) for rival in finding.comparison.rivals] if finding.comparison else [],
        "holdouts": [{**vars(one), "inside": one.inside} for one in finding.holdouts],
        "profiles": [_profile(one) for one in finding.profiles],
        "structure": vars(finding.structure) if finding.structure else None,
        "card": vars(finding.card) if finding.card else None,
        "chance": points.chance,
        "points": listed | ({"run": list(points.run)} if points.run else {}),
    }


def _fit(law: Law) -> dict[str, Any]:
    left_out = law.leave_out
    return {
        "parameters": {
            one.name: {name: value for name, value in vars(one).items() if name != "name"} for one in law.parameters
        },
        "r2": law.r2,
        "rmse": law.rmse,
        "objective": law.objective,
        "noise": law.noise,
        "aicc": law.aicc,
        "leave_out_rmse": left_out.rmse if left_out else None,
        "leave_out_null_rmse": left_out.null_rmse if left_out else None,
        "leave_out_skill": left_out.skill if left_out else None,
        "starts_agree": law.agree,
        "limits": list(law.limits),
    }


def _profile(one: Profile) -> dict[str, Any]:
    return {**vars(one), "values": one.values.tolist(), "objective": one.objective.tolist()}


def _rival(rival: Rival) -> dict[str, Any]:
    told = {name: value for name, value in vars(rival).items() if name not in ("form", "k")}
    return {"form": rival.name, "parameters": rival.k, **told}


def _together(one: Together) -> dict[str, Any]:
    return {
        "families": [group.family for group in one.groups],
        **{name: getattr(one.groups[0], name) for name in ("corpus", "corpus_hash", "identifiers")},
        "metric": one.metric,
        "form": one.base.name,
        "axes": list(one.base.axes),
        "held": [dict(held) for held in one.held],
        "word": one.word,
        "reason": one.reason,
        "shared": _fit(one.shared),
        "separate": _fit(one.separate),
    }


def _plan(plan: Plan) -> dict[str, Any]:
    finding = plan.by.finding
    return {
        **vars(finding.group),
        "metric": finding.metric,
        "fitted_quantity": label(finding.metric, finding.points.quantity),
        "form": finding.form.name,
        "held": dict(finding.held),
        "training_flops": {"formula": plan.costs.training.text, "from": plan.costs.training.basis},
        "inference_flops": {"formula": plan.costs.inference.text, "from": plan.costs.inference.basis}
        if plan.costs.inference
        else None,
        "frontier": [_optimum(one) for one in plan.frontier],
        "lifetimes": [_optimum(one) | {"training_share": one.training_share} for one in plan.lifetimes],
        "levels": [
            {name: values.tolist() if name != "target" else values for name, values in vars(level).items()}
            for level in plan.levels
        ],
    }


def _optimum(one: Optimum) -> dict[str, Any]:
    return {
        **vars(one.best),
        "values": dict(one.best.values),
        "queries": one.queries,
        "bands": {axis: list(band) for axis, band in one.bands.items()},
        "edges": list(one.edges),
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
