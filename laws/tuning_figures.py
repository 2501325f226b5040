"""Figures of tuned learning rates: what each costs, and where the best one goes as models grow."""

import math

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from laws.figures import AXIS_NAMES, INK, LAW, MUTED, POINT, STYLE, family_name, panel, value_ticks
from laws.points import short
from laws.tuning import METRICS, Study, Transfer, best_rate

HEADROOM = 0.6
"""Of the range of trained losses: how much more is shown above it; what is worse is cut off."""


def losses(transfer: Transfer) -> Figure:
    """The loss against the learning rate, a line a size; hollow where a trial was stopped on its way."""
    with matplotlib.rc_context(STYLE):
        figure, axes = panel()
        trained = [one.dev_loss for study in transfer.studies for one in study.trained]
        span = max(trained) - min(trained) or 1.0
        axes.set_ylim(min(trained) - 0.08 * span, max(trained) + HEADROOM * span)
        for index, study in enumerate(transfer.studies):
            colour = colormaps["viridis"](0.85 * (1 - index / max(len(transfer.studies) - 1, 1)))
            _line(axes, study, colour)
        if math.isfinite(chance := transfer.studies[0].chance):
            axes.axhline(chance, color=MUTED, linewidth=1, linestyle=":")
        axes.set_xscale("log")
        _rate_ticks(axes.xaxis)
        axes.set_xlabel("learning rate")
        metric = METRICS.get(transfer.studies[0].metric, "loss")
        axes.set_ylabel(f"{metric} of dev queries")
        axes.set_title(family_name(transfer.studies[0].family), pad=19)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.985), ncols=5, handlelength=1.2, columnspacing=1.0)
        return figure


def _line(axes: Axes, study: Study, colour: object) -> None:
    alike = [one for one in study.attempts if one.batch == study.chosen.batch]
    stopped = [one for one in alike if one.state == "stopped" and math.isfinite(one.dev_loss)]
    name = study.model if math.isnan(study.n_params) else f"N {short(study.n_params)}"
    rates, nlls = ([getattr(one, field) for one in study.trained] for field in ("learning_rate", "dev_loss"))
    axes.plot(rates, nlls, "o", color=colour, markersize=4.5, label=name, zorder=3)
    axes.plot(
        [one.learning_rate for one in stopped], [one.dev_loss for one in stopped], "o",
        color=colour, markersize=4, fillstyle="none", alpha=0.7,
    )  # fmt: skip
    if study.parabola is not None:
        grid = np.geomspace(*study.parabola.within, 60)
        axes.plot(grid, [study.parabola.at(rate) for rate in grid], color=colour, linewidth=1.2)
    axes.plot(study.chosen.learning_rate, study.chosen.dev_loss, "*", color=LAW, markersize=9, zorder=4)


def rates(transfer: Transfer) -> Figure | None:
    """The best rate against N, with its interval, and the fitted trend; None with fewer than two sizes."""
    known = [study for study in transfer.studies if math.isfinite(study.n_params)]
    if len(known) < 2:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = panel()
        n, best = np.array([study.n_params for study in known]), np.array([best_rate(study) for study in known])
        for study in known:
            if study.parabola is not None:
                axes.plot([study.n_params] * 2, [study.parabola.lo, study.parabola.hi], color=POINT, linewidth=1.1)
        axes.plot(n, best, "o", color=POINT, markersize=5, zorder=3)
        axes.plot(n, [study.chosen.learning_rate for study in known], "*", color=LAW, markersize=8, zorder=3)
        trend = np.exp(np.log(best).mean() + transfer.slope * (np.log(n) - np.log(n).mean()))
        axes.plot(n, trend, color=MUTED, linewidth=1.2, linestyle="--")
        axes.set_xscale("log")
        axes.set_yscale("log")
        value_ticks(axes.xaxis, n)
        _rate_ticks(axes.yaxis)
        axes.set_xlabel(AXIS_NAMES["n"])
        axes.set_ylabel("best learning rate")
        axes.set_title(family_name(transfer.studies[0].family), color=INK)
        return figure


def _rate_ticks(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-")))
    axis.set_minor_formatter(NullFormatter())
