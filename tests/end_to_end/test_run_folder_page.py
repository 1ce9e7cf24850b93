"""docs/run-folder.md tells the truth: its files are those that runs write, its keys those of their config.json."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RESNET, Outcome

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "run-folder.md"
SHORT = "--recipe paper --size 32 --batch-size 8 --local-views 1 --prototypes 8 --queue 16 --steps 3 --lr-scores 500"


def named(heading: str) -> set[str]:
    """What the first column of the table below a heading names."""
    (section,) = re.findall(rf"^#+ {heading}$(.*?)(?=^#|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def files(folder: Path) -> set[str]:
    """Paths below a folder; what lies in an expert's is the expert's own affair."""
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {"expert-N/" if path.parts[0].startswith("expert-") else path.as_posix() for path in found}


def config_of(folder: Path) -> dict[str, Any]:
    """Its config.json."""
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content


@dataclass(frozen=True)
class Folders:
    """A run without labels, one with them, a cascade over the first, and its experts."""

    plain: Path
    labeled: Path
    cascade: Path
    experts: list[Path]


@pytest.fixture
def folders(
    weights_file: Callable[[str], Path], labeled_folder: Path, run_cli: Callable[..., Outcome], tmp_path: Path
) -> Folders:
    weights = ("--arch", RESNET, "--weights", weights_file(RESNET))
    (labeled_folder / "train" / "red" / "broken.png").write_bytes(b"no image")
    plain, labeled, cascade = (tmp_path / name for name in ("plain", "with-labels", "cascade"))
    common = (*weights, *SHORT.split(), "--max-bad", 1)
    assert run_cli("adapt", labeled_folder, *common, "--out", plain).code == 0
    with_labels = ("--labels", "folders", "--size", 32, "--batch-size", 8, "--steps", 2, "--max-bad", 1)
    assert run_cli("adapt", labeled_folder, *weights, *with_labels, "--out", labeled).code == 0
    assert run_cli("cascade", "--run", plain, "--out", cascade, "--experts", 2, "--steps", 2).code == 0
    experts = sorted(path for path in cascade.glob("expert-*"))
    assert experts
    return Folders(plain, labeled, cascade, experts)


def test_the_page_names_what_there_is(folders: Folders) -> None:
    runs = [folders.plain, folders.labeled, *folders.experts]
    assert set().union(*map(files, runs)) == named("The files of a run")
    assert files(folders.cascade) == named("The files of a cascade")
    for run in runs:
        config = config_of(run)
        assert set(config) == named("config.json of a run")
        assert set(config["plan"]) == named("plan")
    config = config_of(folders.cascade)
    assert set(config) == named("config.json of a cascade")
    settings = re.search(r"^\| `cascade` \|(.*)$", PAGE.read_text(), re.MULTILINE)
    assert settings is not None
    assert set(config["cascade"]) == set(re.findall(r"`(\w+)`", settings[1]))
    for line in (folders.plain / "metrics.jsonl").read_text().splitlines():
        words = set(json.loads(line)) | set(json.loads(line).get("evaluation", {}).get("gain", {}))
        assert all(f"`{word}`" in PAGE.read_text() for word in words)
