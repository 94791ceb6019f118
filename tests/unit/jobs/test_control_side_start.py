import subprocess
import sys

CODE = """
import time
before = time.process_time()
import jobs.store, jobs.reconciler, jobs.executors.local_process, jobs.registry
took = time.process_time() - before
import sys
heavy = {"torch", "torchvision", "ray", "sklearn", "pandas", "numpy", "alembic"}
print(took, *sorted(heavy & set(sys.modules)))
"""


def test_the_control_side_is_imported_in_a_blink():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    seconds, *heavy = done.stdout.split()
    assert heavy == []
    assert float(seconds) < 1.5  # 0.35 s on a quiet host, 0.6 s with four others on two cores
