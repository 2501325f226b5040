"""What a form is: axes, parameters, formula, values and gradients, in coordinates that a fitter can walk in.

A form is fitted in internal coordinates and reported in its public parameters. Internally every axis is a
logarithm centred on the mean of the fitted points, amplitudes are those at that centre, and all coordinates but
weights and signed exponents are logarithms: positive by construction, of similar size and little correlated,
where the public parameters ((a/x)^b with a small b, say) are neither.

Shapes: `theta` (..., p), `u` (points, axes) centred log axes; values (..., points), gradients (..., points, p). Any
leading axes are a batch: starts, bootstraps, left-out points.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Axis = Literal["n", "d", "beams", "c", "family"]
Role = Literal["amplitude", "exponent", "floor", "ceiling", "weight", "signed", "turn", "odds"]
LINEAR: frozenset[Role] = frozenset({"amplitude", "floor", "ceiling"})
"""Roles whose coordinate is the logarithm of a factor: the value is linear in that factor."""

SYMBOLS: dict[str, str] = {"n": "N", "d": "D", "beams": "beams", "c": "C", "family": "family"}
"""How an axis is written in formulas and figures."""


def symbol_latex(axis: Axis) -> str:
    """How an axis is written in LaTeX."""
    symbol = SYMBOLS[axis]
    return symbol if len(symbol) == 1 else rf"\mathrm{{{symbol}}}"


def log_axes(axes: Sequence[Axis], columns: Sequence[Array]) -> Array:
    """(points, axes): logarithms of the axes' values; the codes of families as they are."""
    taken = [
        np.asarray(column, dtype=float) if axis == "family" else np.log(np.asarray(column, dtype=float))
        for axis, column in zip(axes, columns, strict=True)
    ]
    return np.stack(taken, axis=-1)


class Form(ABC):
    """One functional form. Subclasses are small frozen objects that can be compared and hashed."""

    @property
    @abstractmethod
    def name(self) -> str:
        """A word or two for tables."""

    @property
    @abstractmethod
    def parameters(self) -> tuple[str, ...]:
        """Names of the public parameters."""

    @property
    @abstractmethod
    def exponents(self) -> tuple[str, ...]:
        """Those of them that say how fast an axis pays off."""

    @property
    def signed(self) -> tuple[str, ...]:
        """Those of them that may have either sign; all others are positive."""
        return ()

    @property
    def of_budget(self) -> tuple[str, ...]:
        """Those of them that the budgets of a single training would tell of."""
        return ()

    @property
    @abstractmethod
    def floor(self) -> str:
        """The one that is the value at infinity."""

    @property
    @abstractmethod
    def roles(self) -> tuple[Role, ...]:
        """What each internal coordinate is: its range of starts and its bounds follow from that."""

    @property
    @abstractmethod
    def words(self) -> tuple[str, ...]:
        """Each internal coordinate in words: `the exponent alpha`, `the effect of N`."""

    @property
    @abstractmethod
    def axes(self) -> tuple[Axis, ...]:
        """The axes it runs over, in the order of the columns of `u`."""

    @property
    @abstractmethod
    def text(self) -> str:
        """The right-hand side in plain text."""

    @property
    @abstractmethod
    def latex(self) -> str:
        """The right-hand side in LaTeX."""

    @abstractmethod
    def evaluate(self, theta: Array, u: Array) -> tuple[Array, Array]:
        """Values and their gradient by the internal coordinates.

        The gradient is a view with the coordinates first in memory: fitters take products over the points.
        """

    @abstractmethod
    def reported(self, theta: Array, centre: Array) -> tuple[Array, Array]:
        """Public parameters on the scale on which their intervals are sought, and their gradient by `theta`.

        (..., p) logarithms, signed parameters as they are; (..., p, p). `centre` (axes,) are mean log axes.
        """

    def value(self, theta: Array, u: Array) -> Array:
        """Values alone."""
        return self.evaluate(theta, u)[0]

    def public(self, theta: Array, centre: Array) -> Array:
        """Public parameters (..., p) from internal coordinates."""
        return self.unscaled(self.reported(theta, centre)[0])

    def unscaled(self, reported: Array) -> Array:
        """Public parameters (..., p) from those of `reported`."""
        straight = np.array([name in self.signed for name in self.parameters])
        with np.errstate(over="ignore"):  # a of (a/x)^b runs to infinity as b runs to zero; reported as such
            return np.where(straight, reported, np.exp(np.where(straight, 0.0, reported)))


class FallingForm(Form):
    """A form whose value is a sum that falls along its axes, and a floor, its last coordinate.

    What is built of other forms (a gain from inference, a ceiling) needs that sum without the floor.
    """

    @property
    @abstractmethod
    def falling_text(self) -> str:
        """The sum without the floor in plain text."""

    @property
    @abstractmethod
    def falling_latex(self) -> str:
        """The sum without the floor in LaTeX."""

    @abstractmethod
    def fall(self, theta: Array, u: Array, slopes: Array) -> Array:
        """The sum (..., points) without the floor; `theta` (..., p - 1) lacks it too.

        Its gradient is written into `slopes` (p - 1, ..., points).
        """

    @property
    def text(self) -> str:
        return f"{self.floor} + {self.falling_text}"

    @property
    def latex(self) -> str:
        return f"{floor_latex(self.floor)} + {self.falling_latex}"

    def evaluate(self, theta: Array, u: Array) -> tuple[Array, Array]:
        slopes = empty_slopes(theta, u)
        value = self.fall(theta[..., :-1], u, slopes[:-1])
        floor = np.exp(theta[..., -1:])
        slopes[-1] = floor
        return value + floor, np.moveaxis(slopes, 0, -1)


def empty_slopes(theta: Array, u: Array) -> Array:
    """(p, ..., points): room for a gradient, the coordinates first."""
    return np.empty((theta.shape[-1], *theta.shape[:-1], len(u)))


def columns(theta: Array) -> list[Array]:
    """The coordinates apart, each (..., 1) to go with points."""
    return [theta[..., index, None] for index in range(theta.shape[-1])]


def floor_latex(name: str) -> str:
    """A floor's name in LaTeX."""
    return {"delta": r"\delta"}.get(name, name)
