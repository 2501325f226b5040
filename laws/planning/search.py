"""The best configuration of a space: every inference budget (and every D, where D has choices) with its own best N.

A coarse grid over N finds the neighbourhood of the optimum, whatever the shape, and is narrowed about it; D is solved
for and not searched, because a law falls with D and training costs in proportion to it.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from laws.forms import Array, Axis
from laws.planning.space import Range, Space

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


def search(problem: Problem, space: Space) -> dict[Axis, float] | None:
    """The best configuration, or None where the space allows none."""
    gain = next((axis for axis in ("beams", "c") if axis in space.ranges), None)
    free_gain = gain is not None and space.ranges[gain].is_free
    found = _columns(problem, space, gain, space.ranges[gain].grid(COARSE) if gain else None)
    if gain is None or not free_gain or found.best is None:
        return found.best
    width = space.ranges[gain]
    ratio = (width.hi / width.lo) ** (1 / (COARSE - 1))
    for _ in range(ROUNDS):
        assert found.best is not None
        centre = found.best[gain]
        lo, hi = max(width.lo, centre / ratio), min(width.hi, centre * ratio)
        found = _columns(problem, space, gain, np.unique(np.append(np.geomspace(lo, hi, FINE), centre)))
        ratio = ratio ** (2 / (FINE - 1))
    return found.best


def _columns(problem: Problem, space: Space, gain: Axis | None, gains: Array | None) -> Candidates:
    """The best N in each column: a value of the inference budget, and of D where it has choices."""
    ds = space.ranges["d"].choices
    columns = [array.ravel() for array in np.meshgrid(gains if gains is not None else [1.0], ds or [np.nan])]
    fixed: dict[Axis, Array] = {} if gain is None else {gain: columns[0][:, None]}
    sizes = space.ranges["n"]
    n = np.broadcast_to(sizes.grid(COARSE), (len(columns[0]), len(sizes.grid(COARSE))))
    found = evaluate(problem, {"n": n, **fixed}, columns[1][:, None] if ds else None)
    for centre, ratio in _narrowing(sizes) if sizes.is_free and sizes.hi > sizes.lo else ():
        at = found.scores.argmin(axis=1)
        middle = found.values["n"][np.arange(len(at)), at][:, None]
        n = np.clip(middle * ratio**centre, sizes.lo, sizes.hi)
        found = evaluate(problem, {"n": n, **fixed}, columns[1][:, None] if ds else None)
    return Candidates(values={axis: value.ravel() for axis, value in found.values.items()}, scores=found.scores.ravel())


def _narrowing(sizes: Range) -> list[tuple[Array, float]]:
    """For each round steps about the best N so far, and the ratio that a step is a power of."""
    steps = np.linspace(-1, 1, FINE)[None, :]
    ratio = (sizes.hi / sizes.lo) ** (1 / (COARSE - 1))
    return [(steps, ratio ** ((2 / (FINE - 1)) ** number)) for number in range(ROUNDS)]


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
