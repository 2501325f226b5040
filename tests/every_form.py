"""Every kind of form once, with a known truth, and its formula written out here independently of laws.forms."""

import numpy as np

from laws.forms import (
    AddedGain,
    Additive,
    Bounded,
    Families,
    Form,
    InteractingGain,
    Joint,
    PowerLaw,
    SaturatingGain,
    WithBudget,
)

FORMS: tuple[Form, ...] = (
    PowerLaw(axis="n"),
    PowerLaw(axis="beams"),
    Additive(),
    Joint(),
    WithBudget(base=PowerLaw(axis="d")),
    WithBudget(base=PowerLaw(axis="d"), gain=InteractingGain()),
    WithBudget(base=Additive(), gain=AddedGain(), axis="c"),
    WithBudget(base=Additive(), gain=InteractingGain()),
    WithBudget(base=Additive(), gain=SaturatingGain()),
    WithBudget(base=Joint(), gain=AddedGain()),
    WithBudget(base=Joint(), gain=InteractingGain()),
    WithBudget(base=Joint(), gain=SaturatingGain()),
    Bounded(base=PowerLaw(axis="beams")),
    Bounded(base=Additive()),
    Bounded(base=Joint(), ceiling=None),
    Bounded(base=WithBudget(base=Additive())),
    Families(base=PowerLaw(axis="n"), count=2),
    Families(base=Additive(), count=2),
    Families(base=Joint(), count=3, shared="none"),
    Families(base=WithBudget(base=Additive(), gain=InteractingGain()), count=2),
)


def falling(form: Form, p: dict[str, float], x: dict[str, np.ndarray]) -> np.ndarray:
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
        return (p["a"] / x[form.axis]) ** p["b"]
    if isinstance(form, Additive):
        return p["A"] / x["n"] ** p["alpha"] + p["B"] / x["d"] ** p["beta"]
    return ((p["A"] / x["d"]) ** (p["alpha"] / p["beta"]) + p["B"] / x["n"]) ** p["beta"]


def formula(form: Form, p: dict[str, float], x: dict[str, np.ndarray]) -> np.ndarray:
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
        ceiling = p.get("ceiling", form.ceiling)
        return p[form.floor] + (ceiling - p[form.floor]) * s / (1 + s)
    return p[form.floor] + falling(form, p, x)
