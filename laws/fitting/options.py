"""What a user may choose about a fit."""

from dataclasses import dataclass
from typing import Literal

Loss = Literal["squared", "relative", "huber-log"]
Weights = Literal["equal", "intervals"]

INTERVAL = 0.90
"""Coverage of the intervals of parameters and predictions, unless asked otherwise."""
DELTA = 1e-3
"""Where Huber's loss turns from squares to absolute values, in logarithms (Hoffmann et al. 2022)."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to fit, and how hard to try."""

    loss: Loss = "squared"
    """Squares of y - f, squares of ln y - ln f (relative residuals, where they are small), or Huber's loss of those."""
    delta: float = DELTA
    """Of Huber's loss."""
    weights: Weights = "equal"
    """`intervals`: a residual counts by the width of its metric's own interval, where there is one."""
    starts: int = 32
    """Candidates of the grid that are followed to their minimum."""
    bootstraps: int = 400
    intervals: bool = True
    """Whether parameters get their profile intervals; needless where only the curve is wanted."""
    seed: int = 0
    interval: float = INTERVAL
    """Coverage of the intervals of parameters and predictions."""

    def __post_init__(self) -> None:
        if not self.delta > 0:
            raise ValueError(f"delta must be positive, not {self.delta}")
        if not 0 < self.interval < 1:
            raise ValueError(f"an interval covers a share between 0 and 1, not {self.interval}")
        if self.starts < 1 or self.bootstraps < 0:
            raise ValueError("a fit needs one start or more, and no negative number of bootstraps")
