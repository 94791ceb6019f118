import subprocess
import sys
from importlib.metadata import version

import pytest

import mige


def test_every_public_name_exists_and_the_list_is_sorted():
    assert all(hasattr(mige, name) for name in mige.__all__)
    assert sorted(mige.__all__) == sorted(set(mige.__all__))


def test_the_version_is_that_of_the_distribution():
    assert mige.__version__ == version("mige-service")


@pytest.mark.slow
def test_importing_the_package_imports_no_vision_library_and_no_service():
    code = (
        "import sys, mige; "
        "bad = {'torchvision', 'ray', 'fastapi', 'pydantic', 'sqlalchemy', 'sklearn', 'httpx'}; "
        "sys.exit(str(sorted(bad & sys.modules.keys())) if bad & sys.modules.keys() else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
