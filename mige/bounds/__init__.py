"""Bounds on mutual information by name: the baselines beside the score estimators."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mige.bounds.base import Bound, BoundGradient, CriticBound, Direction
from mige.bounds.club import CLUB, ConditionalBound, LeaveOneOut
from mige.bounds.critics import CRITICS, Critic, make_critic
from mige.bounds.donsker_varadhan import MINE, DonskerVaradhan
from mige.bounds.ensemble import BoundEnsemble
from mige.bounds.entropy_difference import EntropyDifference
from mige.bounds.fit import Sampler, fit_bound, minibatches
from mige.bounds.infonce import InfoNCE
from mige.bounds.jsd import JSD, SMILE
from mige.bounds.ksg import KSG
from mige.bounds.nwj import MINEF, NWJ
from mige.bounds.tuba import TUBA
from mige.registry import build_from_registry

BOUNDS: Mapping[str, Callable[..., Bound]] = MappingProxyType(
    {
        "club": CLUB,
        "doe": EntropyDifference,
        "dv": DonskerVaradhan,
        "infonce": InfoNCE,
        "jsd": JSD,
        "ksg": KSG,
        "l1out": LeaveOneOut,
        "mine": MINE,
        "mine_f": MINEF,
        "nwj": NWJ,
        "smile": SMILE,
        "tuba": TUBA,
    }
)


def make_bound(name: str, dim_x: int, dim_z: int, **options: object) -> Bound:
    """Build a bound on I(x; z), with parameters drawn from torch's global generator.

    Args:
        name: a name in `BOUNDS`.
        dim_x: width of x.
        dim_z: width of z.
        options: keyword arguments of that bound.

    Raises:
        InvalidInputError: the name, an option or a value is not acceptable.
    """
    return build_from_registry(BOUNDS, "bound", name, {"dim_x": dim_x, "dim_z": dim_z, **options})


__all__ = [
    "BOUNDS",
    "CLUB",
    "CRITICS",
    "JSD",
    "KSG",
    "MINE",
    "MINEF",
    "NWJ",
    "SMILE",
    "TUBA",
    "Bound",
    "BoundEnsemble",
    "BoundGradient",
    "ConditionalBound",
    "Critic",
    "CriticBound",
    "Direction",
    "DonskerVaradhan",
    "EntropyDifference",
    "InfoNCE",
    "LeaveOneOut",
    "Sampler",
    "fit_bound",
    "make_bound",
    "make_critic",
    "minibatches",
]
