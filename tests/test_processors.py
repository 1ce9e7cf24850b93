"""Processors are those that a process is bound to, or fewer under a quota of its control groups."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smn_cli.processors import num_processors

V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/cpu,cpuacct"


@pytest.fixture(autouse=True)
def _bound_to_sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)), raising=False)


def v1(folder: str, quota: str, period: str = "100000") -> dict[str, str]:
    """A group of the first version."""
    return {f"{V1}/{folder}cpu.cfs_quota_us": quota, f"{V1}/{folder}cpu.cfs_period_us": period}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 16),
        ({f"{V2}/cpu.max": "max 100000\n"}, 16),
        ({f"{V2}/cpu.max": "400000 100000\n"}, 4),
        ({f"{V2}/cpu.max": "150000 100000\n"}, 2),
        ({f"{V2}/cpu.max": "5000 100000\n"}, 1),
        ({f"{V2}/cpu.max": "9900000 100000\n"}, 16),
        ({f"{V2}/cpu.max": "gibberish\n"}, 16),
        ({"proc/self/cgroup": "0::/pods/mine\n", f"{V2}/pods/mine/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/pods/mine\n", f"{V2}/pods/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "4:cpu,cpuacct:/\n", **v1("", "-1\n")}, 16),
        ({"proc/self/cgroup": "4:cpu,cpuacct:/\n", **v1("", "600000\n")}, 6),
        ({"proc/self/cgroup": "4:cpu,cpuacct:/pods/mine\n0::/\n", **v1("pods/", "100000\n", "50000\n")}, 2),
    ],
)
def test_a_quota_leaves_fewer_than_the_machine_has(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert num_processors(tmp_path) == expected


@pytest.mark.parametrize(
    ("allowed", "given", "expected"),
    [
        (2, {}, "2"),
        (8, {}, "8"),
        (9, {}, "None"),
        (2, {"OMP_NUM_THREADS": "5"}, "5"),
        (2, {"MKL_NUM_THREADS": "5"}, "None"),
    ],
)
def test_threads_are_as_many_as_a_quota_allows(allowed: int, given: dict[str, str], expected: str) -> None:
    code = (
        "import os\nfrom smn_cli import process\n"
        f"process.num_processors = lambda: {allowed}\nprocess.bound_processors = lambda: 16\n"
        "process.settle_process()\nprint(os.environ.get('OMP_NUM_THREADS'))"
    )
    clean = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**clean, **given}
    )
    assert done.stdout.split() == [expected]
