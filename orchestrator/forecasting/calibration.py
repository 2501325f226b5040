"""From what finished steps took to what the rest will take.

A step's seconds are foretold as a sum of parts (see `rates`). Of each kind of step on each device the parts are
scaled alike to what was measured, and then each by itself as far as the measurements insist: with one there is only
the scale, with many the fit is theirs. Errors count as ratios, and large ones little, so that a step that once took
ten times as long as it should moves nothing. A kind that was not measured is scaled as its like are.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

import numpy as np
from scipy.optimize import least_squares

from orchestrator.forecasting.rates import TERMS, Parts, is_gpu

FREEDOM = 0.35
"""Standard deviation of the log of one part's own factor, before anything is measured."""
NOISE = 0.3
"""Of the log of a step's seconds: what the parts do not explain. Ratios beyond a few of it count as outliers."""
EVIDENCE = 8.0
"""Steps that all measurements of a kind count as, at most: what slowed one down slowed its neighbours down too."""

WITH_MODELS = frozenset({"train", "score", "search"})
"""Kinds whose speed says something of each other's; the others are of their own."""
LIKENESS = 0.5
"""Standard deviation of the log of a kind's scale from its like's."""
FIRST_SECONDS = 2.0
"""A step that was foretold to take so long counts half: the first ones of a process take that much, or more, longer."""
LEAST = 0.02
SHY = 3.0
"""Measured steps from which on another kind's scale is taken over by more than half."""

Where = tuple[str, str]
"""(kind of step, device)."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One step that has run, or has run so far that its seconds are known."""

    kind: str
    device: str
    parts: Parts
    """Its seconds as foretold without any measurement."""
    seconds: float
    weight: float = 1.0
    """Less for what was measured when the machines were otherwise busy, long ago."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Factors on the parts, by kind and device. Without any it leaves every estimate as it is."""

    factors: Mapping[Where, Parts] = field(default_factory=dict)
    counts: Mapping[Where, int] = field(default_factory=dict)
    """Steps behind the factors."""

    def seconds(self, kind: str, device: str, parts: Parts) -> float:
        """Of a step with these parts."""
        return float(np.dot(self._factors(kind, device), parts))

    def _factors(self, kind: str, device: str) -> Parts:
        """The kind's own on the device; else one scale for all parts, that of its like as far as these are known."""
        if (kind, device) in self.factors:
            return self.factors[kind, device]
        on_gpus = [where for where in self.factors if where[0] == kind and is_gpu(where[1]) and is_gpu(device)]
        beside = [where for where in self.factors if where[1] == device and {kind, where[0]} <= WITH_MODELS]
        like = on_gpus or beside
        if not like:
            return (1.0,) * len(TERMS)
        scale = median(float(np.mean(np.log(self.factors[where]))) for where in like)
        steps = sum(self.counts[where] for where in like)
        return (math.exp(scale * steps / (steps + SHY)),) * len(TERMS)

    def after(self, measured: Iterable[Measured]) -> "Calibration":
        """This calibration, corrected by further measurements. Kinds that took most come first: others lean on them."""
        groups: dict[Where, list[Measured]] = defaultdict(list)
        for one in measured:
            if one.seconds > 0 and sum(one.parts) > 0:
                groups[one.kind, one.device].append(one)
        factors, counts, changes = dict(self.factors), dict(self.counts), dict[Where, float]()
        for where in sorted(groups, key=lambda where: -sum(one.seconds for one in groups[where])):
            before = np.array(self._factors(*where))
            foretold = np.array([one.parts for one in groups[where]]) * before
            seconds, weights = np.array([(one.seconds, one.weight) for one in groups[where]]).T
            own = fit(foretold, seconds, weights * certainty(foretold), _expected(where, changes))
            changes[where] = float(np.mean(np.log(own)))
            factors[where] = tuple((before * own).tolist())
            counts[where] = counts.get(where, 0) + len(seconds)
        for where in self.factors.keys() - groups.keys():
            change = math.exp(_expected(where, changes) or 0.0)
            factors[where] = tuple(factor * change for factor in self.factors[where])
        return Calibration(factors=factors, counts=counts)

    def behind(self) -> str:
        """`calibrated from 84 finished steps on cpu`, or `uncalibrated`."""
        devices = sorted({device for _, device in self.counts})
        if not devices:
            return "uncalibrated"
        steps = sum(self.counts.values())
        return f"calibrated from {steps:,} finished step{'s' if steps > 1 else ''} on {', '.join(devices)}"


def _expected(where: Where, changes: Mapping[Where, float]) -> float | None:
    """How much the log of a kind's seconds should change when its like changed so; None where none did."""
    like = [change for other, change in changes.items() if other[1] == where[1] and {where[0], other[0]} <= WITH_MODELS]
    return median(like) if like else None


def certainty(foretold: np.ndarray) -> np.ndarray:
    """(steps,): weights of measurements. Short ones are mostly of what comes first: imports, compiling, loading."""
    squares = foretold.sum(axis=1) ** 2
    return np.maximum(squares / (squares + FIRST_SECONDS**2), LEAST)


def fit(foretold: np.ndarray, seconds: np.ndarray, weights: np.ndarray, expected: float | None) -> np.ndarray:
    """Factors of the parts, (parts,), such that their sums come near the seconds.

    Args:
        foretold: (steps, parts), seconds; a part of which there is none anywhere gets the scale of the others.
        seconds: (steps,).
        weights: (steps,), above 0.
        expected: of the log of the scale, where anything is.
    """
    logs = np.log(seconds)
    active = foretold.any(axis=0)
    roots = np.sqrt(weights * min(1.0, EVIDENCE / weights.sum())) / NOISE
    used = foretold[:, active]

    def errors(unknown: np.ndarray) -> np.ndarray:
        foreseen = np.log(used @ np.exp(unknown[1:])) + unknown[0]
        errors = np.concatenate([roots * (foreseen - logs), unknown[1:] / FREEDOM])
        return errors if expected is None else np.append(errors, (unknown[0] - expected) / LIKENESS)

    start = float(np.median(logs - np.log(foretold.sum(axis=1)))) if expected is None else expected
    found = least_squares(errors, np.concatenate([[start], np.zeros(active.sum())]), loss="soft_l1", max_nfev=50)
    factors = np.full(foretold.shape[1], math.exp(found.x[0]))
    factors[active] *= np.exp(found.x[1:])
    return factors
