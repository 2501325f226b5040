"""Forms over training and inference: a form of N and D, and what a budget at inference gains on top of it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

from laws.forms.base import SYMBOLS, Array, Axis, FallingForm, Role, columns, symbol_latex


class Gain(ABC):
    """A term that falls with the budget. Subclasses are small frozen objects."""

    name: str
    parameters: tuple[str, ...]
    """Public; the first is the amplitude G, the second the exponent gamma."""
    signed: tuple[str, ...] = ()
    roles: tuple[Role, ...]
    words: tuple[str, ...]

    @abstractmethod
    def text(self, budget: str) -> str:
        """The term in plain text."""

    @abstractmethod
    def latex(self, budget: str) -> str:
        """The term in LaTeX."""

    @abstractmethod
    def fall(self, theta: Array, budget: Array, n: Array | None, slopes: Array) -> Array:
        """The term (..., points) at centred logs (points,); its gradient goes into `slopes` (q, ..., points)."""

    @abstractmethod
    def reported(self, theta: Array, budget: float, n: float) -> tuple[Array, Array]:
        """As `Form.reported`, from the means of the log axes."""


@dataclass(frozen=True, kw_only=True)
class AddedGain(Gain):
    """G/C^gamma. Internal: ln of the term at the centre, ln gamma."""

    name = "gain"
    parameters = ("G", "gamma")
    roles = ("amplitude", "exponent")
    words = ("the effect of the budget", "the exponent gamma")

    def text(self, budget: str) -> str:
        return f"G/{budget}^gamma"

    def latex(self, budget: str) -> str:
        return rf"\frac{{G}}{{{budget}^{{\gamma}}}}"

    def fall(self, theta: Array, budget: Array, n: Array | None, slopes: Array) -> Array:
        log_g, log_gamma = columns(theta)
        steep = np.exp(log_gamma) * budget
        power = np.exp(log_g - steep, out=slopes[0])
        np.multiply(power, -steep, out=slopes[1])
        return power

    def reported(self, theta: Array, budget: float, n: float) -> tuple[Array, Array]:
        shift = np.exp(theta[..., 1]) * budget
        slopes = np.zeros((*theta.shape, 2))
        slopes[..., 0, 0] = slopes[..., 1, 1] = 1
        slopes[..., 0, 1] = shift
        return np.stack([theta[..., 0] + shift, theta[..., 1]], axis=-1), slopes


@dataclass(frozen=True, kw_only=True)
class InteractingGain(Gain):
    """G/(C^gamma N^kappa): with kappa > 0 large models gain less from inference, with kappa < 0 more.

    Internal: ln of the term at the centre, ln gamma, kappa.
    """

    name = "gain by N"
    parameters = ("G", "gamma", "kappa")
    signed = ("kappa",)
    roles = ("amplitude", "exponent", "signed")
    words = ("the effect of the budget", "the exponent gamma", "the exponent kappa")

    def text(self, budget: str) -> str:
        return f"G/({budget}^gamma N^kappa)"

    def latex(self, budget: str) -> str:
        return rf"\frac{{G}}{{{budget}^{{\gamma}} N^{{\kappa}}}}"

    def fall(self, theta: Array, budget: Array, n: Array | None, slopes: Array) -> Array:
        assert n is not None
        log_g, log_gamma, kappa = columns(theta)
        steep = np.exp(log_gamma) * budget
        power = np.exp(log_g - steep - kappa * n, out=slopes[0])
        np.multiply(power, -steep, out=slopes[1])
        np.multiply(power, -n, out=slopes[2])
        return power

    def reported(self, theta: Array, budget: float, n: float) -> tuple[Array, Array]:
        shift = np.exp(theta[..., 1]) * budget
        slopes = np.zeros((*theta.shape, 3))
        slopes[..., 0, 0] = slopes[..., 1, 1] = slopes[..., 2, 2] = 1
        slopes[..., 0, 1], slopes[..., 0, 2] = shift, n
        return np.stack([theta[..., 0] + shift + theta[..., 2] * n, theta[..., 1], theta[..., 2]], axis=-1), slopes


@dataclass(frozen=True, kw_only=True)
class SaturatingGain(Gain):
    """G/(1 + (C/C0)^gamma): nothing is gained below C0, and little is left to gain far above it.

    Internal: ln G, ln gamma, ln C0 from the centre.
    """

    name = "saturating gain"
    parameters = ("G", "gamma", "C0")
    roles = ("amplitude", "exponent", "turn")
    words = ("the effect of the budget", "the exponent gamma", "the turning point C0")

    def text(self, budget: str) -> str:
        return f"G/(1 + ({budget}/C0)^gamma)"

    def latex(self, budget: str) -> str:
        return rf"\frac{{G}}{{1 + ({budget}/C_0)^{{\gamma}}}}"

    def fall(self, theta: Array, budget: Array, n: Array | None, slopes: Array) -> Array:
        log_g, log_gamma, turn = columns(theta)
        gamma = np.exp(log_gamma)
        odds = gamma * (budget - turn)
        kept = np.exp(-np.logaddexp(0, odds))  # 1/(1 + e^odds)
        term = np.multiply(np.exp(log_g), kept, out=slopes[0])
        rest = term * (1 - kept)
        np.multiply(rest, -odds, out=slopes[1])
        np.multiply(rest, gamma, out=slopes[2])
        return term

    def reported(self, theta: Array, budget: float, n: float) -> tuple[Array, Array]:
        shift = np.array([0.0, 0.0, budget])
        return theta + shift, np.broadcast_to(np.eye(3), (*theta.shape, 3)).copy()


@dataclass(frozen=True, kw_only=True)
class WithBudget(FallingForm):
    """A form of N and D with a gain from inference added. Internal: the base's without its floor, the gain's, floor."""

    base: FallingForm
    gain: Gain = field(default_factory=AddedGain)
    axis: Axis = "beams"
    """The budget: beams, or c, FLOPs a query."""

    @property
    def name(self) -> str:
        return f"{self.base.name} + {self.gain.name}"

    @property
    def parameters(self) -> tuple[str, ...]:
        return (*self.base.parameters, *self.gain.parameters)

    @property
    def exponents(self) -> tuple[str, ...]:
        return (*self.base.exponents, "gamma")

    @property
    def signed(self) -> tuple[str, ...]:
        return self.gain.signed

    @property
    def of_budget(self) -> tuple[str, ...]:
        return self.gain.parameters

    @property
    def floor(self) -> str:
        return self.base.floor

    @property
    def roles(self) -> tuple[Role, ...]:
        return (*self.base.roles[:-1], *self.gain.roles, "floor")

    @property
    def words(self) -> tuple[str, ...]:
        budget = "beams" if self.axis == "beams" else "inference"
        gain = tuple(word.replace("the budget", budget) for word in self.gain.words)
        return (*self.base.words[:-1], *gain, self.base.words[-1])

    @property
    def axes(self) -> tuple[Axis, ...]:
        found = self.base.axes
        if isinstance(self.gain, InteractingGain) and "n" not in found:
            found = ("n", *found)
        return (*found, self.axis)

    @property
    def falling_text(self) -> str:
        return f"{self.base.falling_text} + {self.gain.text(SYMBOLS[self.axis])}"

    @property
    def falling_latex(self) -> str:
        return f"{self.base.falling_latex} + {self.gain.latex(symbol_latex(self.axis))}"

    def fall(self, theta: Array, u: Array, slopes: Array) -> Array:
        count = len(self.base.roles) - 1
        trained = self.base.fall(theta[..., :count], u[:, self._base_columns()], slopes[:count])
        n = u[:, self.axes.index("n")] if "n" in self.axes else None
        return trained + self.gain.fall(theta[..., count:], u[:, -1], n, slopes[count:])

    def reported(self, theta: Array, centre: Array) -> tuple[Array, Array]:
        size, count = len(self.base.roles), len(self.roles)
        of_base = np.array([*range(size - 1), count - 1])
        of_gain = np.arange(size - 1, count - 1)
        n = float(centre[self.axes.index("n")]) if "n" in self.axes else 0.0
        trained, by_base = self.base.reported(theta[..., of_base], centre[self._base_columns()])
        gained, by_gain = self.gain.reported(theta[..., of_gain], float(centre[-1]), n)
        slopes = np.zeros((*theta.shape, count))
        slopes[..., :size, of_base] = by_base
        slopes[..., size:, of_gain] = by_gain
        return np.concatenate([trained, gained], axis=-1), slopes

    def _base_columns(self) -> list[int]:
        return [self.axes.index(axis) for axis in self.base.axes]
