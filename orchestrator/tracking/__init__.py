"""Weights & Biases: a view of the results folder, one run a training.

The folder is the truth and W&B shows it: what is not there yet can be written at any time from what the folder
holds, by the same command. So nothing is ever passed along but keys, and nothing that W&B does or does not do
changes a sweep.
"""

from orchestrator.tracking.tracker import Tracker, check, place_of
from orchestrator.tracking.training import Training, describe

__all__ = ["Tracker", "Training", "check", "describe", "place_of"]
