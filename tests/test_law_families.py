"""Families of models together: shared exponents or separate ones."""

from dataclasses import replace

import laws_data as data
import numpy as np
import pytest
from known_laws import ADDITIVE, BY_NAME, ONLY, noisy

from laws.fitting import Options, compare_families, fit, together
from laws.forms import Additive, Families, Joint, PowerLaw


@pytest.mark.parametrize("shared", [True, False])
def test_families_share_exponents_where_they_do(shared):
    truth = BY_NAME["additive, shared exponents"]
    points = noisy(truth, noise=0.01)
    if not shared:
        other = {"alpha": 0.5, "beta": 0.4, "E": 1.2, "A": 2000.0, "B": 1500.0}
        mine = points.family == 1
        y = points.y.copy()
        y[mine] = ADDITIVE.form.value(*_at(other, points.where(mine))) * (1 + 0.01 * np.sin(np.arange(mine.sum()) * 7))
        points = replace(points, y=y)
    found = compare_families(Additive(), points, Options(loss="relative", bootstraps=0))
    assert (found.best is found.shared) == shared
    assert (found.gap > 0) == shared
    assert len(found.shared.parameters) == 8
    assert len(found.separate.parameters) == 10


def _at(p, points):
    """Internal coordinates of additive parameters with the centre at one, and the log axes."""
    theta = np.log([p["A"], p["alpha"], p["B"], p["beta"], p["E"]])
    return theta, points.logs(("n", "d"))


def test_separate_families_are_fitted_as_if_alone():
    truth = BY_NAME["joint, separate exponents"]
    points = noisy(truth)
    together = fit(truth.form, points, Options(loss="relative", bootstraps=0))
    for family in range(2):
        alone = fit(Joint(), points.where(points.family == family), Options(loss="relative", bootstraps=0))
        for name in alone.form.parameters:
            assert together[f"{name}_{family + 1}"] == pytest.approx(alone[name], rel=1e-4)
    at = [np.array([1e8, 1e8]), np.array([1e9, 1e9]), np.array([0, 1])]
    assert together.predict(at).shape == (2,)


@pytest.mark.parametrize("codes", [None, [0] * 8, [1, 2] * 4])
def test_families_that_cannot_be_compared_are_refused(codes):
    points = data.points(np.geomspace(1e3, 1e6, 8), 10, np.geomspace(3, 1, 8))
    points = replace(points, family=None if codes is None else np.array(codes))
    with pytest.raises(ValueError, match="from two on"):
        compare_families(PowerLaw(axis="n"), points)


def test_points_of_families_are_put_together():
    first = data.points([1, 2, 3], 10, [3, 2, 1], run=("a", "b", "b"), lo=np.zeros(3))
    second = data.points([4, 5], 20, [5, 4], run=("a", "c"))
    both = together([first, second])
    assert both.family.tolist() == [0, 0, 0, 1, 1]
    assert both.n.tolist() == [1, 2, 3, 4, 5]
    assert both.run == ("0 a", "0 b", "0 b", "1 a", "1 c")
    assert both.lo is None
    with pytest.raises(ValueError, match="one metric"):
        together([first, replace(second, metric="nll")])


def test_too_few_points_do_not_decide_between_families():
    n = np.geomspace(1e6, 1e8, 3)
    points = data.points(np.tile(n, 2), 10, np.tile(n**-0.3, 2))
    points = replace(points, family=np.repeat([0, 1], 3))
    found = compare_families(PowerLaw(axis="n"), points)
    assert found.best is None
    assert np.isnan(found.gap)


def test_forms_of_families_have_starts_for_each():
    form = Families(base=PowerLaw(axis="n"), count=2, shared="none")
    truth = BY_NAME["power, shared exponents"]
    law = fit(form, noisy(truth, noise=0.0), ONLY)
    assert law["b_1"] == pytest.approx(0.4, rel=1e-9)
    assert law["b_2"] == pytest.approx(0.4, rel=1e-9)
