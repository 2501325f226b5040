"""Points of known truths, for the tests of the fitter."""

from benchmarks.laws.repeats import measured
from benchmarks.laws.truths import TRUTHS, Truth
from laws.fitting import Law, Loss, Options
from laws.points import Points

BY_NAME = {truth.name: truth for truth in TRUTHS}
ADDITIVE, JOINT, POWER = BY_NAME["additive"], BY_NAME["joint"], BY_NAME["power over n"]
ONLY = Options(bootstraps=0)
LOSSES: tuple[Loss, ...] = ("squared", "relative", "huber-log")


def noisy(truth: Truth, loss: Loss = "relative", noise: float = 0.01, seed: int = 0, of_runs: float = 0.0) -> Points:
    """The truth under noise."""
    return measured(truth, Options(loss=loss), noise, (seed,), of_runs)


def width(law: Law, name: str) -> float:
    """Of the interval of a parameter."""
    parameter = next(each for each in law.parameters if each.name == name)
    assert parameter.lo is not None
    assert parameter.hi is not None
    return parameter.hi - parameter.lo
