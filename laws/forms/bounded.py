"""Forms of what lies between two bounds, such as the error 1 - m of a metric in [0, 1]."""

from dataclasses import dataclass

import numpy as np

from laws.forms.base import Array, Axis, FallingForm, Form, Role, empty_slopes, floor_latex

_ENDLESS = 1e200
"""Odds from which on nothing is left but the ceiling."""


@dataclass(frozen=True, kw_only=True)
class Bounded(Form):
    """floor + (ceiling - floor) s/(1+s), where s is the sum of `base` without its floor.

    Far down it is the base's law, and far up it levels off at the ceiling: an error cannot exceed 1, or that of
    guessing. Internal: the base's, its amplitudes being odds; ln ceiling last where it is not given.
    """

    base: FallingForm
    ceiling: float | None = 1.0
    """None: fitted."""

    def __post_init__(self) -> None:
        if self.ceiling is not None and not 0 < self.ceiling < np.inf:
            raise ValueError(f"ceiling must be a positive number, not {self.ceiling}")

    @property
    def name(self) -> str:
        return f"bounded {self.base.name}"

    @property
    def parameters(self) -> tuple[str, ...]:
        return (*self.base.parameters, *(("ceiling",) if self.ceiling is None else ()))

    @property
    def exponents(self) -> tuple[str, ...]:
        return self.base.exponents

    @property
    def signed(self) -> tuple[str, ...]:
        return self.base.signed

    @property
    def floor(self) -> str:
        return self.base.floor

    @property
    def roles(self) -> tuple[Role, ...]:
        falling: list[Role] = ["odds" if role == "amplitude" else role for role in self.base.roles[:-1]]
        ceiling: tuple[Role, ...] = ("ceiling",) if self.ceiling is None else ()
        return (*falling, "floor", *ceiling)

    @property
    def words(self) -> tuple[str, ...]:
        return (*self.base.words, *(("the ceiling",) if self.ceiling is None else ()))

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.base.axes

    @property
    def text(self) -> str:
        return f"{self.floor} + ({self._top} - {self.floor}) s/(1+s), s = {self.base.falling_text}"

    @property
    def latex(self) -> str:
        floor = floor_latex(self.floor)
        top = r"\mathrm{ceiling}" if self.ceiling is None else self._top
        return rf"{floor} + ({top} - {floor}) \frac{{s}}{{1+s}},\; s = {self.base.falling_latex}"

    @property
    def _top(self) -> str:
        return "ceiling" if self.ceiling is None else f"{self.ceiling:g}"

    def evaluate(self, theta: Array, u: Array) -> tuple[Array, Array]:
        falling = len(self.base.roles) - 1
        slopes = empty_slopes(theta, u)
        with np.errstate(over="ignore"):
            odds = self.base.fall(theta[..., :falling], u, slopes[:falling])
        left = 1 / (1 + odds)
        with np.errstate(divide="ignore", over="ignore"):
            share = 1 / (1 + 1 / odds)  # 1 - left would lose the digits of small odds, odds * left fails at infinity
        floor = np.exp(theta[..., falling, None])
        ceiling = np.exp(theta[..., falling + 1, None]) if self.ceiling is None else self.ceiling
        if not odds.max() < _ENDLESS:  # there the curve is flat, and infinity times nothing is no number
            np.copyto(slopes[:falling], 0.0, where=~(odds < _ENDLESS))
        slopes[:falling] *= (ceiling - floor) * left**2
        slopes[falling] = floor * left
        if self.ceiling is None:
            slopes[falling + 1] = ceiling * share
        return floor * left + ceiling * share, np.moveaxis(slopes, 0, -1)

    def reported(self, theta: Array, centre: Array) -> tuple[Array, Array]:
        size = len(self.base.roles)
        values, by_base = self.base.reported(theta[..., :size], centre)
        slopes = np.zeros((*theta.shape, theta.shape[-1]))
        slopes[..., :size, :size] = by_base
        if self.ceiling is not None:
            return values, slopes
        slopes[..., size, size] = 1
        return np.concatenate([values, theta[..., size:]], axis=-1), slopes
