"""Which trials of a grid to run next, so that what laws say of a far configuration is known better."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np

from laws.fitting import Options, fit
from laws.forms import Array, Axis
from laws.planning.choosing import Answering, at_point, configuration_words
from laws.planning.design import design_of
from laws.planning.next import Cell, Chosen, Field, choose, field_of
from laws.planning.space import BadQuestion
from laws.points import Group, Points
from laws.study import Finding

REFITS = 8
"""Imagined outcomes of the chosen trials that the law is fitted to again, to see how much narrower its band is."""
REFIT_BOOTSTRAPS = 200


class Candidate(Cell, Protocol):
    """A trial of a grid. Its labels are those of rows of `trials`, so that it belongs to a group of them."""

    @property
    def n(self) -> int | None:
        """Parameters; None where they are not known."""
        ...

    @property
    def d(self) -> int:
        """Training pairs."""
        ...

    @property
    def beams(self) -> int | None:
        """None where identifiers are sampled."""
        ...

    @property
    def max_new_tokens(self) -> int | None:
        """None: as long as an identifier is."""
        ...

    @property
    def is_plain(self) -> bool:
        """Whether it is a plain beam search."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether it is finished."""
        ...

    @property
    def has_failed(self) -> bool:
        """Whether it failed for good."""
        ...


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What is to be known better, and what that may take."""

    point: Mapping[Axis, float]
    flops: float = math.inf
    cells: int | None = None


@dataclass(frozen=True, kw_only=True)
class Told:
    """A law that the proposed trials tell of."""

    by: Answering
    value: float
    lo: float
    hi: float
    """What it says of the point now, and its interval; in the units that it is fitted to."""
    narrowing: float
    """Width of the band after the proposed trials, as a share of what it is now: foreseen from refits."""
    candidates: int
    """Trials of the grid that could be run for it."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Trials to run next, in order."""

    aim: Aim
    chosen: tuple[Chosen, ...]
    told: tuple[Told, ...]
    notes: tuple[str, ...]

    @property
    def trials(self) -> tuple[str, ...]:
        """Names of the chosen trials."""
        return tuple(one.cell.trial for one in self.chosen)


def propose(findings: Sequence[Finding], candidates: Sequence[Candidate], aim: Aim) -> Proposal:
    """Choose among a grid's trials.

    Raises:
        BadQuestion: no law speaks of the point, or none of the trials could tell more of it.
    """
    speaking = [one for one in at_point(findings, aim.point) if one.finding.is_best]
    if not speaking:
        raise BadQuestion(f"--at: no law speaks of {configuration_words(aim.point)}")
    notes: list[str] = []
    usable, found, telling = _usable(candidates, notes), [], []
    for one in speaking:
        if one.finding.verdict.word == "no law" or not len(one.law.resampled):
            word = one.finding.verdict
            why = f"{word.word}: {word.reason}" if word.word == "no law" else "too few points for a band"
            notes.append(f"{one.title}: nothing is chosen for it ({why})")
            continue
        cells = _of_law(one, usable)
        if not cells:
            notes.append(f"{one.title}: the grid has no further trial of its kind")
            continue
        found.append(_field(one, cells, aim))
        telling.append((one, cells))
    if not found:
        raise BadQuestion("; ".join(notes) or "--next: the grid has nothing left to run")
    chosen = choose(found, flops=aim.flops, cells=aim.cells)
    taken = {one.cell.trial for one in chosen}
    told = tuple(_told(one, cells, [cell for cell in cells if cell.trial in taken], aim) for one, cells in telling)
    return Proposal(aim=aim, chosen=chosen, told=told, notes=tuple(notes))


def _usable(candidates: Sequence[Candidate], notes: list[str]) -> list[Candidate]:
    """Trials that are still to be run and that a law could take in."""
    left = [one for one in candidates if not one.is_done]
    if failed := sum(one.has_failed for one in left):
        notes.append(f"{failed} trials left out: they have failed before (run_grid.py --retry-failed tries them again)")
    left = [one for one in left if not one.has_failed]
    if unknown := sum(one.n is None for one in left):
        notes.append(f"{unknown} trials left out: the size of their model is not known before it is loaded")
    left = [one for one in left if one.n is not None]
    if other := sum(not one.is_plain for one in left):
        notes.append(f"{other} trials left out: laws are about plain beam searches")
    return [one for one in left if one.is_plain]


def _of_law(by: Answering, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those of the law's group, one a point: a training for a loss, a (training, beams) for a metric.

    Of several the one that takes least, for a metric of those with the most new tokens.
    """
    group, held = by.finding.group, by.finding.held
    measured = set(_points_known(by))
    best: dict[tuple[str, int | None], Candidate] = {}
    for one in candidates:
        if not _is_of(one, group) or not all(_value(one, axis) == value for axis, value in held.items()):
            continue
        if any(math.isnan(_value(one, axis)) for axis in by.law.form.axes):
            continue
        cell = (one.run, one.beams if "beams" in by.law.form.axes or "beams" in held else None)
        if cell not in measured and (cell not in best or _rank(one, cell) < _rank(best[cell], cell)):
            best[cell] = one
    return list(best.values())


def _points_known(by: Answering) -> list[tuple[str, int | None]]:
    """Cells that the law was fitted to."""
    points = by.points
    if points.beams is None or not {"beams"} & ({*by.law.form.axes} | by.finding.held.keys()):
        return [(run, None) for run in points.run]
    return [(run, int(beams)) for run, beams in zip(points.run, points.beams, strict=True)]


def _rank(one: Candidate, cell: tuple[str, int | None]) -> tuple[float, float]:
    length = math.inf if one.max_new_tokens is None else one.max_new_tokens
    return (0.0 if cell[1] is None else -length, sum(one.steps.values()))


def _is_of(one: Candidate, group: Group) -> bool:
    """Whether its row will be of the group; what an older table does not say is not asked, nor is the corpus's hash."""
    names = [field.name for field in fields(Group) if field.name != "corpus_hash" and hasattr(one, field.name)]
    return all(getattr(group, name) in ("", getattr(one, name)) for name in names)


def _value(one: Candidate, axis: Axis) -> float:
    values: dict[Axis, float | None] = {"n": one.n, "d": one.d, "beams": one.beams}
    return float(values.get(axis) or math.nan)


def _axes(by: Answering, cells: Sequence[Candidate]) -> list[Array]:
    return [np.array([_value(one, axis) for one in cells]) for axis in by.law.form.axes]


def _field(by: Answering, cells: Sequence[Candidate], aim: Aim) -> Field:
    target = [aim.point[axis] for axis in by.law.form.axes]
    return field_of(by.law, design_of(by.law, by.points, target), cells, _axes(by, cells))


# ---------------------------------------------------------------- how much narrower


def _told(by: Answering, cells: Sequence[Candidate], chosen: Sequence[Candidate], aim: Aim) -> Told:
    target = [np.array([aim.point[axis]]) for axis in by.law.form.axes]
    band = by.law.band(target)
    assert band is not None
    return Told(
        by=by,
        value=float(by.law.predict(target)[0]),
        lo=float(band[0][0]),
        hi=float(band[1][0]),
        narrowing=_by_refits(by, chosen, target),
        candidates=len(cells),
    )


def _by_refits(by: Answering, cells: Sequence[Candidate], target: list[Array]) -> float:
    """Median over imagined outcomes: each is what one bootstrap says the trials will give, and noise."""
    if not cells:
        return 1.0
    law, axes = by.law, _axes(by, cells)
    options = replace(law.options, bootstraps=REFIT_BOOTSTRAPS)
    rng = np.random.default_rng(law.options.seed)
    before = _width(by, _with(by.points, cells, None), target, options)
    after = []
    for number in rng.choice(len(law.resampled), REFITS, replace=len(law.resampled) < REFITS):
        said = replace(law, theta=law.resampled[number]).predict(axes)
        noise = law.noise * rng.standard_normal(len(cells))
        y = said + noise if law.options.loss == "squared" else said * (1 + noise)
        after.append(_width(by, _with(by.points, cells, y), target, options))
    return float(np.median(after) / before)


def _width(by: Answering, points: Points, target: list[Array], options: Options) -> float:
    band = fit(by.law.form, points, options).band(target)
    assert band is not None
    return float(band[1][0] - band[0][0])


def _with(points: Points, cells: Sequence[Candidate], y: Array | None) -> Points:
    """The points, and the cells with their imagined values; without what cells do not have (intervals, draws)."""
    plain = Points(
        n=points.n, d=points.d, y=points.y, beams=points.beams, run=points.run, metric=points.metric,
        quantity=points.quantity,
    )  # fmt: skip
    if y is None:
        return plain
    axes: tuple[Axis, ...] = ("n", "d", "beams")
    more = {axis: np.array([_value(one, axis) for one in cells]) for axis in axes}
    return replace(
        plain,
        n=np.append(plain.n, more["n"]),
        d=np.append(plain.d, more["d"]),
        y=np.append(plain.y, y),
        beams=None if plain.beams is None else np.append(plain.beams, more["beams"]),
        run=(*plain.run, *(one.run for one in cells)) if plain.run else (),
    )
