"""The project's own rules: style, types, layering, sizes, and texts that must not go stale."""

import ast
import re
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

import smn_cli

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        pytest.param(["mypy"], marks=pytest.mark.slow),
        ["importlinter.cli"],
    ],
    ids=["ruff check", "ruff format", "mypy", "import-linter"],
)
def test_the_checkers_find_nothing(command: list[str]) -> None:
    words = [sys.executable, "-m", *command]
    if command == ["importlinter.cli"]:
        words = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _sources() -> list[Path]:
    return sorted((ROOT / "smn_cli").rglob("*.py"))


def test_files_stay_under_330_lines() -> None:
    long = [str(path) for path in _sources() if len(path.read_text().splitlines()) > 330]
    assert long == []


def test_functions_stay_under_45_lines_without_signature_and_docstring() -> None:
    long = []
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body and (node.end_lineno or 0) - body[0].lineno + 1 > 45:
                    long.append(f"{path.name}:{node.name}")
    assert long == []


def _late_constants(source: str) -> list[str]:
    """Constants of a module that a function or class before them uses."""
    body = ast.parse(source).body
    used: set[str] = set()
    late = []
    for node in body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)}
            late += sorted(names & used)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            used |= {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    return late


def test_constants_stand_above_their_use() -> None:
    late = {str(path): found for path in _sources() if (found := _late_constants(path.read_text()))}
    assert late == {}


def test_nothing_is_left_to_do_in_the_sources() -> None:
    words = re.compile(r"\b(TODO|FIXME|XXX|breakpoint\()")
    assert [str(path) for path in _sources() if words.search(path.read_text())] == []


def _generator(name: str) -> ModuleType:
    spec = spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_commands_page_is_what_the_commands_say() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == _generator("make_cli").render()


def test_the_json_page_and_its_schemas_are_what_is_declared() -> None:
    make_json = _generator("make_json")
    assert (ROOT / "docs" / "json.md").read_text() == make_json.page()
    written = {path.name: path.read_text() for path in (ROOT / "docs" / "schemas").iterdir()}
    assert written == make_json.schema_files()


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="no checkout: an archive itself")
def test_the_source_archive_holds_all_that_is_tracked() -> None:
    """So that its own tests pass in it; the build adds the two that are not named."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    told = re.search(r"\[tool\.hatch\.build\.targets\.sdist\]\n.*?include = \[(.*?)\]", _pyproject(), re.DOTALL)
    assert told is not None
    packed = {*re.findall(r'"/([^"]+)"', told[1]), "pyproject.toml", ".gitignore"}
    assert packed == {line.partition("/")[0] for line in done.stdout.splitlines()}


def _pyproject() -> str:
    return (ROOT / "pyproject.toml").read_text()


def test_the_lowest_versions_are_those_that_the_project_allows() -> None:
    pinned = re.findall(r"^([a-z0-9-]+)==(\S+)$", (ROOT / "tests" / "lowest.txt").read_text(), re.MULTILINE)
    told = dict(re.findall(r'"([a-z0-9-]+)(?:>=|==)([0-9.]+)', re.sub(r"(?ms)^docs = \[$.*?^\]$", "", _pyproject())))
    del told["hatchling"]  # builds the package
    assert dict(pinned) == told


def test_each_python_that_is_named_can_be_installed_on() -> None:
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', _pyproject())
    lowest = re.search(r'requires-python = ">=(3\.\d+)"', _pyproject())
    assert lowest is not None
    assert named == [f"3.{minor}" for minor in range(int(lowest[1][2:]), int(lowest[1][2:]) + len(named))]


def test_both_commands_are_installed() -> None:
    """`smn` is also what the package smn of PyPI installs."""
    assert re.findall(r'^(smn(?:-cli)?) = "smn_cli\.cli:main"', _pyproject(), re.MULTILINE) == ["smn", "smn-cli"]


def test_the_citation_names_this_version() -> None:
    assert f"\nversion: {smn_cli.__version__}\n" in (ROOT / "CITATION.cff").read_text()


NO_MODULES = {
    "test_project",
    "test_examples",
    "test_guides",
    "test_notebooks",
    "test_site",
    "test_supply_chain",
    "adapters/test_format_page",
    "adapters/test_numpy_reader",
}
"""Tests of pages, examples and the project itself."""
ATTACKS = ("damage", "hostile", "golden")


def _is_named_after_a_module(test: Path) -> bool:
    """Whether a path below tests/ is test_MODULE.py or test_MODULE_ASPECT.py beside where MODULE.py lies."""
    words = test.stem.removeprefix("test_").split("_")
    names = ["_".join(words[:num]) for num in range(len(words), 0, -1)]
    return any((ROOT / "smn_cli" / test.parent / f"{name}.py").is_file() for name in names)


def test_tests_are_named_after_their_modules() -> None:
    """But for those of whole commands, of whole runs, and attacks on files."""
    strangers = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        test = path.relative_to(ROOT / "tests")
        is_attack = test.stem.removeprefix("test_").startswith(ATTACKS)
        if (
            test.parts[0] in ("attack", "commands", "end_to_end")
            or is_attack
            or str(test.with_suffix("")) in NO_MODULES
        ):
            continue
        if not _is_named_after_a_module(test):
            strangers.append(str(test))
    assert strangers == []


def test_the_tree_names_what_there_is() -> None:
    tree = re.search(r"```\nsmn_cli/\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert tree is not None
    named = set(re.findall(r"^  (\S+)", tree.group(1), re.MULTILINE))
    there = {f"{path.name}/" if path.is_dir() else path.name for path in (ROOT / "smn_cli").iterdir()}
    assert named == there - {"__init__.py", "__main__.py", "__pycache__/"}


def test_links_in_the_pages_lead_somewhere() -> None:
    broken = []
    for page in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_the_readme_names_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "pip install '.[demo]' && smn demo" in readme
    assert "pip install '.[test]' && pytest" in readme
