"""How progress reads, on a terminal and in a log."""

import io

import pytest
from rich.console import Console

from services.cli.progress import JobProgress, detail_of, stage_of


def job(status="running", phase="training", step=None, loss=-3.21, eta=42.4):
    progress = step is not None and {
        "step": step, "total_steps": 400, "epoch": step // 5, "epochs": 80,
        "loss": loss, "eta_seconds": eta,
    }  # fmt: skip
    return {"status": status, "phase": phase, "progress": progress or None}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (job("queued", None), "queued"),
        (job(phase="loading_data"), "loading data"),
        (job("cancelling"), "cancelling"),
        (job("succeeded"), "succeeded"),
    ],
)
def test_one_word_tells_where_a_job_stands(shown, expected):
    assert stage_of(shown) == expected


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (job(step=120), "step 120/400  epoch 24/80  loss -3.21  ETA 0:42"),
        (job(step=120, loss=None, eta=None), "step 120/400  epoch 24/80"),
        (job(step=120, eta=605.0), "step 120/400  epoch 24/80  loss -3.21  ETA 10:05"),
        (job("succeeded", step=400), "step 400/400  epoch 80/80  loss -3.21"),
        (job(), ""),
    ],
)
def test_the_detail_names_step_epoch_loss_and_eta(shown, expected):
    assert detail_of(shown) == expected


def lines_of(jobs, **console):
    sink = io.StringIO()
    with JobProgress(Console(file=sink, width=120, **console)) as progress:
        for each in jobs:
            progress.update(each)
    return sink.getvalue()


def test_a_log_gets_a_line_per_piece_of_news_and_no_more():
    jobs = [job("queued", None)] * 3 + [job(step=n) for n in range(401)]
    lines = lines_of([*jobs, job("succeeded", step=400), job("succeeded", step=400)]).splitlines()
    assert lines[0] == "queued"
    assert lines[-1].startswith("succeeded")
    assert len(lines) <= 14
    assert sum("step 200/400" in line for line in lines) == 1


def test_a_terminal_gets_a_bar():
    output = lines_of([job(step=100), job(step=400)], force_terminal=True)
    assert "training" in output
    assert "400/400" in output
    assert "ETA" in output
