"""report.html stands alone, tells the verdict first, and is the same for the same run, but for times."""

import re
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest

from smn_cli.reports.page import Ending, write_report
from smn_cli.runs.pack import pack_run
from smn_cli.runs.run_config import backbone_of_run
from smn_cli.runs.run_folder import RunFolder
from tests.commands.conftest import quietly
from tests.conftest import CONVNET, write_images
from tests.small_runs import Workshop

pytestmark = pytest.mark.drawn


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images and of the runs over them."""
    folder = tmp_path_factory.mktemp("pages")
    write_images(folder / "images", 24)
    return folder


@pytest.fixture(scope="module")
def page(weights_file: Callable[[str], Path], root: Path) -> Callable[..., str]:
    """A function that makes a small run, once a name, and returns its report."""

    def make(name: str, *words: object) -> str:
        out = root / name
        shape = ("--size", 32, "--teacher-size", 32, "--batch-size", 8, "--steps", 4, "--lr-scores", 0.3)
        if not out.exists():
            quietly("adapt", root / "images", "--arch", CONVNET, "--weights", weights_file(CONVNET), "--out", out,
                    *shape, *words)  # fmt: skip
        return (out / "report.html").read_text()

    return make


def test_the_page_loads_nothing_from_anywhere(page: Callable[..., str]) -> None:
    text = page("a run", "--keep", "last")
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)\"", text)
    assert [address for address in addresses if not address.startswith(("data:", "#"))] == []
    assert re.search(r"url\((?!#)", text) is None
    assert "default-src 'none'" in text  # a browser would refuse what is missed here


def test_the_verdict_stands_before_everything_else(page: Callable[..., str]) -> None:
    text = page("a run", "--keep", "last")
    assert text.index("The last state, step 4, is kept") < text.index("<h2>")
    for heading in ("Nearest images", "How the run went", "Loss", "Where weights are cut", "Settings"):
        assert heading in text


def test_an_alarm_and_the_base_kept_are_said_first(page: Callable[..., str]) -> None:
    text = page("an alarm")
    assert "Alarm." in text
    assert text.index("The base is kept") < text.index("<h2>")
    assert "has the same 5 nearest as before" in text
    assert "Nearest after" not in text
    alarm = text[text.index("Alarm.") :].partition("</p>")[0]
    assert "--keep" in alarm
    assert "`keep`" not in alarm


def test_command_bytes_and_what_was_cut_stand_on_the_first_screen(page: Callable[..., str], root: Path) -> None:
    text = page("a run", "--keep", "last")
    first = text[text.index("<body>") : text.index("<h2>")]
    assert f"smn adapt {root / 'images'} --arch {CONVNET}" in first
    assert "a run&#39; --size 32" in first  # as it could be typed again
    assert re.search(r"[1-9][0-9]* of [0-9,]+ under the mask", first)
    assert re.search(r"<dt>Training took</dt><dd>[0-9]+ seconds</dd>", first)
    folder = RunFolder.open(root / "a run")
    made = pack_run(folder, backbone_of_run(folder.read_config(), None))
    assert f"{len(made.to_bytes()) / 1e3:,.1f} kB</dd>" in first


def test_settings_are_folded_and_have_their_reasons(page: Callable[..., str]) -> None:
    text = page("a run", "--keep", "last")
    settings = text[text.index("<details><summary>Settings") :]
    assert '<th scope="row">views.global_size</th><td class="value">32</td>' in settings
    assert settings.index("one for 15 images, between 10 and 1,000") < settings.index("batch_size")


@pytest.mark.slow
def test_labeled_images_that_judge_are_named_as_what_decides(page: Callable[..., str], labeled_folder: Path) -> None:
    text = page("judged", "--keep", "last", "--val", labeled_folder)
    assert "percentage points (95 % interval" in text[: text.index("<h2>")]
    assert "Accuracy decides" in " ".join(text.split())
    assert "<b>Knn.top1</b>" in text
    assert "This verdict needs no labels" not in text


@pytest.mark.slow
def test_the_same_run_gives_the_same_page(page: Callable[..., str]) -> None:
    first, second = (
        re.sub(r"Ended <time.*|[0-9]+ seconds", "", page(name, "--keep", "last").replace(f"/{name}", ""))
        for name in ("first", "second")
    )
    assert first == second


@pytest.mark.parametrize("norm_stats", ["frozen", "adapt"])
def test_what_the_judge_saw_last_is_not_embedded_again_and_shows_the_same(
    workshop: Callable[..., Workshop], monkeypatch: pytest.MonkeyPatch, norm_stats: str
) -> None:
    place, ending = workshop(CONVNET), Ending(now=datetime(2026, 1, 1, tzinfo=timezone.utc))
    session = place.finish("run", steps=3, norm_stats=norm_stats)
    with monkeypatch.context() as patched:
        patched.setattr(session.health, "embed", None)
        seen = write_report(session, ending).read_bytes()
    again = place.resume("run")
    assert again.health.remembered(3) is None
    assert write_report(again, ending).read_bytes() == seen
