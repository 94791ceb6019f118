"""The control side starts in a blink: it imports neither torch nor ray."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HEAVY = {"torch", "torchvision", "ray", "sklearn", "pandas"}
CONTROL_SIDE = [
    "jobs.spec",
    "jobs.store",
    "jobs.reconciler",
    "jobs.executors.local_process",
    "jobs.registry",
    "jobs.data_sources",
    "jobs.feasibility",
    "jobs.ray_backend.head",
    "jobs.standby",
    "services.app",
    "services.client",
    "services.cli.main",
]


def modules_after_importing(module: str) -> set[str]:
    code = (
        f"import sys, {module}; print(' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", CONTROL_SIDE)
def test_the_control_side_imports_neither_torch_nor_ray(module):
    assert modules_after_importing(module) & HEAVY == set()


def test_importing_mige_does_not_import_torchvision():
    loaded = modules_after_importing("mige")
    assert "torch" in loaded  # the probe works
    assert "torchvision" not in loaded


def imported_packages(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    names |= {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}
    return {name.split(".")[0] for name in names}


def test_only_the_ray_backend_imports_ray():
    importers = {
        path.relative_to(ROOT).parts[:2]
        for package in ("mige", "jobs", "services")
        for path in (ROOT / package).rglob("*.py")
        if "ray" in imported_packages(path)
    }
    assert importers == {("jobs", "ray_backend")}


def test_the_command_line_shows_its_help_in_a_blink_without_heavy_imports():
    loaded = modules_after_importing("services.cli.main")
    assert loaded & (HEAVY | {"sqlalchemy", "fastapi"}) == set()
