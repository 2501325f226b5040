"""The ladder: small models built from a config, each rung named by its N.

Shallow beats deep at these sizes, and the best learning rate falls with width; both were measured on
2,000 SQuAD passages. Learning rates above width 128 continue that trend and are not measured.
"""

from dataclasses import dataclass

from workers.models.shapes import Shape


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One size. `layers` is a stack's; T5 has an encoder and a decoder of that depth."""

    width: int
    layers: int
    heads: int
    learning_rate: float


def _rung(width: int, layers: int, heads: int, learning_rate: float) -> Rung:
    return Rung(width=width, layers=layers, heads=heads, learning_rate=learning_rate)


RUNGS: dict[str, dict[str, Rung]] = {
    "t5": {
        "7k": _rung(16, 1, 2, 1.5e-2),
        "29k": _rung(32, 1, 2, 1e-2),
        "115k": _rung(64, 1, 4, 7e-3),
        "230k": _rung(64, 2, 4, 5e-3),
        "460k": _rung(128, 1, 4, 1.5e-3),
        "919k": _rung(128, 2, 4, 1.5e-3),
        "2m": _rung(192, 2, 6, 1e-3),
        "4m": _rung(256, 2, 8, 7e-4),
        "7m": _rung(256, 4, 8, 7e-4),
        "17m": _rung(384, 4, 12, 5e-4),
    },
    "llama": {
        "6k": _rung(16, 2, 2, 1.5e-2),
        "24k": _rung(32, 2, 2, 1.2e-2),
        "98k": _rung(64, 2, 2, 1e-2),
        "197k": _rung(64, 4, 2, 7e-3),
        "394k": _rung(128, 2, 4, 1.5e-3),
        "787k": _rung(128, 4, 4, 1.5e-3),
        "2m": _rung(192, 4, 6, 1e-3),
        "3m": _rung(256, 4, 8, 7e-4),
        "6m": _rung(256, 8, 8, 7e-4),
        "14m": _rung(384, 8, 12, 5e-4),
    },
}


def rung_shape(family: str, size: str, vocabulary: int) -> Shape:
    """The rung's shape over a vocabulary; feed-forward 4 d (T5) or 8 d / 3 (LLaMA), embeddings tied."""
    rung = RUNGS[family][size]
    return Shape(
        family="t5" if family == "t5" else "llama",
        width=rung.width,
        layers=rung.layers,
        heads=rung.heads,
        head_width=rung.width // rung.heads,
        feed_forward=4 * rung.width if family == "t5" else round(8 * rung.width / 3),
        vocabulary=vocabulary,
    )
