import re
from pathlib import Path

import pytest

import mige

README = Path(mige.__file__).with_name("README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
def test_the_examples_of_the_readme_run(example):
    exec(compile(example, "README.md", "exec"), {})


@pytest.mark.parametrize(
    "registry", [mige.KERNELS, mige.SCORE_ESTIMATORS, mige.OBJECTIVES, mige.ENCODERS]
)
def test_the_readme_names_every_entry_of_every_registry(registry):
    assert all(f"`{name}`" in README for name in registry)
