"""Answers as plain values, for JSON."""

import math
from typing import Any

from laws.planning.answers import Answer, Inquiry, Plan, Predict, Prediction, Reach, Reply, Spend, Ways
from laws.planning.choosing import Answering
from laws.planning.costs import Costs
from laws.planning.planner import Cheapest, Configuration
from laws.planning.quality import IsoQuality


def as_json(reply: Reply, asked: Inquiry) -> dict[str, Any]:
    """Plain values; a number that is not there is null."""
    return {
        "question": _question(asked),
        "answers": [_answer(one) for one in reply.answers],
        "refused": [{"law": one.title, "reason": one.reason} for one in reply.refused],
    }


def _question(asked: Inquiry) -> dict[str, Any]:
    match asked:
        case Predict():
            return {"predict": dict(asked.point)}
        case Spend():
            return {"budget": asked.budget, "queries": asked.queries}
        case Reach():
            return {"target": {asked.metric: asked.value}, "queries": asked.queries, "probability": asked.probability}


def _answer(one: Answer) -> dict[str, Any]:
    group = {name: getattr(one.by.finding.group, name) for name in ("corpus", "identifiers", "family")}
    said: dict[str, Any] = {
        **group,
        "law": one.by.title,
        "metric": one.by.finding.metric,
        "form": one.by.law.form.name,
        "axes": list(one.by.law.form.axes),
        "verdict": one.by.finding.verdict.word,
        "reason": one.by.finding.verdict.reason,
        "costs": _costs(one.costs),
    }
    match one:
        case Prediction():
            return said | _configuration(one.by, one.at) | {"is_best": one.is_best}
        case Plan():
            bands = {f"{axis}_interval": list(band) for axis, band in one.optimum.bands.items()}
            share = {"training_share": one.optimum.training_share, "at_edge": list(one.optimum.edges)}
            return said | _configuration(one.by, one.optimum.best) | bands | share
        case Ways():
            ways = {"by_law": _way(one, one.likely), "with_probability": one.sure and _way(one, one.sure)}
            return said | ways | {"iso_quality": one.iso and _iso(one.iso)}


def _configuration(by: Answering, at: Configuration) -> dict[str, Any]:
    lo, hi = by.scale.interval(at.lo, at.hi)
    return {
        **{str(axis): value for axis, value in at.values.items()},
        "train_flops": at.train_flops,
        "infer_flops_per_query": _known(at.infer_flops),
        "latency_ms": _known(at.latency_ms),
        "predicted": _known(by.scale.metric_of(at.value)),
        "predicted_lo": _known(lo),
        "predicted_hi": _known(hi),
        "beyond": by.beyond(at.values),
    }


def _way(ways: Ways, way: Cheapest) -> dict[str, Any]:
    more = {"total_flops": way.total_flops, "probability": _known(way.probability), "at_edge": list(way.edges)}
    return _configuration(ways.by, way.best) | more


def _costs(costs: Costs) -> dict[str, Any]:
    known = {"training": costs.training, "inference": costs.inference, "latency": costs.latency}
    return {
        name: cost
        and {"formula": cost.text, "basis": cost.basis, "worst_error": cost.worst_error if cost.n_points else None}
        for name, cost in known.items()
    }


def _iso(iso: IsoQuality) -> dict[str, Any]:
    table = {"d": iso.d, "d_lo": iso.lo, "d_hi": iso.hi}
    rows = {name: [[_known(float(value)) for value in row] for row in values] for name, values in table.items()}
    return {"n": iso.n.tolist(), "budgets": [_known(float(value)) for value in iso.gains], **rows}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
