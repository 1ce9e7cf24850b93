"""The notebooks run as they stand: cell by cell in this process, and in a kernel where there is one."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted((Path(__file__).parent.parent / "examples" / "notebooks").glob("*.ipynb"))


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What notebooks write goes to a folder of the test; pictures need no screen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("MPLBACKEND", "Agg")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_run_in_their_order(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notebook = json.loads(path.read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    known: dict[str, object] = {"__name__": "__main__"}
    for number, text in enumerate(cells):
        exec(compile(text, f"{path.name}, cell {number}", "exec"), known)
    assert list(tmp_path.glob("*/*.safetensors"))
    assert capsys.readouterr().out
    assert all(cell.get("outputs", []) == [] for cell in notebook["cells"])  # outputs would only go stale


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_kernel_runs_them(path: Path, tmp_path: Path) -> None:
    for module in ("nbclient", "ipykernel"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install '.[docs]'")
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    assert list(tmp_path.glob("*/*.safetensors"))
    assert any(cell.outputs for cell in notebook.cells if cell.cell_type == "code")
