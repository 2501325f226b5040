"""All laws of a results folder or a table: each question's rival forms, fitted, compared and judged."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from laws.fitting import Law, Options, Profile, fit, profile
from laws.forms import SYMBOLS, Axis, Form
from laws.points import Group, Points, chance_of_metric, describe, groups, is_loss, label, select
from laws.questions import Asked, Candidate, Question, questions
from laws.tables import Tables, Trial
from laws.trust.card import Card, card
from laws.trust.comparison import Comparison, Rival, compare
from laws.trust.holdouts import HoldOut
from laws.trust.structure import Structure
from laws.trust.verdict import Evidence, Verdict, beaten, evidence, judge, refused, too_few

DEFAULT_METRICS = ("cgl", "cgl_published", "nll", "hit@10")
ALIKE = 1.3
"""Two forms fit alike where their RMSE are within this factor."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One form asked of one group's points of one metric."""

    group: Group
    metric: str
    form: Form
    held: dict[Axis, float]
    """The axes held fixed, and at what."""
    points: Points
    law: Law | None
    """None where no curve can be drawn; the verdict says why."""
    verdict: Verdict
    notes: tuple[str, ...]
    is_best: bool = False
    """Whether it is the best of the rival forms of its question."""
    comparison: Comparison | None = None
    """All rival forms of its question and the null model; None where no curve can be drawn."""
    holdouts: tuple[HoldOut, ...] = ()
    structure: Structure | None = None
    profiles: tuple[Profile, ...] = ()
    """Of each parameter, of the best form of a question."""
    card: Card | None = None

    @property
    def could_be_asked(self) -> bool:
        """False where an axis has too few values for any curve."""
        return self.law is not None or self.verdict.word != "under-determined"

    @property
    def axes(self) -> str:
        """`N`, `D`, `beams`, `N and D`, `N, D and beams`."""
        *first, last = (SYMBOLS[axis] for axis in self.form.axes)
        return f"{', '.join(first)} and {last}" if first else last

    @property
    def title(self) -> str:
        """`CGL over N (power), at D = 36k`."""
        return f"{label(self.metric, self.points.quantity)} over {self.axes} ({self.form.name})" + (
            f", {describe(self.held)}" if self.held else ""
        )


def study(tables: Tables, metrics: Sequence[str] = DEFAULT_METRICS, options: Options | None = None) -> list[Finding]:
    """Fit and judge everything, in a stable order: by group, metric, question, form."""
    return [
        finding
        for group, trials in groups(tables.trials).items()
        for metric in _measured(trials, metrics)
        for finding in answer(_asked(tables, group, trials, metric, options or Options()), options)
    ]


def _measured(trials: Sequence[Trial], metrics: Sequence[str]) -> Sequence[str]:
    """Metrics that any of the trials has; all where there is none, so that this is said."""
    return [metric for metric in metrics if any(trial.measured[metric].known for trial in trials)] or metrics


def answer(asked: Asked, options: Options | None = None, names: Sequence[str] = ()) -> Iterator[Finding]:
    """Every question that can be asked of these points, as far as these forms go (all where none is named)."""
    for question in questions(asked, names):
        yield from _findings(question, options or Options(), bool(names))


def members(tables: Tables, findings: Sequence[Finding]) -> dict[Group, tuple[Trial, ...]]:
    """The trials of each group; none of one whose points are not from trials."""
    found = groups(tables.trials)
    return found | {one.group: () for one in findings if one.group not in found}


def unasked(findings: Sequence[Finding], name: Callable[[Group], str]) -> tuple[str, ...]:
    """One line a group and axis along which no law could be asked for."""
    lines = (f"{name(one.group)}: {one.verdict.reason}" for one in findings if not one.could_be_asked)
    return tuple(dict.fromkeys(lines))


def _asked(tables: Tables, group: Group, trials: Sequence[Trial], metric: str, options: Options) -> Asked:
    chance = math.nan if is_loss(metric) else chance_of_metric(metric, group, tables.baselines)
    selection = select(trials, metric, chance, tables.queries, options.bootstraps, options.seed)
    sources = dict.fromkeys(trial.source for trial in trials if trial.source)
    caveats: dict[Axis, str] = {}
    # `ppmi` without a rank has the rank of the model's width, which grows with N
    if trials[0].init == "ppmi" and len(np.unique(selection.points.n)) > 1:
        caveats["n"] = "N is confounded with the rank of the initial embeddings"
    return Asked(
        group=group,
        points=selection.points,
        axes=("n", "d") if is_loss(metric) else ("n", "d", "beams"),
        notes=selection.notes,
        caveats=caveats,
        source="; ".join(sources),
    )


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    candidate: Candidate
    points: Points
    law: Law


def _findings(question: Question, options: Options, is_named: bool) -> Iterator[Finding]:
    told = [one for one in question.candidates if one.is_told or is_named]
    first = next(iter(told or question.candidates))
    if (verdict := too_few(first.form, question.points)) is not None:
        yield from (_unfitted(question, one, verdict) for one in told)
        return
    quick = replace(options, bootstraps=0, intervals=False)
    fitted = []
    for candidate in question.candidates:
        points, how = question.of(candidate.quantity), options if candidate in told else quick
        if points is not None:
            fitted.append(_Fitted(candidate=candidate, points=points, law=fit(candidate.form, points, how)))
    comparison = compare([(one.law, one.points) for one in fitted])
    best = comparison.best
    for one in fitted:
        is_best = (one.candidate.form, one.candidate.quantity) == (best.form, best.quantity)
        if one.candidate in told:
            yield _judged(question, one, comparison, is_best)
        elif is_best:
            whole = replace(one, law=fit(one.candidate.form, one.points, options))
            yield _judged(question, whole, comparison, is_best)


def _unfitted(question: Question, candidate: Candidate, verdict: Verdict) -> Finding:
    return Finding(
        group=question.asked.group,
        metric=question.points.metric,
        form=candidate.form,
        held=question.held,
        points=question.points,
        law=None,
        verdict=verdict,
        notes=question.asked.notes,
    )


def _judged(question: Question, one: _Fitted, comparison: Comparison, is_best: bool) -> Finding:
    law, points, asked = one.law, one.points, question.asked
    early, tested = refused(law, points), None
    if is_best and (early is None or early.word == "under-determined"):
        tested = evidence(law, points, comparison, question.caveats)
    elif early is None and beaten(law, points, comparison):
        # it is not supported whatever hold-outs say, and they cost most of the time
        tested = Evidence(holdouts=(), structure=None, comparison=comparison, caveats=question.caveats)
    elif early is None:
        tested = evidence(law, points, comparison, question.caveats)
    verdict = early or judge(law, points, tested)
    return Finding(
        group=asked.group,
        metric=points.metric,
        form=law.form,
        held=question.held,
        points=points,
        law=law,
        verdict=_with_rivals(verdict, law, points, comparison),
        notes=asked.notes,
        is_best=is_best,
        comparison=comparison,
        holdouts=tested.holdouts if tested else (),
        structure=tested.structure if tested else None,
        profiles=_profiles(law, points) if is_best and tested else (),
        card=card(law, points, asked.definitions, question.held, asked.source),
    )


def _profiles(law: Law, points: Points) -> tuple[Profile, ...]:
    found = (profile(law, points, name) for name in law.form.parameters)
    return tuple(one for one in found if one is not None)


def _with_rivals(verdict: Verdict, law: Law, points: Points, comparison: Comparison) -> Verdict:
    """Where another form with as many parameters or fewer describes the points alike, neither is the law: say so."""
    mine = comparison.of(law.form, points.quantity)
    rivals = [
        rival
        for rival in comparison.rivals
        if rival.form not in (None, law.form) and rival.quantity == mine.quantity and _is_alike(rival, mine)
    ]
    if not rivals or verdict.word == "no law":
        return verdict
    names = " and ".join(rival.name for rival in rivals)
    words = "forms fit" if len(rivals) > 1 else "form fits"
    return replace(verdict, reason=f"{verdict.reason}; the {names} {words} as well or better")


def _is_alike(rival: Rival, mine: Rival) -> bool:
    return rival.k <= mine.k and math.sqrt(rival.objective) <= ALIKE * math.sqrt(mine.objective)
