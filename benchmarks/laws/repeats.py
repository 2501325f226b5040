"""Repeats of one known truth under noise: is it inside of what the fit says?

Every repeat is what `fit` does, but that the 200 repeats of a truth run downhill as one batch, from places that the
grid found for the first of them; `benchmarks laws --part optimum` is about whether those are the best.
"""

from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from benchmarks.laws.truths import Truth, formula
from laws.fitting import Options, resampling
from laws.fitting.descent import minimise
from laws.fitting.fitter import spread_around
from laws.fitting.law import between
from laws.fitting.objective import Problem, problem_of
from laws.fitting.profiles import find_ends
from laws.fitting.starts import survivors
from laws.fitting.uncertainty import Spread, clusters
from laws.forms import Array, log_axes
from laws.points import Points

STARTS = 6
FARTHER = 4.0
"""Predictions are asked for at the last point of the grid, and this many times beyond it along every axis."""


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Of each repeat and parameter whether the truth is inside, and whether both sides are bounded."""

    names: tuple[str, ...]
    inside: NDArray[np.bool_]
    identified: NDArray[np.bool_]
    predicted: NDArray[np.bool_]
    """(repeats, 2) of profile intervals of the prediction at the grid's end and beyond."""
    banded: NDArray[np.bool_]
    """(repeats, 2) of the bootstraps' band there."""

    @property
    def shares(self) -> Array:
        """(p,) of the repeats in which the truth is inside."""
        return np.asarray(self.inside.mean(axis=0))

    @property
    def known(self) -> Array:
        """(p,) of the repeats in which the parameter is bounded from both sides."""
        return np.asarray(self.identified.mean(axis=0))


def measured(truth: Truth, options: Options, noise: float, seed: tuple[int, ...], of_runs: float = 0.0) -> Points:
    """The truth with noise: a share of every value, or of their mean where plain squares are minimised.

    `of_runs` of its variance is common to all budgets of a training run.
    """
    clean, rng = truth.values(), np.random.default_rng(seed)
    run = truth.runs()
    drawn = np.sqrt(1 - of_runs) * rng.standard_normal(len(clean))
    drawn += np.sqrt(of_runs) * rng.standard_normal(len(clean))[run]
    y = clean + noise * clean.mean() * drawn if options.loss == "squared" else clean * np.exp(noise * drawn)
    return truth.points(y, runs=bool(of_runs))


def repeat(truth: Truth, options: Options, noise: float, count: int, seed: int = 0, of_runs: float = 0.0) -> Repeats:
    """`count` repeats of the same truth."""
    sets = [
        measured(truth, options, noise, (seed, crc32(truth.name.encode()), index, int(1e6 * noise)), of_runs)
        for index in range(count)
    ]
    problems = [problem_of(truth.form, points, options)[0] for points in sets]
    problem, centre = problem_of(truth.form, sets[0], options)
    starts = survivors(problem, STARTS, np.random.default_rng(seed))
    starts = minimise(problem, starts, tolerance=1e-6)[0]
    batch = problem.of(
        target=np.repeat([each.target for each in problems], STARTS, axis=0),
        root=np.repeat([each.root for each in problems], STARTS, axis=0),
    )
    reached, costs = minimise(batch, np.tile(starts, (count, 1)), tolerance=1e-15, steps=200)
    best = costs.reshape(count, STARTS).argmin(axis=1)
    thetas = reached.reshape(count, STARTS, -1)[np.arange(count), best]
    asked = _Asked.of(truth, centre)
    found = [
        _one(each, points, theta, asked, replace(options, seed=index))
        for index, (each, points, theta) in enumerate(zip(problems, sets, thetas, strict=True))
    ]
    inside, identified, predicted, banded = (np.array(each) for each in zip(*found, strict=True))
    return Repeats(
        names=truth.form.parameters, inside=inside, identified=identified, predicted=predicted, banded=banded
    )


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What every repeat is asked for, and what is true of it."""

    centre: Array
    parameters: Array
    u: Array
    """(2, axes) the grid's last point and one beyond it, as centred logs."""
    values: Array
    """(2,) there."""

    @classmethod
    def of(cls, truth: Truth, centre: Array) -> "_Asked":
        axes = truth.form.axes
        x = {
            axis: np.array([column[-1], column[-1] * (1.0 if axis == "family" else FARTHER)])
            for axis, column in truth.columns().items()
        }
        return cls(
            centre=centre,
            parameters=np.array([truth.parameters[name] for name in truth.form.parameters]),
            u=log_axes(axes, [x[axis] for axis in axes]) - centre,
            values=formula(truth.form, truth.parameters, x),
        )


def _one(
    problem: Problem, points: Points, theta: Array, asked: _Asked, options: Options
) -> tuple[NDArray[np.bool_], ...]:
    """Of parameters (p,) whether the truth is inside and whether both ends are there; of predictions and bands (2,)."""
    form = problem.form
    spread = spread_around(problem, points, theta)
    assert spread is not None
    found = find_ends(problem, theta, lambda each: form.reported(each, asked.centre), spread, options.interval)

    def predict(each: Array) -> tuple[Array, Array]:
        value, gradient = form.evaluate(each, asked.u)
        return np.log(value), gradient / value[..., None]

    ends = find_ends(problem, theta, predict, spread, options.interval).values
    band = _band(problem, points, theta, spread, asked.u, options)
    return (
        _inside(form.unscaled(found.values.T), asked.parameters),
        np.asarray(~found.open.any(axis=1)),
        _inside(np.exp(ends.T), asked.values),
        _inside(band, asked.values),
    )


def _inside(ends: Array, values: Array) -> NDArray[np.bool_]:
    return np.asarray((ends[0] <= values) & (values <= ends[1]))


def _band(problem: Problem, points: Points, theta: Array, spread: Spread, u: Array, options: Options) -> Array:
    rng = np.random.default_rng(options.seed)
    noise = resampling.noise(problem, theta, spread, clusters(points), options.bootstraps, rng)
    return between(problem.form.value(resampling.refit(problem, theta, spread, noise), u), options.interval)
