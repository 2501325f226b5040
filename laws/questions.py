"""What is asked of a metric's points: along which axes, and which forms are rivals for the answer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from laws.forms import (
    AddedGain,
    Additive,
    Array,
    Axis,
    Bounded,
    FallingForm,
    Form,
    InteractingGain,
    Joint,
    PowerLaw,
    SaturatingGain,
    WithBudget,
)
from laws.points import Group, Points, Quantity, fix
from laws.trust.card import OWN_DEFINITIONS

TRAINING: tuple[FallingForm, ...] = (Joint(), Additive())
GAINS = (AddedGain(), InteractingGain(), SaturatingGain())


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Points of one group and metric, with all axes free."""

    group: Group
    points: Points
    axes: tuple[Axis, ...]
    """Those along which a law may run."""
    notes: tuple[str, ...] = ()
    """What was left out, in words."""
    definitions: Mapping[str, str] = field(default_factory=lambda: dict(OWN_DEFINITIONS))
    """Of the axes and of compute, for the fit card."""
    caveats: Mapping[Axis, str] = field(default_factory=dict)
    """What stands in the way of reading a law along an axis as one of that axis."""
    source: str = ""
    """Who published the points."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A form, and the quantity that it is fitted to."""

    form: Form
    quantity: Quantity
    is_told: bool
    """Whether it is reported in full whether it is the best or not."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One set of axes; the others are held."""

    asked: Asked
    axes: tuple[Axis, ...]
    points: Points
    held: dict[Axis, float]
    candidates: tuple[Candidate, ...]

    def of(self, quantity: Quantity) -> Points | None:
        """The points as another quantity; None where that is not finite."""
        return self.points if quantity == self.points.quantity else on_log(self.points)

    @property
    def caveats(self) -> tuple[str, ...]:
        """Those of its axes, and that all points are of one training."""
        found = [self.asked.caveats[axis] for axis in self.axes if axis in self.asked.caveats]
        trained = [axis for axis in self.axes if axis in ("n", "d")]
        if not trained and self.points.run and len(set(self.points.run)) == 1:
            found.append("all points are of one training run")
        return tuple(found)


def questions(asked: Asked, names: Sequence[str] = ()) -> list[Question]:
    """Single axes, N and D, and N, D and a budget.

    Args:
        names: forms to be fitted, as `form_name` writes them or by the form of N and D that they extend; all if empty.
    """
    found = []
    budgets = [axis for axis in asked.axes if axis in ("beams", "c")]
    kinds: list[tuple[Axis, ...]] = [(axis,) for axis in asked.axes]
    if {"n", "d"} <= set(asked.axes):
        kinds += [("n", "d"), *(("n", "d", budget) for budget in budgets)]
    for axes in kinds:
        candidates = tuple(one for one in _candidates(axes, asked.points) if not names or _is_named(one.form, names))
        points, held = fix(asked.points, axes, asked.axes)
        if candidates:
            found.append(Question(asked=asked, axes=axes, points=points, held=held, candidates=candidates))
    return found


def _candidates(axes: tuple[Axis, ...], points: Points) -> list[Candidate]:
    quantity = points.quantity
    is_metric = quantity == "error"
    plain: list[FallingForm] = [PowerLaw(axis=axes[0])] if len(axes) == 1 else list(TRAINING)
    if len(axes) == 3:
        extended = [WithBudget(base=base, gain=gain, axis=axes[2]) for base in TRAINING for gain in GAINS]
        found = [Candidate(form=form, quantity=quantity, is_told=False) for form in extended]
        bounded: list[Form] = [Bounded(base=WithBudget(base=Additive(), axis=axes[2]))]
    else:
        found = [Candidate(form=form, quantity=quantity, is_told=True) for form in plain]
        bounded = [Bounded(base=form) for form in plain]
        bounded += [Bounded(base=form, ceiling=None) for form in plain if len(axes) == 1]
        found += [Candidate(form=form, quantity="-log", is_told=False) for form in plain if is_metric]
    return found + [Candidate(form=form, quantity=quantity, is_told=False) for form in bounded if is_metric]


def form_name(form: Form) -> str:
    """As it is written on a command line: `joint`, `additive+gain`, `bounded-power`."""
    return form.name.replace(" + ", "+").replace(" ", "-")


def all_names() -> tuple[str, ...]:
    """Names of all forms that may be asked for."""
    budgets = (WithBudget(base=base, gain=gain) for base in TRAINING for gain in GAINS)
    forms = (PowerLaw(axis="n"), *TRAINING, *budgets)
    return tuple(form_name(form) for form in forms)


def _is_named(form: Form, names: Sequence[str]) -> bool:
    base = form.base if isinstance(form, Bounded) else form
    inner = base.base if isinstance(base, WithBudget) else base
    return bool({form_name(form), form_name(base), form_name(inner)} & set(names))


def on_log(points: Points) -> Points | None:
    """Points of an error 1 - m as those of -log m, where every m, its ends and its draws are positive; else None."""

    def turned(errors: Array | None) -> Array | None:
        return None if errors is None else -np.log1p(-errors)

    columns = [values for values in (points.y, points.hi, points.draws) if values is not None]
    if points.quantity != "error" or any((values >= 1).any() for values in columns):
        return None
    chance = -math.log1p(-points.chance) if points.chance < 1 else math.nan
    return replace(
        points,
        y=-np.log1p(-points.y),
        lo=turned(points.lo),
        hi=turned(points.hi),
        draws=turned(points.draws),
        chance=chance,
        quantity="-log",
    )
