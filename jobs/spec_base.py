"""The base of every part of a spec."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """Frozen and strict: unknown keys, `true` for a number, NaN and Infinity are refused."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )
