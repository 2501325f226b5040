"""Colours by what they stand for, light and dark: none that the colour-blind take for another.

Categories are those of Okabe and Ito (2008); an order (sizes, scales, values) is viridis (Smith and van der Walt),
from which the end that would vanish on the ground is left out.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb

Theme = Literal["light", "dark"]

STEPS = 8
"""Colours of an order: `s0`, the least, to `s7`."""
FILLS = 9
"""Colours below contours: `v0`, the least value, to `v8`."""
FILL_SHARES: dict[Theme, float] = {"light": 0.5, "dark": 0.38}
"""Of viridis in those; the rest is the ground, so that what is written on them can be read."""

PLAIN: dict[Theme, dict[str, str]] = {
    "light": {
        "ink": "#1f2429",
        "muted": "#5d6670",
        "line": "#dfe3e8",
        "soft": "#f5f6f8",
        "ground": "#ffffff",
        "link": "#005a96",
        "c0": "#0072b2",
        "c1": "#c8500a",
        "c2": "#008a64",
        "c3": "#b5588f",
        "c4": "#a87000",
        "c5": "#3a8fc4",
    },
    "dark": {
        "ink": "#e8ebee",
        "muted": "#a3adb8",
        "line": "#323a43",
        "soft": "#1d2329",
        "ground": "#13171b",
        "link": "#7cc4f5",
        "c0": "#5db4f0",
        "c1": "#ff935c",
        "c2": "#3fd0a2",
        "c3": "#ee9fcb",
        "c4": "#f5c04a",
        "c5": "#a5dcfa",
    },
}
"""`ink` writes, `muted` says what matters less, `line` separates, `soft` sets off; `c0` to `c5` are categories."""

POINT, LAW = "c0", "c1"
"""What was measured, and what was fitted to it."""
CATEGORIES = tuple(f"c{index}" for index in range(6))
SYMBOLS = ("circle", "square", "diamond", "triangle")
"""With a colour goes a shape, for print in grey."""
_RANGES: dict[Theme, tuple[float, float]] = {"light": (0.78, 0.02), "dark": (0.28, 0.97)}


def colours(theme: Theme) -> dict[str, str]:
    """Every colour of a theme by its name, as #rrggbb."""
    start, end = _RANGES[theme]
    steps = {f"s{i}": to_hex(colormaps["viridis"](start + (end - start) * i / (STEPS - 1))) for i in range(STEPS)}
    ground = np.array(to_rgb(PLAIN[theme]["ground"]))
    shades = [np.array(colormaps["viridis"](i / (FILLS - 1))[:3]) for i in range(FILLS)]
    share = FILL_SHARES[theme]
    mixed = {f"v{i}": to_hex(tuple(share * shade + (1 - share) * ground)) for i, shade in enumerate(shades)}
    return PLAIN[theme] | steps | mixed


def ordered(count: int) -> list[str]:
    """Names of `count` colours from the least to the greatest, as far apart as there are."""
    if count == 1:
        return ["s5"]
    return [f"s{round(index * (STEPS - 1) / (count - 1))}" for index in range(count)]


def category(name: str, names: Sequence[str]) -> tuple[str, str]:
    """Colour and symbol of one of several names; they repeat where there are too many."""
    index = list(names).index(name)
    return CATEGORIES[index % len(CATEGORIES)], SYMBOLS[index % len(SYMBOLS)]
