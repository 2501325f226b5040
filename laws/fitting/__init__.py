"""Fitting a form to points: `fit(form, points) -> Law`."""

from laws.fitting.law import INTERVAL, Law, LeaveOut, Loss, Options, Parameter, ends, fit

__all__ = ["INTERVAL", "Law", "LeaveOut", "Loss", "Options", "Parameter", "ends", "fit"]
