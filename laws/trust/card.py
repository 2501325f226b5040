"""The fit card: all that another needs to repeat a fit, or to doubt it."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

import numpy as np

from laws.fitting import Law
from laws.forms import SYMBOLS, Axis
from laws.points import Points, label, short

N_DEFINED = "parameters of the model without the input embedding (n_params)"
D_DEFINED = "training pairs (query, identifier), each counted once whatever the epochs (d_pairs)"
BEAMS_DEFINED = "beams of the constrained search"
OWN_DEFINITIONS: Mapping[str, str] = {
    "N": N_DEFINED,
    "D": D_DEFINED,
    "beams": BEAMS_DEFINED,
    "C": "inference compute, FLOPs a query (infer_flops_per_query)",
    "compute": "training FLOPs (train_flops) where every point has them, else N times D",
}
_LOSSES = {
    "squared": "least squares on the values",
    "relative": "least squares on the logarithms, so on relative residuals",
    "huber-log": "Huber's loss on residuals of the logarithm, delta {delta:g}",
}
_QUANTITIES = {"loss": "as measured", "error": "1 - metric", "-log": "-log of the metric"}
_PACKAGES = ("gridlaw", "numpy", "scipy", "pyarrow")


@dataclass(frozen=True, kw_only=True)
class Card:
    """Plain words and numbers; everything in it is also in laws.json."""

    form: str
    parameters: tuple[str, ...]
    quantity: str
    """What was fitted: `1 - Hit@10 (1 - metric)`."""
    definitions: dict[str, str]
    """Of the axes and of compute."""
    points: str
    """`16 points, 16 distinct, 16 trainings; N 7k to 460k (4 values), D 4k to 108k (4 values)`."""
    held: dict[str, float]
    source: str
    """Who published the points; empty: they were measured by sweeps."""
    weights: str
    loss: str
    optimiser: str
    starts: int
    agree: float
    """Share of the starts that reach the best objective."""
    bootstraps: int
    bootstrap: str
    """What is resampled."""
    interval: float
    seed: int
    versions: dict[str, str]


def card(
    law: Law, points: Points, definitions: Mapping[str, str], held: Mapping[Axis, float], source: str = ""
) -> Card:
    """The card of a law."""
    options = law.options
    return Card(
        form=law.form.text,
        parameters=tuple(law.form.parameters),
        quantity=f"{label(points.metric, points.quantity)} ({_QUANTITIES[points.quantity]})",
        definitions=dict(definitions),
        points=_counted(law, points),
        held={SYMBOLS[axis]: value for axis, value in held.items()},
        source=source,
        weights=_WEIGHTS[options.weights],
        loss=_LOSSES[options.loss].format(delta=options.delta),
        optimiser=OPTIMISER,
        starts=law.starts,
        agree=law.agree,
        bootstraps=len(law.resampled),
        bootstrap=_RESAMPLED[points.draws is not None],
        interval=options.interval,
        seed=options.seed,
        versions=dict(_versions()),
    )


_WEIGHTS = {
    "equal": "every point counts the same; seeds are repeated points",
    "intervals": "by the width of the metric's own interval, where there is one",
}
OPTIMISER = (
    "linear coordinates solved for over a grid of the others, then Levenberg-Marquardt on the best candidates at once"
)
_RESAMPLED = {
    False: "residuals, by training run",
    True: "residuals, by training run, and test queries, the same for all points",
}


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    return (*((name, version(name)) for name in _PACKAGES), ("python", platform.python_version()))


def _counted(law: Law, points: Points) -> str:
    runs = f", {len(set(points.run))} trainings" if points.run else ""
    ranges = []
    for axis in law.form.axes:
        if axis != "family":
            values = np.unique(points.axis(axis))
            ends = short(float(values[0])) + (f" to {short(float(values[-1]))}" if len(values) > 1 else "")
            ranges.append(f"{SYMBOLS[axis]} {ends} ({len(values)} value{'s' * (len(values) > 1)})")
    return f"{len(points)} points, {law.n_distinct} distinct{runs}; {', '.join(ranges)}"
