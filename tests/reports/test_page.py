"""report.html stands alone, tells the verdict first, and is the same for the same run, but for times."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CONVNET, Outcome


@pytest.fixture
def page(
    run_cli: Callable[..., Outcome], weights_file: Callable[[str], Path], image_folder: Path, tmp_path: Path
) -> Callable[..., str]:
    """A function that makes a small run and returns its report."""

    def make(name: str, *words: object) -> str:
        out = tmp_path / name
        shape = ("--size", 32, "--teacher-size", 32, "--batch-size", 8, "--steps", 4, "--lr-scores", 0.3)
        done = run_cli("adapt", image_folder, "--arch", CONVNET, "--weights", weights_file(CONVNET), "--out", out,
                       *shape, *words)  # fmt: skip
        assert done.code == 0, done.err
        return (out / "report.html").read_text()

    return make


def test_the_page_loads_nothing_from_anywhere(page: Callable[..., str]) -> None:
    text = page("run", "--keep", "last")
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)\"", text)
    assert [address for address in addresses if not address.startswith(("data:", "#"))] == []
    assert re.search(r"url\((?!#)", text) is None
    assert "default-src 'none'" in text  # a browser would refuse what is missed here


def test_the_verdict_stands_before_everything_else(page: Callable[..., str]) -> None:
    text = page("run", "--keep", "last")
    assert text.index("The last state, step 4, is kept") < text.index("<h2>")
    for heading in ("Nearest images", "How the run went", "Loss", "Where weights are cut", "Settings"):
        assert heading in text


def test_an_alarm_and_the_base_kept_are_said_first(page: Callable[..., str]) -> None:
    text = page("run")
    assert "Alarm." in text
    assert text.index("The base is kept") < text.index("<h2>")


@pytest.mark.slow
def test_the_same_run_gives_the_same_page(page: Callable[..., str]) -> None:
    first, second = (
        re.sub(r"Ended <time.*|[0-9.]+ minutes", "", page(name, "--keep", "last").replace(f"/{name}", ""))
        for name in ("first", "second")
    )
    assert first == second
