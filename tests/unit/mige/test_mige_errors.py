import pickle

import pytest

from mige.errors import InvalidInputError, MigeError, NumericalError


@pytest.mark.parametrize("cls", [MigeError, *MigeError.__subclasses__()])
def test_errors_survive_the_trip_between_processes(cls):
    error = cls("samples hold NaN: check the data")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_errors_can_be_caught_as_the_builtin_they_resemble():
    assert issubclass(InvalidInputError, ValueError)
    assert issubclass(NumericalError, ArithmeticError)
