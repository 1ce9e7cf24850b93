"""What a release rests on: its script's rules, and what is known against the versions that are installed."""

import importlib.util
import json
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


def script(name: str) -> ModuleType:
    """One of .ci, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def changelog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script over a project of three lines in tmp_path."""
    module = script("changelog")
    (tmp_path / "v.py").write_text('"""x"""\n__version__ = "0.1.0"\n')
    monkeypatch.setattr(module, "CHANGELOG", tmp_path / "CHANGELOG.md")
    monkeypatch.setattr(module, "VERSIONS", {tmp_path / "v.py": r'^__version__ = "(.*)"$'})
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    return module


OLDER = "## [0.1.0] - 2020-01-01\n- First.\n"


def test_unreleased_becomes_the_version_once(
    changelog: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## [Unreleased]\n\n### Changed\n- Much.\n\n{OLDER}")
    changelog.main("0.2.0", shows=False)
    moved = (tmp_path / "CHANGELOG.md").read_text()
    assert moved == f"# Changelog\n\n## [0.2.0] - 2023-11-14\n\n### Changed\n- Much.\n\n{OLDER}"
    assert (tmp_path / "v.py").read_text() == '"""x"""\n__version__ = "0.2.0"\n'
    changelog.main("0.2.0", shows=False)  # a release that was broken off goes on
    assert (tmp_path / "CHANGELOG.md").read_text() == moved
    changelog.main("0.2.0", shows=True)
    assert capsys.readouterr().out == "### Changed\n- Much.\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"## [Unreleased]\n\n{OLDER}", "says nothing under Unreleased"),
        (OLDER, "the newest entry of CHANGELOG.md is 0.1.0: expected 0.2.0 or Unreleased"),
        ("# Changelog\n", "has no entry"),
    ],
)
def test_a_changelog_that_does_not_fit_stops_the_release(
    changelog: ModuleType, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "CHANGELOG.md").write_text(text)
    with pytest.raises(SystemExit, match=said):
        changelog.main("0.2.0", shows=False)
    assert (tmp_path / "CHANGELOG.md").read_text() == text


def test_the_projects_own_changelog_can_be_released() -> None:
    newest = script("changelog").ENTRY.search((ROOT / "CHANGELOG.md").read_text())
    assert newest is not None
    assert newest["text"].strip()


@pytest.mark.parametrize(
    ("parts", "freeze", "said"),
    [
        ({"torch": "2.6"}, "torch==2.6\nA.b==1\n", "differ"),
        ({"torch": "2.6", "a_b": "2"}, "torch==2.6\nA.b==1\n", "differ"),
        ({"a_b": "1"}, "A.b==1\n", "does not name torch"),
        ({"torch": "2.6", "a_b": "1"}, "torch==2.6\nA.b==1\n", None),
    ],
)
def test_a_list_of_parts_has_to_be_what_is_installed(
    tmp_path: Path, parts: dict[str, str], freeze: str, said: str | None
) -> None:
    components = [{"name": name, "version": version} for name, version in parts.items()]
    content = {"bomFormat": "CycloneDX", "metadata": {"component": {"name": "smn-cli"}}, "components": components}
    (tmp_path / "x.cdx.json").write_text(json.dumps(content))
    (tmp_path / "freeze.txt").write_text(freeze)
    check = script("check_sbom").main
    if said is None:
        check(tmp_path / "x.cdx.json", tmp_path / "freeze.txt")
    else:
        with pytest.raises(SystemExit, match=said):
            check(tmp_path / "x.cdx.json", tmp_path / "freeze.txt")


@pytest.mark.skipif(sys.platform == "win32", reason="bash scripts")
@pytest.mark.parametrize("words", [[], ["2"], ["v0.2.0"], ["0.2.0", "--push"]])
def test_the_script_stops_at_words_that_it_does_not_know(words: list[str]) -> None:
    done = subprocess.run(["bash", str(ROOT / ".ci" / "release"), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.match(r"release: (give the version|--push is unknown)", done.stderr)


@pytest.mark.long
def test_nothing_is_known_against_what_is_installed(tmp_path: Path) -> None:
    """By PyPI; pip-audit ends well, too, where it could not ask for a single package, and that is no answer."""
    if importlib.util.find_spec("pip_audit") is None:
        pytest.skip("pip-audit is not installed: pip install pip-audit")
    found = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"] != "smn-cli"}
    requirements = tmp_path / "installed.txt"
    requirements.write_text("".join(f"{name}=={version}\n" for name, version in found.items() if "+" not in version))
    words = ["--requirement", str(requirements), "--no-deps", "--disable-pip", "--format", "json"]
    done = subprocess.run([sys.executable, "-m", "pip_audit", *words, "--progress-spinner", "off"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    if not done.stdout.startswith("{"):
        pytest.skip(f"PyPI does not answer: {(done.stderr.splitlines() or ['no word'])[-1]}")
    rows = json.loads(done.stdout)["dependencies"]
    asked = [row for row in rows if "skip_reason" not in row]
    if not {"torch", "pillow"} <= {row["name"] for row in asked}:
        pytest.skip(f"PyPI answers for {len(asked)} of {len(rows)} packages alone, without torch or pillow")
    known = {row["name"]: [entry["id"] for entry in row["vulns"]] for row in asked if row["vulns"]}
    assert known == {}, known
