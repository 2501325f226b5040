"""How the band narrows with what is spent, as a picture: a panel a truth, a line a way of choosing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.planning.next import WAYS, Race

TICKS = (1.0, 0.5, 0.25, 0.125)
COLOURS = dict(zip(WAYS, ("#4269d0", "#efb118", "#9498a0"), strict=True))


def draw(races: Sequence[Race], path: Path) -> None:
    """Write a PNG, and an SVG beside it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(races), 4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots(1, len(races), sharey=True))
    for panel, race in zip(panels, races, strict=True):
        for way in WAYS:
            panel.plot(race.budgets, race.widths[way], color=COLOURS[way], marker="o", markersize=3, label=way)
        panel.set(xscale="log", yscale="log", xlabel="FLOPs of further trials", title=f"{race.name} law")
        panel.grid(color="#eeeeee")
        panel.set_yticks(TICKS, [f"{share:.0%}" for share in TICKS])
        panel.set_yticks([], minor=True)
    panels[0].set_ylabel("width of the band at the target, of what it was")
    panels[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    figure.savefig(path.with_suffix(".svg"))
