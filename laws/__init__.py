"""From tables of trials, or anybody's points, to scaling laws.

    from laws import Additive, Columns, fit, judge, read_points

    (selection,) = read_points("points.csv", Columns(n="params", d="tokens", y="loss")).values()
    law = fit(Additive(), selection.points)
    print(law["alpha"], law.predict([[7e9], [2e12]]), law.band([[7e9], [2e12]]))
    print(judge(law, selection.points))      # Verdict(word='weak', reason='...')

Points can be made of arrays too: `Points(n=n, d=d, y=loss)`. Nothing heavy is imported until a name is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laws.anyones import Columns, read_points
    from laws.fitting import Law, Options, fit
    from laws.forms import (
        AddedGain,
        Additive,
        Bounded,
        Families,
        InteractingGain,
        Joint,
        PowerLaw,
        SaturatingGain,
        WithBudget,
    )
    from laws.points import Points
    from laws.trust.comparison import compare
    from laws.trust.verdict import Verdict, judge

__all__ = [
    "AddedGain",
    "Additive",
    "Bounded",
    "Columns",
    "Families",
    "InteractingGain",
    "Joint",
    "Law",
    "Options",
    "Points",
    "PowerLaw",
    "SaturatingGain",
    "Verdict",
    "WithBudget",
    "compare",
    "fit",
    "judge",
    "read_points",
]

_HOMES = {
    "laws.anyones": ("Columns", "read_points"),
    "laws.fitting": ("Law", "Options", "fit"),
    "laws.points": ("Points",),
    "laws.trust.comparison": ("compare",),
    "laws.trust.verdict": ("Verdict", "judge"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'laws' has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), "laws.forms")
    return getattr(import_module(home), name)
