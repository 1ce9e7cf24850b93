"""The project's own rules: style, types, layering, sizes, and texts that must not go stale."""

import ast
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
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


def test_the_readme_tree_names_what_there_is() -> None:
    tree = re.search(r"```\nsmn_cli/\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert tree is not None
    named = set(re.findall(r"^  (\S+)", tree.group(1), re.MULTILINE))
    there = {f"{path.name}/" if path.is_dir() else path.name for path in (ROOT / "smn_cli").iterdir()}
    assert named == there - {"__init__.py", "__main__.py", "__pycache__/"}


def test_links_in_the_pages_lead_somewhere() -> None:
    broken = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_the_readme_names_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "pip install '.[demo]' && smn demo" in readme
    assert "pip install '.[test]' && pytest" in readme
