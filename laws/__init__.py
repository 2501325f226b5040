"""From tables of trials to scaling laws: `from laws import fit, Points, PowerLaw, Additive, Joint`.

Nothing heavy is imported until a name is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

__all__ = [
    "AddedGain",
    "Additive",
    "Bounded",
    "Families",
    "InteractingGain",
    "Joint",
    "Law",
    "Options",
    "Points",
    "PowerLaw",
    "SaturatingGain",
    "WithBudget",
    "fit",
]

_FITTING = ("Law", "Options", "fit")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'laws' has no attribute {name!r}")
    home = "laws.points" if name == "Points" else "laws.fitting" if name in _FITTING else "laws.forms"
    return getattr(import_module(home), name)
