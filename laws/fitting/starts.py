"""Where to start: the linear coordinates solved for, exactly, over a grid of the others.

A form is linear in its amplitudes, floor and ceiling. With exponents and the like fixed, the best of them that are not
negative are a small non-negative least-squares problem, found by trying every subset; so only the other coordinates
need a grid (variable projection, Golub and Pereyra 1973). Of the grid's points the best of each of `count` random
parts are followed, so that the survivors do not all stand in one valley.
"""

from itertools import combinations

import numpy as np
from scipy.stats import qmc

from laws.fitting.objective import Problem, Rows
from laws.forms import Array, Families, Role
from laws.forms.base import LINEAR

_LINE, _PLANE = 64, 16
"""Values of each coordinate where one or two of them need a grid."""
_CLOUD = 512
"""Points of a low-discrepancy sequence where there are three; twice as many for each one more."""
_MOST_SUBSETS = 4
"""Linear coordinates up to which all subsets are tried."""
_SWEEPS = 60
_NOTHING = 1e-4
"""A factor that the solution has at zero starts at this share of what alone would explain everything."""
RANGES: dict[Role, tuple[float, float]] = {
    "exponent": (np.log(0.02), np.log(8.0)),
    "weight": (-6.0, 6.0),
    "signed": (-1.2, 1.2),
    "odds": (-5.0, 3.0),
}


def survivors(problem: Problem, count: int, rng: np.random.Generator) -> Array:
    """(count, p) starts, from the whole grid's best downwards in no order."""
    form = problem.form
    if isinstance(form, Families) and form.shared == "none":
        return _of_each_family(problem, form, count, rng)
    linear = np.array([role in LINEAR for role in form.roles])
    others = np.flatnonzero(~linear)
    nodes = _nodes(problem, others, rng)
    theta = np.zeros((len(nodes), len(form.roles)))
    theta[:, others] = nodes
    cost = _solve_linear(problem, theta, np.flatnonzero(linear))
    parts = np.array_split(rng.permutation(len(theta)), min(count, len(theta)))
    chosen = np.array([part[np.argmin(cost[part])] for part in parts])
    return np.clip(theta[chosen], problem.lower, problem.upper)


def _of_each_family(problem: Problem, form: Families, count: int, rng: np.random.Generator) -> Array:
    """With nothing shared every family is a problem of its own."""
    theta = np.zeros((count, len(form.roles)))
    for family, places in enumerate(form.places()):
        mine = np.flatnonzero(problem.u[:, -1] == family)
        if not len(mine):
            continue
        alone = Problem(
            form=form.base,
            u=problem.u[mine, :-1],
            target=problem.target[mine],
            root=problem.root[mine],
            logarithmic=problem.logarithmic,
            delta=problem.delta,
            lower=problem.lower[places],
            upper=problem.upper[places],
            unit=problem.unit,
        )
        found = survivors(alone, count, rng)
        theta[:, places] = np.resize(found, (count, len(places)))
    return theta


def _nodes(problem: Problem, others: Rows, rng: np.random.Generator) -> Array:
    """(nodes, others) of the coordinates that are not linear."""
    budgets = [index for index, axis in enumerate(problem.form.axes) if axis in ("beams", "c")]
    reach = float(np.abs(problem.u[:, budgets]).max(initial=0)) + 1  # where a gain may turn, about the centre
    ranges = [RANGES.get(problem.form.roles[index], (-reach, reach)) for index in others]
    if len(ranges) <= 2:
        each = _LINE if len(ranges) == 1 else _PLANE
        lines = [np.linspace(low, high, each) for low, high in ranges]
        return np.stack([line.ravel() for line in np.meshgrid(*lines, indexing="ij")], axis=1)
    lows, highs = np.array(ranges).T
    power = int(np.log2(_CLOUD)) + min(len(ranges) - 3, 3)
    unit = qmc.Sobol(len(ranges), rng=rng).random_base2(power)
    return np.asarray(lows + (highs - lows) * unit)


def _solve_linear(problem: Problem, theta: Array, linear: Rows) -> Array:
    """Fill in the linear coordinates of every node; costs (nodes,) of squared (for logarithms: relative) residuals."""
    cost = np.empty(len(theta))
    size = max(1, 100_000 // len(problem.u))
    for first in range(0, len(theta), size):
        rows = slice(first, first + size)
        theta[rows], cost[rows] = _solve_some(problem, theta[rows], linear)
    return cost


def _solve_some(problem: Problem, theta: Array, linear: Rows) -> tuple[Array, Array]:
    """As `_solve_linear`: with the linear coordinates at ln 1, the slopes by them are the columns to combine."""
    y = np.exp(problem.target) if problem.logarithmic else problem.target
    root = problem.root / y if problem.logarithmic else problem.root
    value, gradient = problem.form.evaluate(theta, problem.u)
    columns = np.moveaxis(gradient, -1, 0)[linear]
    wanted = (y - (value - columns.sum(axis=0))) * root
    columns = (columns * root).transpose(1, 0, 2)
    norms = np.sqrt(np.einsum("gmp,gmp->gm", columns, columns)) + 1e-300
    columns /= norms[..., None]
    normal = columns @ columns.transpose(0, 2, 1)
    along = (columns @ wanted[..., None])[..., 0]
    total = np.einsum("gp,gp->g", wanted, wanted)
    factors, gained = (_every_subset if len(linear) <= _MOST_SUBSETS else _by_turns)(normal, along)
    least = _NOTHING * np.sqrt(total)[:, None]
    found = theta.copy()
    found[:, linear] = np.log(np.maximum(np.maximum(factors, least), 1e-300)) - np.log(norms)
    return found, np.maximum(total - gained, 0)


def _every_subset(normal: Array, along: Array) -> tuple[Array, Array]:
    """The best non-negative factors (nodes, m) and the squares they explain (nodes,)."""
    nodes, size = along.shape
    best, gained = np.zeros((nodes, size)), np.zeros(nodes)
    for count in range(1, size + 1):
        for subset in map(list, combinations(range(size), count)):
            part = normal[:, subset][:, :, subset] + 1e-13 * np.eye(count)
            factors = np.linalg.solve(part, along[:, subset, None])[..., 0]
            explained = np.einsum("gm,gm->g", factors, along[:, subset])
            better = (factors >= 0).all(axis=1) & (explained > gained)
            gained[better] = explained[better]
            best[better] = 0
            best[np.ix_(better, subset)] = factors[better]
    return best, gained


def _by_turns(normal: Array, along: Array) -> tuple[Array, Array]:
    """As `_every_subset` for many coordinates: each in turn set to its best, which comes near enough to start from."""
    factors = np.zeros_like(along)
    for _ in range(_SWEEPS):
        for index in range(along.shape[1]):
            rest = along[:, index] - np.einsum("gm,gm->g", normal[:, index], factors) + factors[:, index]
            factors[:, index] = np.maximum(rest, 0)
    explained = 2 * np.einsum("gm,gm->g", factors, along) - np.einsum("gi,gij,gj->g", factors, normal, factors)
    return factors, explained
