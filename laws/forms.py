"""The functional forms a law can have: parameters, formula, value, gradient.

A form is fitted in internal coordinates, and reported in its public parameters. Internally every
axis is a logarithm centred on the mean of the fitted points, amplitudes are those at that centre, and
all coordinates but the mixing weight are logarithms: positive by construction, of similar size and
little correlated, where the public parameters ((a/x)^b with a small b, say) are neither.

Shapes: `theta` (..., p), `u` (points, axes) centred log axes; values (..., points), gradients
(..., points, p). Any leading axes are a batch: starts, bootstraps, left-out points.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Axis = Literal["n", "d", "beams"]
Role = Literal["amplitude", "exponent", "floor", "weight"]

SYMBOLS: dict[str, str] = {"n": "N", "d": "D", "beams": "beams"}
"""How an axis is written in formulas and figures."""


class Form(ABC):
    """One functional form. Subclasses are small frozen objects that can be compared and hashed."""

    name: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]]
    """Names of the public parameters."""
    exponents: ClassVar[tuple[str, ...]]
    """Those of them that say how fast an axis pays off."""
    floor: ClassVar[str]
    """The one that is the value at infinity."""
    roles: ClassVar[tuple[Role, ...]]
    """What each internal coordinate is: its range of starts and its bounds follow from that."""

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
        """Values and their gradient by the internal coordinates."""

    @abstractmethod
    def public(self, theta: Array, centre: Array) -> Array:
        """Public parameters (..., p) from internal coordinates; `centre` (axes,) are mean log axes."""

    def value(self, theta: Array, u: Array) -> Array:
        """Values alone."""
        return self.evaluate(theta, u)[0]


@dataclass(frozen=True, kw_only=True)
class PowerLaw(Form):
    """(a/x)^b + c along one axis (arXiv 2503.18941, single-axis laws). Internal: ln K, ln b, ln c; K = (a/x0)^b."""

    axis: Axis

    name = "power"
    parameters = ("a", "b", "c")
    exponents = ("b",)
    floor = "c"
    roles = ("amplitude", "exponent", "floor")

    @property
    def axes(self) -> tuple[Axis, ...]:
        return (self.axis,)

    @property
    def text(self) -> str:
        return f"(a/{SYMBOLS[self.axis]})^b + c"

    @property
    def latex(self) -> str:
        x = SYMBOLS[self.axis] if self.axis != "beams" else r"\mathrm{beams}"
        return rf"\left(\frac{{a}}{{{x}}}\right)^{{b}} + c"

    def evaluate(self, theta: Array, u: Array) -> tuple[Array, Array]:
        amplitude, exponent, floor = np.moveaxis(theta[..., None], -2, 0)
        b, c = np.exp(exponent), np.exp(floor)
        power = np.exp(amplitude - b * u[:, 0])
        gradient = np.stack([power, -power * b * u[:, 0], np.broadcast_to(c, power.shape)], axis=-1)
        return power + c, gradient

    def public(self, theta: Array, centre: Array) -> Array:
        b = np.exp(theta[..., 1])
        with np.errstate(over="ignore"):  # a runs to infinity as b runs to zero; reported as such
            a = np.exp(theta[..., 0] / b + centre[0])
        return np.stack([a, b, np.exp(theta[..., 2])], axis=-1)


@dataclass(frozen=True, kw_only=True)
class Additive(Form):
    """E + A/N^alpha + B/D^beta (Hoffmann et al. 2022). Internal: ln KA, ln alpha, ln KB, ln beta, ln E."""

    name = "additive"
    parameters = ("E", "A", "alpha", "B", "beta")
    exponents = ("alpha", "beta")
    floor = "E"
    roles = ("amplitude", "exponent", "amplitude", "exponent", "floor")

    @property
    def axes(self) -> tuple[Axis, ...]:
        return ("n", "d")

    @property
    def text(self) -> str:
        return "E + A/N^alpha + B/D^beta"

    @property
    def latex(self) -> str:
        return r"E + \frac{A}{N^{\alpha}} + \frac{B}{D^{\beta}}"

    def evaluate(self, theta: Array, u: Array) -> tuple[Array, Array]:
        log_a, log_alpha, log_b, log_beta, log_e = np.moveaxis(theta[..., None], -2, 0)
        alpha, beta, floor = np.exp(log_alpha), np.exp(log_beta), np.exp(log_e)
        by_n = np.exp(log_a - alpha * u[:, 0])
        by_d = np.exp(log_b - beta * u[:, 1])
        gradient = np.stack(
            [by_n, -by_n * alpha * u[:, 0], by_d, -by_d * beta * u[:, 1], np.broadcast_to(floor, by_n.shape)], axis=-1
        )
        return by_n + by_d + floor, gradient

    def public(self, theta: Array, centre: Array) -> Array:
        alpha, beta = np.exp(theta[..., 1]), np.exp(theta[..., 3])
        with np.errstate(over="ignore"):
            a = np.exp(theta[..., 0] + alpha * centre[0])
            b = np.exp(theta[..., 2] + beta * centre[1])
        return np.stack([np.exp(theta[..., 4]), a, alpha, b, beta], axis=-1)


@dataclass(frozen=True, kw_only=True)
class Joint(Form):
    """[ (A/D)^(alpha/beta) + B/N ]^beta + delta (arXiv 2503.18941; the shape is Kaplan et al. 2020's).

    Internal: ln S, logit w, ln gamma, ln beta, ln delta with S [ w (D/D0)^-gamma + (1-w) (N/N0)^-1 ]^beta + delta.
    """

    name = "joint"
    parameters = ("A", "alpha", "B", "beta", "delta")
    exponents = ("alpha", "beta")
    floor = "delta"
    roles = ("amplitude", "weight", "exponent", "exponent", "floor")

    @property
    def axes(self) -> tuple[Axis, ...]:
        return ("n", "d")

    @property
    def text(self) -> str:
        return "[(A/D)^(alpha/beta) + B/N]^beta + delta"

    @property
    def latex(self) -> str:
        return r"\left[\left(\frac{A}{D}\right)^{\alpha/\beta} + \frac{B}{N}\right]^{\beta} + \delta"

    def evaluate(self, theta: Array, u: Array) -> tuple[Array, Array]:
        log_s, logit, log_gamma, log_beta, log_delta = np.moveaxis(theta[..., None], -2, 0)
        gamma, beta, delta = np.exp(log_gamma), np.exp(log_beta), np.exp(log_delta)
        log_w, log_rest = -np.logaddexp(0, -logit), -np.logaddexp(0, logit)
        by_d = log_w - gamma * u[:, 1]
        by_n = log_rest - u[:, 0]
        total = np.logaddexp(by_d, by_n)
        share = np.exp(by_d - total)
        power = np.exp(log_s + beta * total)
        gradient = np.stack(
            [
                power,
                power * beta * (share - np.exp(log_w)),
                -power * beta * share * gamma * u[:, 1],
                power * beta * total,
                np.broadcast_to(delta, power.shape),
            ],
            axis=-1,
        )
        return power + delta, gradient

    def public(self, theta: Array, centre: Array) -> Array:
        gamma, beta = np.exp(theta[..., 2]), np.exp(theta[..., 3])
        log_w, log_rest = -np.logaddexp(0, -theta[..., 1]), -np.logaddexp(0, theta[..., 1])
        scale = theta[..., 0] / beta
        with np.errstate(over="ignore"):
            a = np.exp((scale + log_w) / gamma + centre[1])
            b = np.exp(scale + log_rest + centre[0])
        return np.stack([a, gamma * beta, b, beta, np.exp(theta[..., 4])], axis=-1)
