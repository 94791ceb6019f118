"""Objectives by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mige.objectives.base import Objective, ObjectiveOutput
from mige.objectives.mige_infomax import MigeInfomax

OBJECTIVES: Mapping[str, Callable[..., Objective]] = MappingProxyType({"mige_infomax": MigeInfomax})

__all__ = ["OBJECTIVES", "MigeInfomax", "Objective", "ObjectiveOutput"]
