"""What must be equal before a time is worth printing."""

from dataclasses import fields

import numpy as np

from workers.decoding.beam import Candidates
from workers.decoding.step import Chosen


def assert_equal(ours: Chosen | Candidates, baseline: Chosen | Candidates) -> None:
    """Every field, entry for entry; scores to 1e-9. Raises AssertionError with the field's name."""
    for field in fields(ours):
        mine, other = getattr(ours, field.name), getattr(baseline, field.name)
        same = mine.shape == other.shape and np.allclose(mine, other, rtol=0, atol=1e-9)
        assert same, f"{field.name} differs from the baseline's"


def assert_same_ranking(
    ours: dict[tuple[int, ...], float], baseline: dict[tuple[int, ...], float], tolerance: float
) -> None:
    """The same sequences with the same scores, in the same order but where scores are within the tolerance.

    Sequences that one side alone has must be as good as its worst: ties at the cut.
    """
    for one, other in ((ours, baseline), (baseline, ours)):
        assert len(one) == len(other), f"{len(one)} sequences against {len(other)}"
        worst = min(other.values())
        for sequence, score in one.items():
            expected = other.get(sequence, worst)
            assert abs(score - expected) <= tolerance, f"{sequence}: {score} against {expected}"
