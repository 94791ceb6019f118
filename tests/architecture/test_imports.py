"""The control side starts in a blink: it imports neither torch nor ray."""

import subprocess
import sys

import pytest

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
