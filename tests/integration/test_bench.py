"""The benchmark runs and prints its figures; what they say is for bench/README.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import host

REPOSITORY = Path(__file__).resolve().parents[2]
FIGURES = {
    *("wall_seconds", "bare_rsync_seconds", "ratio", "own_cpu_seconds", "own_cpu_share"),
    *("idle_memory_kb", "peak_memory_kb", "idle_wakeups_in_0.2_s"),
}


@pytest.mark.host
@pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable()))
def test_the_benchmark_prints_its_figures() -> None:
    options = ["--files=5", "--kilobytes=10", "--rounds=1", "--idle-seconds=0.2"]
    command = [sys.executable, "-m", "bench.pipeline", *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    figures = {name: float(value) for name, _, value in (line.rpartition(" ") for line in done.stdout.splitlines())}
    assert {name.strip() for name in figures} >= FIGURES
    assert all(value >= 0 for value in figures.values())


def test_the_benchmark_of_reading_back_reads_everything(tmp_path: Path) -> None:
    options = ["--files=9", "--kilobytes=10", "--rounds=2", f"--folder={tmp_path}", "--json"]
    command = [sys.executable, "-m", "bench.verify", *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["files"], figures["MB"]) == (9, 0.09)
    assert figures["ratio"] > 0
    assert list(tmp_path.iterdir()) == []


def test_the_plans_benchmark_counts_what_it_made(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.plan", "--files=800", f"--folder={tmp_path}", "--json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    counts = ("files", "to copy", "to move", "to set aside")
    found = {case: tuple(figures[count] for count in counts) for case, figures in json.loads(done.stdout).items()}
    assert found == {
        "no change": (803, 0, 0, 0),
        "first copy": (803, 803, 0, 0),
        "1 % changed": (803, 4, 2, 4),
    }
    assert list(tmp_path.iterdir()) == []


def test_the_dumps_benchmark_reads_what_it_made(tmp_path: Path) -> None:
    options = ["--assets=300", "--rounds=1", f"--folder={tmp_path}", "--json"]
    command = [sys.executable, "-m", "bench.dump", *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    rows = {case: figures["rows"] for case, figures in json.loads(done.stdout).items()}
    assert rows == dict.fromkeys(("zcat | grep -c", "reader", "book made", "book read"), 300)
