import ast
from pathlib import Path

import pytest

import jobs
from jobs import errors
from services.errors import STATUS_OF
from services.problems import PROBLEMS, problem_page


def subclasses(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


def public_errors():
    return {cls for cls in subclasses(errors.JobError) if not cls.__name__.startswith("_")}


def test_every_error_of_jobs_has_a_status():
    ours = {cls for cls in public_errors() if cls.__module__ == errors.__name__}
    assert set(STATUS_OF) == ours


@pytest.mark.parametrize("cls", sorted(STATUS_OF, key=lambda c: c.__name__))
def test_the_page_of_an_error_has_its_status(cls):
    if cls is errors.SpecInvalidError:
        pytest.skip("its code is that of the failure; see the next test")
    assert PROBLEMS[cls.code].status == STATUS_OF[cls]
    assert PROBLEMS[cls.code].retryable == cls.retryable


def test_every_code_that_jobs_gives_a_spec_has_a_page():
    codes = set()
    for path in Path(jobs.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "SpecInvalidError"
                and isinstance(node.args[1], ast.Constant)
            ):
                codes.add(node.args[1].value)
    assert len(codes) > 5
    assert codes <= set(PROBLEMS)
    assert {PROBLEMS[code].status for code in codes} == {422}


@pytest.mark.parametrize("code", PROBLEMS)
def test_every_problem_has_words_that_help(code):
    kind = PROBLEMS[code]
    assert 400 <= kind.status < 600
    assert kind.remedy.endswith(".")
    assert code in problem_page(code)
    assert kind.remedy in problem_page(code)
