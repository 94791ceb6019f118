"""`make demo`: the whole way of an encoder on this machine, from a spec to embeddings.

Starts a service of its own below `.demo/`, submits the README's quickstart job over REST, shows
its progress, downloads the encoder, verifies it, embeds five test images here and over HTTP, and
stops everything again, whatever happens.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from services.cli.output import EXIT_CANCELLED, EXIT_FAILED, EXIT_REJECTED, why
from services.cli.progress import JobProgress
from services.client import Client, ClientError, Resource
from services.local_service import LocalService, ServiceStartError
from services.quickstart import QUICKSTARTS, load_quickstart

if TYPE_CHECKING:
    import numpy as np

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ROOT = Path(".demo")
_WEIGHTS = "encoder.safetensors"
_PROTOCOL = "linear_probe@1"
_NUM_SHOWN = 5
_TOLERANCE = 1e-5
_LOG_LINES = 20


class DemoError(Exception):
    """The demo did not work; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """What `.demo/report.json` holds. Accuracies are shares of the test images."""

    probe_trained: float
    probe_random: float
    probe_raw: float
    encoder_id: str
    encoder_file: str
    sha256: str
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 if everything worked, 1 if not, 2 if it cannot be run as asked."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False)
    named = os.environ.get("MIGE_DATA_ROOT")
    data_root = Path(named) if named else None
    if options.dataset != "digits" and data_root is None:
        console.print(
            f"[red]error[/red] {options.dataset} lies below a data root, and MIGE_DATA_ROOT is not "
            "set. Set it to a folder in torchvision's layout, or leave out --dataset."
        )
        return EXIT_REJECTED
    spec = load_quickstart(options.dataset)
    if options.workers is not None:
        spec.setdefault("resources", {})["num_workers"] = options.workers
    try:
        with _terminated_like_interrupted():
            run_demo(spec, _ROOT, console, data_root=data_root, keep=options.keep)
    except (DemoError, ServiceStartError, ClientError, OSError) as exc:
        console.print("[red]error[/red] ", end="")
        console.print(str(exc), markup=False)
        return EXIT_FAILED
    except KeyboardInterrupt:
        console.print("stopped; nothing runs any more")
        return EXIT_CANCELLED
    return 0


def run_demo(
    spec: dict[str, Any],
    root: Path,
    console: Console,
    *,
    data_root: Path | None,
    keep: bool,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> DemoReport:
    """Train, download, verify and use one encoder.

    Args:
        spec: the job.
        root: everything goes below it; what an earlier run left there is replaced.
        console: takes progress and the result.
        data_root: folder of data sets.
        keep: leave the service's home in place, so that `mige serve` can open it.
        settings: more `MIGE_...` variables for the service.

    Raises:
        DemoError: the job did not succeed, or the encoder is not what it should be.
    """
    started = time.monotonic()
    home, download = root / "home", root / "encoder"
    for old in (home, download):
        shutil.rmtree(old, ignore_errors=True)
    root.mkdir(parents=True, exist_ok=True)
    log = root / "service.log"
    log.unlink(missing_ok=True)
    try:
        with LocalService(home.absolute(), log, data_root=data_root, settings=settings) as service:
            console.print(f"service ready in {service.ready_s:.1f} s on port {service.port}")
            with service.client() as client:
                job = _train(client, spec, console)
                report, embeddings = _use(client, job, download, data_root, started)
    finally:
        if not keep:
            shutil.rmtree(home, ignore_errors=True)
    _show(report, embeddings, console)
    if keep:
        console.print(f"to go on with this service: MIGE_HOME={home} mige serve", soft_wrap=True)
    text = json.dumps(asdict(report), indent=2) + "\n"
    (root / "report.json").write_text(text, encoding="utf-8")
    return report


def _train(client: Client, spec: dict[str, Any], console: Console) -> Resource:
    job = client.submit(spec)
    console.print(f"submitted {job['id']}")
    with JobProgress(console) as progress:
        job = client.wait(job["id"], on_progress=progress.update)
    if job["status"] != "succeeded":
        lines = client.logs(job["id"], tail=_LOG_LINES)
        raise DemoError(f"{job['id']} {job['status']}: {why(job)}\nThe end of its log:\n{lines}")
    return job


def _use(
    client: Client,
    job: Resource,
    directory: Path,
    data_root: Path | None,
    started: float,
) -> tuple[DemoReport, np.ndarray]:
    """Download the encoder, embed with it here and over HTTP, compare."""
    encoder_id = job["encoder_id"]
    client.download(encoder_id, directory)
    weights = directory / _WEIGHTS
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    named = {f["path"]: f["sha256"] for f in client.manifest(encoder_id)["files"]}
    if named[_WEIGHTS] != sha256:
        raise DemoError(f"{weights} has the sha256 {sha256}, the manifest names {named[_WEIGHTS]}")
    images = _test_images(job["spec"]["data"], data_root)
    here = _embed_here(directory, images)
    difference = float(abs(here - client.embed(encoder_id, images)).max())
    if not difference <= _TOLERANCE * max(1.0, float(abs(here).max())):
        raise DemoError(f"embeddings here and over HTTP differ by {difference:.2g}")
    probe = client.encoder(encoder_id)["evaluation"][_PROTOCOL]
    report = DemoReport(
        probe_trained=probe["trained"],
        probe_random=probe["random"],
        probe_raw=probe["raw"],
        encoder_id=encoder_id,
        encoder_file=str(weights),
        sha256=sha256,
        seconds=round(time.monotonic() - started, 1),
    )
    return report, here


def _test_images(data: dict[str, Any], data_root: Path | None) -> np.ndarray:
    """The first test images, which training has not seen."""
    from pydantic import TypeAdapter

    from jobs.data import load_data
    from jobs.spec import DataSpec

    spec: DataSpec = TypeAdapter(DataSpec).validate_python(data)
    return load_data(spec, data_root).x_test[:_NUM_SHOWN]


def _embed_here(directory: Path, images: np.ndarray) -> np.ndarray:
    import torch

    import mige

    embeddings: np.ndarray = mige.load_encoder(directory).embed(torch.from_numpy(images)).numpy()
    return embeddings


def _show(report: DemoReport, embeddings: np.ndarray, console: Console) -> None:
    table = Table(title="Linear probe on the test images", title_justify="left")
    table.add_column("features")
    table.add_column("accuracy", justify="right")
    table.add_row("trained encoder", f"{report.probe_trained:.1%}", style="bold")
    table.add_row("the same encoder, random weights", f"{report.probe_random:.1%}")
    table.add_row("raw pixels", f"{report.probe_raw:.1%}")
    console.print(table)
    console.print(f"encoder  {report.encoder_id}")
    console.print(f"file     {report.encoder_file}", soft_wrap=True)
    console.print(f"sha256   {report.sha256} (verified)", soft_wrap=True)
    console.print(
        f"first coordinates of {len(embeddings)} embeddings, the same here and over HTTP:"
    )
    for row in embeddings:
        console.print("  " + " ".join(f"{value:+8.4f}" for value in row[:6]) + " ...")
    console.print(f"finished in {report.seconds:.0f} s")


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: in order.

    An interruption that arrives inside a finaliser or a callback of some library is dropped there
    by Python; it is remembered, and counts at the end at the latest.
    """
    interrupted = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _ENDING_SIGNALS}
    try:
        yield
        if interrupted:
            raise KeyboardInterrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--dataset", choices=QUICKSTARTS, default="digits")
    parser.add_argument("--workers", type=int, help="workers of Ray Train")
    parser.add_argument(
        "--keep", action="store_true", help="leave the service's home in .demo/home"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
