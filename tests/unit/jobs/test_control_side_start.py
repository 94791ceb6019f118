import subprocess
import sys

CODE = """
import sys
import jobs.store, jobs.reconciler, jobs.executors.local_process, jobs.registry
heavy = {"torch", "torchvision", "ray", "sklearn", "pandas", "numpy", "alembic"}
print(*sorted(heavy & set(sys.modules)))
"""


def test_the_store_and_the_reconciler_start_without_heavy_imports():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
