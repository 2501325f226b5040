"""Several families of models at once: do they share their exponents?"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from laws.forms.base import Array, Axis, Form, Role, empty_slopes

Shared = Literal["exponents", "none"]
_SHARED: frozenset[Role] = frozenset({"exponent", "signed"})


@dataclass(frozen=True, kw_only=True)
class Families(Form):
    """`base` for each of `count` families, with exponents in common or with nothing in common.

    The last axis is the family's code, 0 to count - 1. Internal: what is shared, then each family's own.
    """

    base: Form
    count: int
    shared: Shared = "exponents"

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ValueError(f"families are compared from two on, not {self.count}")

    @property
    def name(self) -> str:
        return f"{self.base.name}, {'shared' if self.shared == 'exponents' else 'separate'} exponents"

    @property
    def parameters(self) -> tuple[str, ...]:
        shared = self._public_shared()
        own = [name for name in self.base.parameters if name not in shared]
        return (*shared, *(f"{name}_{family + 1}" for family in range(self.count) for name in own))

    @property
    def exponents(self) -> tuple[str, ...]:
        shared = self._public_shared()
        own = [name for name in self.base.exponents if name not in shared]
        kept = tuple(name for name in shared if name in self.base.exponents)
        return (*kept, *(f"{name}_{family + 1}" for family in range(self.count) for name in own))

    @property
    def signed(self) -> tuple[str, ...]:
        return tuple(name for name in self.parameters if name.rsplit("_", 1)[0] in self.base.signed)

    @property
    def of_budget(self) -> tuple[str, ...]:
        return tuple(name for name in self.parameters if name.rsplit("_", 1)[0] in self.base.of_budget)

    @property
    def floor(self) -> str:
        return f"{self.base.floor}_1"

    @property
    def roles(self) -> tuple[Role, ...]:
        return tuple(self.base.roles[index] for index in self._origin())

    @property
    def words(self) -> tuple[str, ...]:
        shared = sum(self._is_shared())
        own = len(self.base.roles) - shared
        words = [self.base.words[index] for index in self._origin()]
        return tuple(
            word if place < shared else f"{word} of family {(place - shared) // own + 1}"
            for place, word in enumerate(words)
        )

    @property
    def axes(self) -> tuple[Axis, ...]:
        return (*self.base.axes, "family")

    @property
    def text(self) -> str:
        return f"{self.base.text} ({self._told})"

    @property
    def latex(self) -> str:
        return rf"{self.base.latex}\quad\mathrm{{({self._told.replace(' ', '~')})}}"

    @property
    def _told(self) -> str:
        return f"{self.count} families, {'exponents shared' if self.shared == 'exponents' else 'nothing shared'}"

    def evaluate(self, theta: Array, u: Array) -> tuple[Array, Array]:
        slopes = empty_slopes(theta, u)
        slopes[:] = 0
        values = np.empty(slopes.shape[1:])
        for family, places in enumerate(self.places()):
            mine = np.flatnonzero(u[:, -1] == family)
            value, slope = self.base.evaluate(theta[..., places], u[mine, :-1])
            values[..., mine] = value
            for place, index in enumerate(places):
                slopes[index][..., mine] = slope[..., place]
        return values, np.moveaxis(slopes, 0, -1)

    def reported(self, theta: Array, centre: Array) -> tuple[Array, Array]:
        names = self.parameters
        values = np.empty(theta.shape)
        slopes = np.zeros((*theta.shape, theta.shape[-1]))
        for family, places in enumerate(self.places()):
            value, slope = self.base.reported(theta[..., places], centre[:-1])
            for index, name in enumerate(self.base.parameters):
                row = names.index(name if name in self._public_shared() else f"{name}_{family + 1}")
                values[..., row] = value[..., index]
                slopes[..., row, :] = 0
                slopes[..., row, places] = slope[..., index, :]
        return values, slopes

    def places(self) -> list[NDArray[np.int64]]:
        """For each family, where the base's coordinates stand among these."""
        shared = self._is_shared()
        common, own = sum(shared), len(shared) - sum(shared)
        found = []
        for family in range(self.count):
            counts = {True: 0, False: common + family * own}
            places = []
            for is_shared in shared:
                places.append(counts[is_shared])
                counts[is_shared] += 1
            found.append(np.array(places))
        return found

    def _is_shared(self) -> list[bool]:
        return [self.shared == "exponents" and role in _SHARED for role in self.base.roles]

    def _public_shared(self) -> tuple[str, ...]:
        if self.shared == "none":
            return ()
        return tuple(name for name in self.base.parameters if name in (*self.base.exponents, *self.base.signed))

    def _origin(self) -> list[int]:
        """Which of the base's coordinates each of these is."""
        shared = self._is_shared()
        common = [index for index, each in enumerate(shared) if each]
        own = [index for index, each in enumerate(shared) if not each]
        return common + own * self.count
