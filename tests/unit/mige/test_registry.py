from types import MappingProxyType

import pytest

from mige import ENCODERS, KERNELS, OBJECTIVES, SCORE_ESTIMATORS, InvalidInputError
from mige.registry import build_from_registry


def scale(*, factor, offset=0.0):
    return factor, offset


@pytest.mark.parametrize("registry", [ENCODERS, KERNELS, OBJECTIVES, SCORE_ESTIMATORS])
def test_registries_cannot_be_changed(registry):
    assert isinstance(registry, MappingProxyType)


def test_an_entry_is_called_with_its_options():
    assert build_from_registry({"scale": scale}, "thing", "scale", {"factor": 2}) == (2, 0.0)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(InvalidInputError, match="thing='shift' is unknown: choose one of 'scale'"):
        build_from_registry({"scale": scale}, "thing", "shift", {})


def test_an_unknown_option_is_refused_with_the_known_ones():
    with pytest.raises(InvalidInputError, match="'gain': its options are factor, offset"):
        build_from_registry({"scale": scale}, "thing", "scale", {"factor": 1, "gain": 2})


def test_a_missing_option_is_named():
    with pytest.raises(InvalidInputError, match="needs the option 'factor'"):
        build_from_registry({"scale": scale}, "thing", "scale", {})
