"""The script for a GPU runs where there is none, so that it is ready where there is one."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_images

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_script_for_a_gpu_is_rehearsed_on_a_cpu(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 60, size=72)
    words = "--device cpu --arch test_resnet --archs test_resnet --paper-arch test_resnet --batches 8 --modes fp32"
    words += f" --size 64 --rounds 1 --workers 0 --images {tmp_path / 'images'} --work {tmp_path / 'work'}"
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", *words.split(), "--run-options", "--steps 6"],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is waiting for views" in done.stdout
    assert "117,150 steps of 64" in done.stdout  # 150 times 781
    found = json.loads((tmp_path / "work" / "gpu.json").read_text())
    [row] = found["steps"]
    assert all(seconds > 0 for seconds in row["seconds"].values())
    assert row["share"] > 0
    assert math.isfinite(row["share"])
    assert found["run"]["num_steps"] == 6
    assert found["run"]["seconds"]["steps"] > 0
    assert [each["precision"] for each in found["paper"]] == ["fp32", "bf16"]
