"""Seconds of every campaign of `benchmarks.attack`: nothing lost, nothing wrong, nothing unexplained."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.attack
pytest.importorskip("fcntl", reason="processes are not forked on this system")
ROOT = Path(__file__).parents[2]
TRIES = {"kills": 22, "flips": 8, "room": 9, "mutated": 404, "soak": 30, "cached": 1}


@pytest.mark.parametrize("campaign", TRIES)
def test_a_campaign_finds_nothing(campaign: str, tmp_path: Path) -> None:
    words = ["--work", tmp_path / "work", "--campaign", campaign, "--tries", TRIES[campaign], "--seconds", 600]
    words += ["--seed", random.SystemRandom().randrange(1 << 30)]  # which the output tells
    command = [sys.executable, "-m", "benchmarks.attack", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"failures": []' in done.stdout
