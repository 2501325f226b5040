"""Questions to laws and their answers: what a configuration gives, what is best for a budget, what reaches a target."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from laws.forms import Array, Axis
from laws.planning.choosing import Answering, at_point, configuration_words, for_planning, namer
from laws.planning.costs import Costs
from laws.planning.planner import (
    Cheapest,
    Configuration,
    Optimum,
    best_for_budget,
    best_reachable,
    cheapest_for_target,
    configuration,
)
from laws.planning.quality import IsoQuality, iso_quality
from laws.planning.space import BadQuestion, Space, Where
from laws.study import Finding

ISO_SIZES, ISO_SPAN = 7, 30.0
"""Lines of equal quality are shown at so many N, up to this factor below and above the cheapest."""
ISO_BUDGETS = 5


@dataclass(frozen=True, kw_only=True)
class Predict:
    """What a configuration gives."""

    point: Mapping[Axis, float]


@dataclass(frozen=True, kw_only=True)
class Spend:
    """What is best for so many FLOPs, the queries' among them where there are any."""

    budget: float
    queries: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The cheapest that reaches a metric's value."""

    metric: str
    value: float
    queries: float = 0.0
    probability: float = 0.9


Inquiry = Predict | Spend | Reach


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What holds for any question."""

    where: Where = field(default_factory=Where)
    per_nd: float | None = None
    """Training FLOPs over N D, where the user says so."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A law's word on one configuration. Values are the metric's own."""

    by: Answering
    costs: Costs
    at: Configuration
    is_best: bool
    """Whether it is the best of the forms over its axes."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The best for a budget."""

    by: Answering
    costs: Costs
    optimum: Optimum


@dataclass(frozen=True, kw_only=True)
class Ways:
    """The cheapest ways to a target: by the law itself, and with the probability asked for."""

    by: Answering
    costs: Costs
    likely: Cheapest
    sure: Cheapest | None
    """None where nothing allowed reaches it with that probability."""
    iso: IsoQuality | None
    """None where the law is not over both N and D, or D is not free."""


Answer = Prediction | Plan | Ways


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a law gives no answer, in a line."""

    title: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Reply:
    """All answers to a question."""

    answers: tuple[Answer, ...]
    refused: tuple[Refusal, ...]


def ask(findings: Sequence[Finding], asked: Inquiry, terms: Terms) -> Reply:
    """Answer by every group and metric.

    Raises:
        BadQuestion: nothing that was fitted can be asked that.
    """
    if isinstance(asked, Predict):
        answering = at_point(findings, asked.point)
        if not answering:
            raise BadQuestion(f"--predict: no law speaks of {configuration_words(asked.point)}: {_why(findings)}")
    else:
        answering = for_planning(findings, asked.queries)
        if not answering:
            needed = "N, D and an inference budget" if asked.queries else "N and D"
            raise BadQuestion(f"there is no law over {needed} to plan with: {_why(findings)}")
    answers, refused, seen = [], [], set[tuple[object, str]]()
    for one in answering:
        question = (one.finding.group, one.finding.metric)
        is_best = question not in seen
        seen.add(question)
        if one.finding.verdict.word == "no law":
            if is_best:  # of a rival nobody needs to hear it
                refused.append(Refusal(title=one.title, reason=f"no law: {one.finding.verdict.reason}"))
            continue
        found = _answer(one, asked, terms, is_best)
        if isinstance(found, Refusal):
            refused.append(found)
        else:
            answers.append(found)
    return Reply(answers=tuple(answers), refused=tuple(refused))


def _why(findings: Sequence[Finding]) -> str:
    """What was fitted instead, for who asked for something else."""
    fitted = [one for one in findings if one.law is not None]
    if fitted:
        return "there are laws over " + "; ".join(dict.fromkeys(one.axes for one in fitted))
    name = namer(one.group for one in findings)
    return "; ".join(dict.fromkeys(f"{name(one.group)}: {one.verdict.reason}" for one in findings)) or "nothing fitted"


def _answer(by: Answering, asked: Inquiry, terms: Terms, is_best: bool) -> Answer | Refusal:
    costs = by.costs(terms.per_nd)
    if isinstance(asked, Predict):
        values = {**by.finding.held, **asked.point}
        return Prediction(by=by, costs=costs, at=configuration(by.law, costs, values), is_best=is_best)
    if asked.queries and costs.inference is None:
        return Refusal(title=by.title, reason="the table says nothing of inference FLOPs, so queries have no price")
    try:
        space = by.space(terms.where, costs, asked.queries)
    except BadQuestion as error:
        return Refusal(title=by.title, reason=str(error))
    return _spend(by, costs, space, asked) if isinstance(asked, Spend) else _reach(by, costs, space, asked)


def _spend(by: Answering, costs: Costs, space: Space, asked: Spend) -> Plan | Refusal:
    optimum = best_for_budget(by.law, costs, space, asked.budget, asked.queries)
    if optimum is None:
        return Refusal(title=by.title, reason=f"{asked.budget:.3g} FLOPs are too few for anything that is allowed")
    return Plan(by=by, costs=costs, optimum=optimum)


def _reach(by: Answering, costs: Costs, space: Space, asked: Reach) -> Ways | Refusal:
    target = by.scale.fitted_of(asked.value)
    likely = cheapest_for_target(by.law, costs, space, target, asked.queries)
    if likely is None:
        return Refusal(title=by.title, reason=_out_of_reach(by, costs, space, asked))
    sure = None
    if len(by.law.resampled):
        sure = cheapest_for_target(by.law, costs, space, target, asked.queries, asked.probability)
    return Ways(by=by, costs=costs, likely=likely, sure=sure, iso=_iso(by, space, likely, target))


def _out_of_reach(by: Answering, costs: Costs, space: Space, asked: Reach) -> str:
    """Where the law ends, and what is best of what is allowed."""
    scale = by.scale
    floor = next(parameter for parameter in by.law.parameters if parameter.name == by.law.form.floor)
    limit = scale.metric_of(floor.value)
    line = f"{scale.name} = {asked.value:g} is out of reach: "
    if (limit > asked.value) if scale.is_loss else (limit < asked.value):
        band = ""
        if floor.lo is not None and floor.hi is not None:
            ends = scale.interval(floor.lo, floor.hi)
            band = f" [{ends[0]:.4g}, {ends[1]:.4g}]"
        return line + f"the law ends at {limit:.4g}{band}, however much is spent"
    best = best_reachable(by.law, costs, space)
    if best is None:
        return line + "nothing is allowed"
    return (
        line + f"of what is allowed {configuration_words(best.values)} is best, with {scale.metric_of(best.value):.4g}"
    )


def _iso(by: Answering, space: Space, likely: Cheapest, target: float) -> IsoQuality | None:
    width = space.ranges["n"]
    if not {"n", "d"} <= set(by.law.form.axes) or not space.ranges["d"].is_free:
        return None
    n = likely.best.values["n"]
    sizes = (
        np.array(width.choices)
        if width.choices
        else _about(n, max(width.lo, n / ISO_SPAN), min(width.hi, n * ISO_SPAN))
    )
    gains: Array | None = None
    gain = next((axis for axis in by.law.form.axes if axis in ("beams", "c")), None)
    if gain is not None:
        measured = np.unique(by.points.axis(gain))
        some = np.unique(np.linspace(0, len(measured) - 1, ISO_BUDGETS - 1).round().astype(int))
        gains = np.unique(np.append(measured[some], likely.best.values[gain]))
    return iso_quality(by.law, target, sizes, gains, space.ranges["d"].lo)


def _about(centre: float, lo: float, hi: float) -> Array:
    """Values about a centre that is one of them, evenly spaced in the logarithm on either side."""
    half = ISO_SIZES // 2
    return np.unique(np.concatenate([np.geomspace(lo, centre, half + 1), np.geomspace(centre, hi, half + 1)]))


def metric_words(by: Answering, at: Configuration) -> str:
    """`0.72 [0.70, 0.74]`."""
    scale = by.scale
    lo, hi = scale.interval(at.lo, at.hi)
    band = "" if math.isnan(lo) else f" [{lo:.4g}, {hi:.4g}]"
    return f"{scale.metric_of(at.value):.4g}{band}"
