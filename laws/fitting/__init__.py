"""Fitting a form to points: `fit(form, points) -> Law`."""

from laws.fitting.law import INTERVAL, Law, LeaveOut, Options, Parameter, fit

__all__ = ["INTERVAL", "Law", "LeaveOut", "Options", "Parameter", "fit"]
