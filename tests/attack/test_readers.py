"""The readers of `benchmarks.attack.readers`: good files, damaged ones by the thousand, atheris where it is there."""

import random
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.attack.readers import READERS, as_json, use_adapter
from tests.adapters.forging import toy_adapter

pytestmark = pytest.mark.attack
INPUTS = 1500
ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", READERS)
def test_damaged_inputs_end_as_documented(name: str) -> None:
    reader, generator = READERS[name], random.Random(0)
    seeds = list(reader.seeds())
    for data in seeds:
        reader.feed(data)
    for number in range(INPUTS):
        data = generator.choice(seeds)
        changed = as_json(data, number) if reader.is_text and number % 2 else None
        reader.feed(changed if changed is not None else damaged(data, seeds, generator))


def damaged(data: bytes, seeds: list[bytes], generator: random.Random) -> bytes:
    """A few bytes are others, or it is cut, or spliced with another one."""
    changed = bytearray(data)
    for _ in range(generator.randrange(4)):
        changed[generator.randrange(len(changed))] = generator.choice(
            (0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256))
        )
    if generator.random() < 0.2:
        del changed[generator.randrange(len(changed)) :]
    if generator.random() < 0.2:
        other = generator.choice(seeds)
        changed += other[generator.randrange(len(other)) :]
    return bytes(changed)


def test_what_the_harness_feeds_is_read() -> None:
    """Else nothing behind the first check would be tried."""
    assert use_adapter(toy_adapter().to_bytes())
    assert not use_adapter(toy_adapter().to_bytes()[:-1])


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed: pip install atheris")
@pytest.mark.parametrize("name", ["header", "tar"])
def test_atheris_sees_what_its_inputs_reach(name: str, tmp_path: Path) -> None:
    """An input that reaches a new place joins the corpus; blind, it tries the same ones again and again."""
    words = ["-m", "benchmarks.attack.readers", name, "--corpus", str(tmp_path), "--seconds", "4"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.search(r"new_units_added:\s+(\d+)", done.stderr)
    assert found is not None
    assert int(found[1]) > 20
