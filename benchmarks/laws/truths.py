"""Every kind of form with a known truth on a grid, and its formula written out, independently of laws.forms."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laws.forms import (
    AddedGain,
    Additive,
    Array,
    Axis,
    Bounded,
    FallingForm,
    Families,
    Form,
    InteractingGain,
    Joint,
    PowerLaw,
    SaturatingGain,
    WithBudget,
)
from laws.points import Points

Columns = dict[str, Array]

_ADDITIVE = {"E": 1.0, "A": 219.0, "alpha": 0.34, "B": 182.0, "beta": 0.28}
_JOINT = {"A": 1e7, "alpha": 0.3, "B": 1e6, "beta": 0.4, "delta": 0.3}
_POWER = {"a": 1e7, "b": 0.4, "c": 0.5}
_ADDED, _BY_N = {"G": 0.8, "gamma": 0.5}, {"G": 4.5, "gamma": 0.5, "kappa": 0.1}
_BOUNDED = {"E": 0.05, "A": 60.0, "alpha": 0.34, "B": 50.0, "beta": 0.28}
_CEILING = {"A": 1e8, "alpha": 0.6, "B": 1e7, "beta": 0.8, "delta": 0.05, "ceiling": 0.95}
_SATURATING = {"G": 1.0, "gamma": 1.2, "C0": 10.0}


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A form, its parameters, and the grid it is measured on."""

    form: Form
    parameters: dict[str, float]
    repeats: int = 1
    """Trainings (seeds) of each cell."""
    sizes: int = 8
    """Values of N and of D; of a form over one axis twice as many."""
    budgets: int = 6

    @property
    def name(self) -> str:
        """As tables call it."""
        over = f" over {self.form.axes[0]}" if len(self.form.axes) == 1 else " over c" if "c" in self.form.axes else ""
        fitted = ", ceiling fitted" if isinstance(self.form, Bounded) and self.form.ceiling is None else ""
        return f"{self.form.name}{over}{fitted}"

    def columns(self) -> Columns:
        """The axes' values at every point."""
        single = len([axis for axis in self.form.axes if axis != "family"]) == 1
        lines: dict[Axis, Array] = {}
        for axis in self.form.axes:
            count = 2 * self.sizes if single else self.budgets if axis in ("beams", "c") else self.sizes
            low, high = {"n": (1e6, 1e9), "d": (1e7, 1e10), "beams": (1, 100), "c": (1e6, 1e9)}.get(axis, (0, 0))
            lines[axis] = np.geomspace(low, high, count) if low else np.arange(self.count, dtype=float)
        grids = np.meshgrid(*lines.values(), indexing="ij")
        return {axis: np.tile(grid.ravel(), self.repeats) for axis, grid in zip(lines, grids, strict=True)}

    @property
    def count(self) -> int:
        """Families."""
        return self.form.count if isinstance(self.form, Families) else 1

    def runs(self) -> NDArray[np.int64]:
        """The number of each point's training run: budgets of one training share it."""
        columns = self.columns()
        trained = [column for axis, column in columns.items() if axis not in ("beams", "c")]
        if not trained:
            return np.arange(len(columns[self.form.axes[0]]))
        cell = np.unique(np.stack(trained), axis=1, return_inverse=True)[1].reshape(-1)
        return np.asarray(cell * self.repeats + np.repeat(np.arange(self.repeats), len(cell) // self.repeats))

    def points(self, y: Array, *, runs: bool = False) -> Points:
        """Measurements on the grid; with `runs` the training run of each point is told."""
        x = self.columns()
        ones = np.ones(len(y))
        return Points(
            n=x.get("n", ones),
            d=x.get("d", ones),
            beams=x.get("beams"),
            c=x.get("c"),
            family=x["family"].astype(np.int64) if "family" in x else None,
            y=y,
            run=tuple(map(str, self.runs())) if runs else (),
        )

    def values(self) -> Array:
        """Without noise."""
        return formula(self.form, self.parameters, self.columns())


def _of_families(base: dict[str, float], own: dict[str, float], count: int) -> dict[str, float]:
    """`own` are the factors by which a parameter of one family differs from the last one's."""
    shared = {name: value for name, value in base.items() if name not in own}
    return shared | {f"{name}_{f + 1}": base[name] * own[name] ** f for f in range(count) for name in own}


TRUTHS: tuple[Truth, ...] = (
    Truth(form=PowerLaw(axis="n"), parameters=_POWER),
    Truth(form=PowerLaw(axis="d"), parameters=_POWER | {"a": 1e8}),
    Truth(form=PowerLaw(axis="beams"), parameters={"a": 1.0, "b": 0.8, "c": 0.3}),
    Truth(form=Additive(), parameters=_ADDITIVE),
    Truth(form=Joint(), parameters=_JOINT),
    Truth(form=WithBudget(base=PowerLaw(axis="n")), parameters=_POWER | _ADDED),
    Truth(form=WithBudget(base=PowerLaw(axis="n"), gain=InteractingGain()), parameters=_POWER | _BY_N),
    Truth(
        form=WithBudget(base=PowerLaw(axis="d"), gain=SaturatingGain()), parameters=_POWER | {"a": 1e8} | _SATURATING
    ),
    Truth(form=WithBudget(base=Additive()), parameters=_ADDITIVE | _ADDED, sizes=5),
    Truth(form=WithBudget(base=Additive(), axis="c"), parameters=_ADDITIVE | {"G": 63.0, "gamma": 0.3}, sizes=5),
    Truth(form=WithBudget(base=Additive(), gain=InteractingGain()), parameters=_ADDITIVE | _BY_N, sizes=5),
    Truth(form=WithBudget(base=Additive(), gain=SaturatingGain()), parameters=_ADDITIVE | _SATURATING, sizes=5),
    Truth(form=WithBudget(base=Joint()), parameters=_JOINT | _ADDED, sizes=5),
    Truth(form=WithBudget(base=Joint(), gain=InteractingGain()), parameters=_JOINT | _BY_N, sizes=5),
    Truth(form=WithBudget(base=Joint(), gain=SaturatingGain()), parameters=_JOINT | _SATURATING, sizes=5),
    Truth(form=Bounded(base=PowerLaw(axis="beams")), parameters={"a": 3.0, "b": 0.8, "c": 0.05}),
    Truth(form=Bounded(base=Additive()), parameters=_BOUNDED),
    Truth(
        form=Bounded(base=Joint(), ceiling=None),
        parameters=_CEILING,
    ),
    Truth(form=Bounded(base=WithBudget(base=Additive())), parameters=_BOUNDED | _ADDED, sizes=5),
    Truth(form=Families(base=PowerLaw(axis="n"), count=2), parameters=_of_families(_POWER, {"a": 3.0, "c": 1.2}, 2)),
    Truth(
        form=Families(base=Additive(), count=2),
        parameters=_of_families(_ADDITIVE, {"E": 1.2, "A": 0.8, "B": 1.3}, 2),
        sizes=6,
    ),
    Truth(
        form=Families(base=Joint(), count=2, shared="none"),
        parameters=_of_families(_JOINT, {"A": 2.0, "alpha": 1.2, "B": 1.5, "beta": 1.1, "delta": 1.2}, 2),
        sizes=7,
    ),
    Truth(
        form=Families(base=WithBudget(base=Additive(), gain=InteractingGain()), count=2),
        parameters=_of_families(_ADDITIVE | _BY_N, {"E": 1.2, "A": 0.8, "B": 1.3, "G": 0.7}, 2),
        sizes=5,
    ),
)


def falling(form: FallingForm, p: dict[str, float], x: Columns) -> Array:
    """The sum without its floor."""
    if isinstance(form, WithBudget):
        budget = x[form.axis]
        trained = falling(form.base, p, x)
        if isinstance(form.gain, AddedGain):
            return trained + p["G"] / budget ** p["gamma"]
        if isinstance(form.gain, InteractingGain):
            return trained + p["G"] / (budget ** p["gamma"] * x["n"] ** p["kappa"])
        return trained + p["G"] / (1 + (budget / p["C0"]) ** p["gamma"])
    if isinstance(form, PowerLaw):
        return np.asarray((p["a"] / x[form.axis]) ** p["b"])
    if isinstance(form, Additive):
        return p["A"] / x["n"] ** p["alpha"] + p["B"] / x["d"] ** p["beta"]
    return ((p["A"] / x["d"]) ** (p["alpha"] / p["beta"]) + p["B"] / x["n"]) ** p["beta"]


def formula(form: Form, p: dict[str, float], x: Columns) -> Array:
    """Values of any form from its public parameters and the axes' values."""
    if isinstance(form, Families):
        values = np.empty(len(x["family"]))
        for family in range(form.count):
            own = {name: p.get(name, p.get(f"{name}_{family + 1}", np.nan)) for name in form.base.parameters}
            mine = x["family"] == family
            values[mine] = formula(form.base, own, {axis: column[mine] for axis, column in x.items()})
        return values
    if isinstance(form, Bounded):
        s = falling(form.base, p, x)
        ceiling = p["ceiling"] if form.ceiling is None else form.ceiling
        return p[form.floor] + (ceiling - p[form.floor]) * s / (1 + s)
    assert isinstance(form, FallingForm)
    return p[form.floor] + falling(form, p, x)
