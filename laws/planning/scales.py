"""From the values that a law is fitted to, lower being better, to those of the metric, and back."""

import math
from dataclasses import dataclass

from laws.points import Points, Quantity, label


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A metric and what of it is fitted."""

    metric: str
    quantity: Quantity

    @property
    def name(self) -> str:
        """How the metric itself is written: `CGL`, `Hit@10`."""
        return label(self.metric, "loss")

    @property
    def is_loss(self) -> bool:
        """Whether less of the metric is better."""
        return self.quantity == "loss"

    def metric_of(self, fitted: float) -> float:
        """The metric's value; one in [0, 1] stays there, wherever a law may lead."""
        if math.isnan(fitted) or self.is_loss:
            return fitted
        value = 1 - fitted if self.quantity == "error" else math.exp(-fitted)
        return min(1.0, max(0.0, value))

    def fitted_of(self, metric: float) -> float:
        """The value to fit; a metric of 0 has an infinite -log."""
        if self.is_loss:
            return metric
        return 1 - metric if self.quantity == "error" else (-math.log(metric) if metric > 0 else math.inf)

    def interval(self, lo: float, hi: float) -> tuple[float, float]:
        """An interval of fitted values as one of the metric, its lower end first."""
        ends = (self.metric_of(lo), self.metric_of(hi))
        return ends if self.is_loss else (ends[1], ends[0])


def scale_of(points: Points) -> Scale:
    """Of the points that a law is fitted to."""
    return Scale(metric=points.metric, quantity=points.quantity)
