"""Options of bounds that are out of range, and what has no gradient."""

import pytest
import torch

from mige.bounds import BOUNDS, make_bound
from mige.errors import InvalidInputError


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("infomax", {}, "bound='infomax' is unknown: choose one of 'club'"),
        ("smile", {"tau": 0.0}, "tau=0.0: give a number above 0"),
        ("smile", {"tau": -1.0}, "tau=-1.0"),
        ("mine", {"rate": 0.0}, "rate=0.0"),
        ("mine", {"rate": 1.5}, r"rate=1.5: give a number in \(0, 1\]"),
        ("dv", {"critic": "cosine"}, "critic='cosine' is unknown"),
        ("infonce", {"num_negatives": 0}, "num_negatives=0"),
        ("club", {"num_negatives": 0}, "num_negatives=0"),
        ("l1out", {"num_negatives": 3}, "no option 'num_negatives'"),
        ("doe", {"components": 0}, "components=0"),
        ("tuba", {"baseline_hidden": (0,)}, r"baseline_hidden\[0\]=0"),
        ("ksg", {"neighbors": 0}, "neighbors=0"),
        ("ksg", {"critic": "bilinear"}, "no option 'critic'"),
    ],
)
def test_bad_options_are_refused_by_name(name, options, message):
    with pytest.raises(InvalidInputError, match=message):
        make_bound(name, 2, 2, **options)


@pytest.mark.parametrize("critic", ["bilinear", "concat", "separable"])
@pytest.mark.parametrize("name", ["dv", "infonce", "jsd", "mine", "mine_f", "nwj", "smile", "tuba"])
def test_every_bound_with_a_critic_takes_every_critic(name, critic):
    bound = make_bound(name, 2, 3, critic=critic)
    assert bound.information_gradient(torch.randn(5, 2), torch.randn(5, 3)).z.shape == (5, 3)


def test_only_ksg_has_no_gradient():
    assert {name for name, bound in BOUNDS.items() if not bound.has_gradient} == {"ksg"}
    with pytest.raises(InvalidInputError, match="KSG gives a value and no gradient"):
        make_bound("ksg", 2, 2).information_gradient(torch.randn(9, 2), torch.randn(9, 2))
    with pytest.raises(InvalidInputError, match="no parameters to fit"):
        make_bound("ksg", 2, 2).loss(torch.randn(9, 2), torch.randn(9, 2))
