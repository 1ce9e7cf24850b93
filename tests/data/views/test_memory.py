"""Free memory is the least of what the machine and its control groups leave."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from smn_cli.data.views import memory
from smn_cli.data.views.memory import free_memory, has_room_to_share


def make_system(root: Path, files: dict[str, str]) -> Path:
    """The files by which a Linux system tells its memory."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 8000 kB\nMemAvailable: 5000 kB\nHugePages_Total: 0\n"}


def test_without_limits_it_is_what_the_machine_has_available(tmp_path: Path) -> None:
    files = {**MEMINFO, "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "1000\n"}
    assert free_memory(make_system(tmp_path, files)) == 5000 * 1024


def test_a_container_leaves_its_limit_less_what_is_used_and_cannot_be_dropped(tmp_path: Path) -> None:
    files = {
        **MEMINFO,
        "sys/fs/cgroup/memory.max": "2000000\n",
        "sys/fs/cgroup/memory.current": "900000\n",
        "sys/fs/cgroup/memory.stat": "anon 500000\ninactive_file 300000\n",
    }
    assert free_memory(make_system(tmp_path, files)) == 1_400_000


def test_groups_of_the_first_version_count_too_and_those_of_this_process(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory/jobs/mine/memory"
    files = {
        **MEMINFO,
        "proc/self/cgroup": "5:cpu:/jobs\n4:memory:/jobs/mine\n0::/\n",
        f"{folder}.limit_in_bytes": "700000",
        f"{folder}.usage_in_bytes": "100000",
    }
    assert free_memory(make_system(tmp_path, files)) == 600_000


def test_more_used_than_allowed_is_nothing_free(tmp_path: Path) -> None:
    files = {**MEMINFO, "sys/fs/cgroup/memory.max": "10\n", "sys/fs/cgroup/memory.current": "20\n"}
    assert free_memory(make_system(tmp_path, files)) == 0


def test_a_system_that_says_nothing_has_something_free(tmp_path: Path) -> None:
    assert free_memory(tmp_path) > 0


def test_this_machine_has_memory() -> None:
    assert 1 << 20 < free_memory() < 1 << 50


def test_shared_memory_has_room_for_twice_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    free = SimpleNamespace(free=64 << 20)  # a container's
    monkeypatch.setattr("smn_cli.data.views.memory.shutil.disk_usage", lambda _path: free)
    embedding = 128 * 3 * 224 * 224
    assert not has_room_to_share(embedding, num_workers=2)
    assert has_room_to_share(embedding // 8, num_workers=2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert not has_room_to_share(embedding // 8, num_workers=2)


def test_a_system_without_that_folder_has_no_such_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SHARED", tmp_path / "none")
    assert has_room_to_share(1 << 40, num_workers=64)
