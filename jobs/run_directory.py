"""Where one attempt of a job keeps its files, and nothing but that.

    <storage>/staging/<job_id>/<fence>/
        attempt.json     the launch: spec, API address, attempt token (0600)
        process.json     pid and start time of the runner
        control.json     what the runner was last told: continue, cancel or pause
        reports.jsonl    what happened, one `Report` a line; the runner forwards it
        log.txt          stdout and stderr of runner and workers
        exit.json        how the runner ended
        checkpoints/step-<n>/    one verified checkpoint each, manifest last
        result/          the staged encoder, manifest last
        ray/             Ray Train's own run directory

Every path is built from server-made ids and numbers; no user string becomes part of one. An attempt
reads the directories of lower fences of its job and writes only its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The files of one attempt below `storage`."""

    storage: Path
    job_id: str
    fence: int

    @property
    def job_root(self) -> Path:
        """The directories of all attempts of the job."""
        return self.storage / "staging" / self.job_id

    @property
    def root(self) -> Path:
        """The attempt's own directory."""
        return self.job_root / f"{self.fence:06d}"

    @property
    def attempt_file(self) -> Path:
        """The launch, as `jobs.wire.Launch` JSON."""
        return self.root / "attempt.json"

    @property
    def process_file(self) -> Path:
        """Pid and start time of the runner."""
        return self.root / "process.json"

    @property
    def control_file(self) -> Path:
        """The last command, as `jobs.wire.Command` JSON."""
        return self.root / "control.json"

    @property
    def reports_file(self) -> Path:
        """`jobs.wire.Report` JSON, one a line."""
        return self.root / "reports.jsonl"

    @property
    def log_file(self) -> Path:
        """Stdout and stderr of the attempt."""
        return self.root / "log.txt"

    @property
    def exit_file(self) -> Path:
        """How the runner ended, as `jobs.wire.Exit` JSON."""
        return self.root / "exit.json"

    @property
    def checkpoints(self) -> Path:
        """One directory per checkpoint."""
        return self.root / "checkpoints"

    @property
    def result(self) -> Path:
        """The staged encoder."""
        return self.root / "result"

    @property
    def ray(self) -> Path:
        """Ray Train's storage path."""
        return self.root / "ray"

    def lower_fences(self) -> list[RunDirectory]:
        """The attempts before this one that left a directory, newest first."""
        if not self.job_root.is_dir():
            return []
        fences = sorted(
            (int(p.name) for p in self.job_root.iterdir() if p.name.isdigit()), reverse=True
        )
        return [RunDirectory(self.storage, self.job_id, f) for f in fences if f < self.fence]


def run_directories(storage: Path) -> list[RunDirectory]:
    """The directories that the attempts of all jobs left below `storage`."""
    return [
        RunDirectory(storage, root.parent.name, int(root.name))
        for root in sorted((storage / "staging").glob("*/*"))
        if root.is_dir() and root.name.isdigit()
    ]
