"""Forms over N and D: what a loss is as a function of training alone."""

from dataclasses import dataclass

import numpy as np

from laws.forms.base import SYMBOLS, Array, Axis, FallingForm, columns, symbol_latex


@dataclass(frozen=True, kw_only=True)
class PowerLaw(FallingForm):
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
    def words(self) -> tuple[str, ...]:
        return (f"the effect of {SYMBOLS[self.axis]}", "the exponent b", "the floor c")

    @property
    def falling_text(self) -> str:
        return f"(a/{SYMBOLS[self.axis]})^b"

    @property
    def falling_latex(self) -> str:
        return rf"\left(\frac{{a}}{{{symbol_latex(self.axis)}}}\right)^{{b}}"

    @property
    def text(self) -> str:
        return f"{self.falling_text} + c"

    @property
    def latex(self) -> str:
        return f"{self.falling_latex} + c"

    def fall(self, theta: Array, u: Array, slopes: Array) -> Array:
        amplitude, log_b = columns(theta)
        steep = np.exp(log_b) * u[:, 0]
        power = np.exp(amplitude - steep, out=slopes[0])
        np.multiply(power, -steep, out=slopes[1])
        return power

    def reported(self, theta: Array, centre: Array) -> tuple[Array, Array]:
        shrunk = theta[..., 0] * np.exp(-theta[..., 1])
        values = np.stack([shrunk + centre[0], theta[..., 1], theta[..., 2]], axis=-1)
        slopes = np.zeros((*theta.shape, 3))
        slopes[..., 0, 0], slopes[..., 0, 1] = np.exp(-theta[..., 1]), -shrunk
        slopes[..., 1, 1] = slopes[..., 2, 2] = 1
        return values, slopes


@dataclass(frozen=True, kw_only=True)
class Additive(FallingForm):
    """E + A/N^alpha + B/D^beta (Hoffmann et al. 2022). Internal: ln KA, ln alpha, ln KB, ln beta, ln E."""

    name = "additive"
    parameters = ("E", "A", "alpha", "B", "beta")
    exponents = ("alpha", "beta")
    floor = "E"
    axes = ("n", "d")
    roles = ("amplitude", "exponent", "amplitude", "exponent", "floor")
    words = ("the effect of N", "the exponent alpha", "the effect of D", "the exponent beta", "the floor E")
    falling_text = "A/N^alpha + B/D^beta"
    falling_latex = r"\frac{A}{N^{\alpha}} + \frac{B}{D^{\beta}}"

    def fall(self, theta: Array, u: Array, slopes: Array) -> Array:
        log_a, log_alpha, log_b, log_beta = columns(theta)
        by_n, by_d = np.exp(log_alpha) * u[:, 0], np.exp(log_beta) * u[:, 1]
        np.exp(log_a - by_n, out=slopes[0])
        np.multiply(slopes[0], -by_n, out=slopes[1])
        np.exp(log_b - by_d, out=slopes[2])
        np.multiply(slopes[2], -by_d, out=slopes[3])
        total: Array = slopes[0] + slopes[2]
        return total

    def reported(self, theta: Array, centre: Array) -> tuple[Array, Array]:
        by_n, by_d = np.exp(theta[..., 1]) * centre[0], np.exp(theta[..., 3]) * centre[1]
        values = np.stack(
            [theta[..., 4], theta[..., 0] + by_n, theta[..., 1], theta[..., 2] + by_d, theta[..., 3]], axis=-1
        )
        slopes = np.zeros((*theta.shape, 5))
        for row, column in enumerate((4, 0, 1, 2, 3)):
            slopes[..., row, column] = 1
        slopes[..., 1, 1], slopes[..., 3, 3] = by_n, by_d
        return values, slopes


@dataclass(frozen=True, kw_only=True)
class Joint(FallingForm):
    """[ (A/D)^(alpha/beta) + B/N ]^beta + delta (arXiv 2503.18941; the shape is Kaplan et al. 2020's).

    Internal: ln S, logit w, ln gamma, ln beta, ln delta with S [ w (D/D0)^-gamma + (1-w) (N/N0)^-1 ]^beta + delta.
    """

    name = "joint"
    parameters = ("A", "alpha", "B", "beta", "delta")
    exponents = ("alpha", "beta")
    floor = "delta"
    axes = ("n", "d")
    roles = ("amplitude", "weight", "exponent", "exponent", "floor")
    words = (
        "the effect of N and D",
        "the share of D against N",
        "the ratio alpha/beta",
        "the exponent beta",
        "the floor delta",
    )
    falling_text = "[(A/D)^(alpha/beta) + B/N]^beta"
    falling_latex = r"\left[\left(\frac{A}{D}\right)^{\alpha/\beta} + \frac{B}{N}\right]^{\beta}"

    @property
    def text(self) -> str:
        return f"{self.falling_text} + delta"

    @property
    def latex(self) -> str:
        return rf"{self.falling_latex} + \delta"

    def fall(self, theta: Array, u: Array, slopes: Array) -> Array:
        log_s, logit, log_gamma, log_beta = columns(theta)
        gamma, beta = np.exp(log_gamma), np.exp(log_beta)
        log_w, log_rest = -np.logaddexp(0, -logit), -np.logaddexp(0, logit)
        steep = gamma * u[:, 1]
        # the larger of the two terms is taken out, so that neither overflows
        gap = (log_w - steep) - (log_rest - u[:, 0])
        smaller = np.exp(-np.abs(gap))
        share = np.where(gap > 0, 1.0, smaller) / (1 + smaller)
        total = beta * (np.where(gap > 0, log_w - steep, log_rest - u[:, 0]) + np.log1p(smaller))
        power = np.exp(log_s + total, out=slopes[0])
        by_beta = power * beta
        np.multiply(by_beta, share - np.exp(log_w), out=slopes[1])
        np.multiply(by_beta, -share * steep, out=slopes[2])
        np.multiply(power, total, out=slopes[3])
        return power

    def reported(self, theta: Array, centre: Array) -> tuple[Array, Array]:
        log_s, logit, log_gamma, log_beta, log_delta = np.moveaxis(theta, -1, 0)
        gamma, beta = np.exp(log_gamma), np.exp(log_beta)
        log_w, log_rest = -np.logaddexp(0, -logit), -np.logaddexp(0, logit)
        scale = log_s / beta
        log_a, log_b = (scale + log_w) / gamma, scale + log_rest
        values = np.stack([log_a + centre[1], log_gamma + log_beta, log_b + centre[0], log_beta, log_delta], axis=-1)
        slopes = np.zeros((*theta.shape, 5))
        slopes[..., 0, 0], slopes[..., 0, 1] = 1 / (beta * gamma), np.exp(log_rest) / gamma
        slopes[..., 0, 2], slopes[..., 0, 3] = -log_a, -scale / gamma
        slopes[..., 1, 2] = slopes[..., 1, 3] = slopes[..., 3, 3] = slopes[..., 4, 4] = 1
        slopes[..., 2, 0], slopes[..., 2, 1], slopes[..., 2, 3] = 1 / beta, -np.exp(log_w), -scale
        return values, slopes
