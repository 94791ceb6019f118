"""House rules that no linter knows."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOP_LEVEL = {"services", "mige", "jobs", "deploy", "tests", "docker", "pyproject.toml", "README.md"}
TOOL_FILES = {"Makefile", "requirements.lock", "LICENSE", "CHANGELOG.md", ".ci", ".gitignore"}
# Reading a pickle runs code, whoever wrote it.
UNSAFE = re.compile(
    r"\b(import (pickle|cloudpickle|dill|joblib|shelve|marshal)|torch\.(load|save)\(|yaml\.load\("
    r"|allow_pickle=True|(?<![.\w])(eval|exec)\()"
)


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def source_files() -> list[Path]:
    return [p for package in ("mige", "jobs", "services") for p in (ROOT / package).rglob("*.py")]


def test_the_top_level_holds_what_the_customer_fixed_and_tool_files():
    assert {p.relative_to(ROOT).parts[0] for p in tracked_files()} <= TOP_LEVEL | TOOL_FILES


def test_every_package_has_a_map():
    for package in ("mige", "jobs", "services", "deploy", "docker"):
        assert (ROOT / package / "README.md").is_file(), package


def test_nothing_in_the_product_reads_pickles_or_evaluates_text():
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in source_files()
        if (match := UNSAFE.search(path.read_text()))
    ]
    assert found == []


def test_no_module_is_a_drawer_for_odds_and_ends():
    names = {p.stem for p in source_files()}
    assert names & {"utils", "helpers", "misc", "common"} == set()


def test_modules_stay_short_enough_to_read():
    too_long = {
        str(p.relative_to(ROOT)): n
        for p in source_files()
        if (n := len(p.read_text().splitlines())) > 400
    }
    assert too_long == {}


def test_the_lock_has_hashes_and_no_index_address():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "--index-url" not in text
    pins = re.findall(r"^[a-z0-9].*", text, flags=re.MULTILINE)
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(pins) == len(blocks)
    assert all("==" in block and "--hash=sha256:" in block for block in blocks)
