import inspect
import pickle

import pytest

from jobs import errors


def all_errors() -> list[type[errors.JobError]]:
    found = [c for _, c in inspect.getmembers(errors, inspect.isclass)]
    return [c for c in found if issubclass(c, errors.JobError)]


def example(cls: type[errors.JobError]) -> errors.JobError:
    """One instance, its arguments told apart by their position."""
    names = list(inspect.signature(cls).parameters) if cls is not errors.JobError else ["message"]
    return cls(*(7 if name == "fence" else f"{name} {i}" for i, name in enumerate(names)))


@pytest.mark.parametrize("cls", all_errors())
def test_errors_survive_the_trip_between_processes(cls):
    error = example(cls)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("cls", all_errors())
def test_the_text_of_an_error_names_every_argument_that_a_person_needs(cls):
    error = example(cls)
    shown = str(error)
    for name, value in vars(error).items():
        assert name == "code" or str(value) in shown


def test_the_tree_in_the_docstring_names_every_error():
    documented = errors.__doc__ or ""
    public = {c.__name__ for c in all_errors() if not c.__name__.startswith("_")}
    assert {name for name in public if name not in documented} == set()
