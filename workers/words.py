"""What every block of settings is made of: the base class, and the kinds of values."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Count = Annotated[int, Field(strict=True, ge=1, le=2**53)]
Natural = Annotated[int, Field(strict=True, ge=0, le=2**53)]
Seed = Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
Offload = Literal["none", "optimizer", "parameters"]
Auto = Literal["auto"]


def auto_or(wanted: str, allows: Callable[[Any], bool]) -> BeforeValidator:
    """`auto`, or a value that `allows` is true of; an error says `wanted`. A union's own errors name its branches."""

    def check(value: Any) -> Any:
        if value == "auto" or (not isinstance(value, bool) and allows(value)):
            return value
        raise ValueError(f"must be `auto` or {wanted}, not {value!r}")

    return BeforeValidator(check)


class Settings(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
