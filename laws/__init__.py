"""From tables of trials to scaling laws: `from laws import fit, Points, PowerLaw, Additive, Joint`.

Nothing heavy is imported until a name is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laws.fitting import Law, fit
    from laws.forms import Additive, Joint, PowerLaw
    from laws.points import Points

__all__ = ["Additive", "Joint", "Law", "Points", "PowerLaw", "fit"]

_HOME = {
    "Additive": "laws.forms",
    "Joint": "laws.forms",
    "Law": "laws.fitting",
    "Points": "laws.points",
    "PowerLaw": "laws.forms",
    "fit": "laws.fitting",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'laws' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
