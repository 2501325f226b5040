"""The best configuration of a space: every inference budget (and every D, where D has choices) with its own best N.

A coarse grid over N finds the neighbourhood of the optimum, whatever the shape, and is narrowed about it; D is solved
for and not searched, because a law falls with D and training costs in proportion to it.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from laws.forms import Array, Axis
from laws.planning.space import Space

COARSE, FINE, ROUNDS = 241, 21, 6
"""Values of N at first, in each later round, and rounds: the last is narrower than 1e-6 of N."""


class Problem(Protocol):
    """What is asked of configurations."""

    def solve(self, others: dict[Axis, Array]) -> Array:
        """The best D for the other axes; NaN where none is allowed."""
        ...

    def score(self, values: dict[Axis, Array]) -> Array:
        """What is to be small; infinite where the configuration is not allowed."""
        ...


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Configurations (m,) each, with their scores."""

    values: dict[Axis, Array]
    scores: Array

    @property
    def best(self) -> dict[Axis, float] | None:
        """The one with the least score; None where none is allowed."""
        if not np.isfinite(self.scores).any():
            return None
        first = int(np.argmin(self.scores))
        return {axis: float(column[first]) for axis, column in self.values.items()}


def search(problem: Problem, space: Space, coarse: int = COARSE) -> dict[Axis, float] | None:
    """The best configuration, or None where the space allows none.

    Args:
        coarse: values of N in the first round.
    """
    gain = space.gain
    if gain is None:
        return _columns(problem, space, None, coarse).best
    found = _columns(problem, space, space.ranges[gain].grid(COARSE), coarse)
    if not space.ranges[gain].is_free or found.best is None:
        return found.best
    width = space.ranges[gain]
    ratio = (width.hi / width.lo) ** (1 / (COARSE - 1))
    for _ in range(ROUNDS):
        assert found.best is not None
        centre = found.best[gain]
        lo, hi = max(width.lo, centre / ratio), min(width.hi, centre * ratio)
        found = _columns(problem, space, np.unique(np.append(np.geomspace(lo, hi, FINE), centre)), coarse)
        ratio = ratio ** (2 / (FINE - 1))
    return found.best


def _columns(problem: Problem, space: Space, gains: Array | None, coarse: int) -> Candidates:
    """The best N in each column: a value of the inference budget, and of D where it has choices."""
    ds, sizes = space.ranges["d"].choices, space.ranges["n"]
    columns = [column.ravel()[:, None] for column in np.meshgrid([1.0] if gains is None else gains, ds or [np.nan])]
    fixed: dict[Axis, Array] = {} if space.gain is None else {space.gain: columns[0]}
    d = columns[1] if ds else None
    found = evaluate(
        problem, {"n": np.broadcast_to(sizes.grid(coarse), (len(columns[0]), len(sizes.grid(coarse)))), **fixed}, d
    )
    if sizes.is_free and sizes.hi > sizes.lo:
        ratio = (sizes.hi / sizes.lo) ** (1 / (coarse - 1))
        steps = np.linspace(-1, 1, FINE)[None, :]
        for _ in range(ROUNDS):
            at = found.scores.argmin(axis=1, keepdims=True)
            middle = np.take_along_axis(found.values["n"], at, axis=1)
            n = np.clip(middle * ratio**steps, sizes.lo, sizes.hi)
            found = evaluate(problem, {"n": n, **fixed}, d)
            ratio = ratio ** (2 / (FINE - 1))
    return Candidates(values={axis: value.ravel() for axis, value in found.values.items()}, scores=found.scores.ravel())


def evaluate(problem: Problem, others: dict[Axis, Array], d: Array | None) -> Candidates:
    """Scores of configurations of any shape; D is solved for where it is None."""
    shape = np.broadcast_shapes(*(value.shape for value in others.values()))
    whole = {axis: np.broadcast_to(value, shape) for axis, value in others.items()}
    solved = problem.solve(whole) if d is None else np.broadcast_to(d, shape)
    allowed = np.isfinite(solved)
    values: dict[Axis, Array] = {**whole, "d": np.where(allowed, solved, 1.0)}
    with np.errstate(over="ignore"):
        scores = np.where(allowed, problem.score(values), np.inf)
    return Candidates(values=values, scores=scores)
