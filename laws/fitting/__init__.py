"""Fitting a form to points: `fit(form, points) -> Law`."""

from laws.fitting.families import FamilyComparison, compare_families, together
from laws.fitting.fitter import AGREE, fit
from laws.fitting.law import Law, LeaveOut, Parameter
from laws.fitting.options import DELTA, INTERVAL, Loss, Options, Weights
from laws.fitting.profiled import Profile, prediction_intervals, profile

__all__ = [
    "AGREE",
    "DELTA",
    "INTERVAL",
    "FamilyComparison",
    "Law",
    "LeaveOut",
    "Loss",
    "Options",
    "Parameter",
    "Profile",
    "Weights",
    "compare_families",
    "fit",
    "prediction_intervals",
    "profile",
    "together",
]
