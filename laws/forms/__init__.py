"""The functional forms a law can have: parameters, formula, value, gradient."""

from laws.forms.base import SYMBOLS, Array, Axis, FallingForm, Form, Role, log_axes
from laws.forms.bounded import Bounded
from laws.forms.budgets import AddedGain, Gain, InteractingGain, SaturatingGain, WithBudget
from laws.forms.families import Families
from laws.forms.training import Additive, Joint, PowerLaw

__all__ = [
    "SYMBOLS",
    "AddedGain",
    "Additive",
    "Array",
    "Axis",
    "Bounded",
    "FallingForm",
    "Families",
    "Form",
    "Gain",
    "InteractingGain",
    "Joint",
    "PowerLaw",
    "Role",
    "SaturatingGain",
    "WithBudget",
    "log_axes",
]
