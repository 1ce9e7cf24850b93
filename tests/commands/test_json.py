"""Every command writes the JSON that is declared for it, and nothing else."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import ValidationError

import smn_cli
from smn_cli.backbones.packaged import lite0_weights
from smn_cli.cli import app
from smn_cli.errors import BackboneError
from tests.commands.conftest import SHORT, Road, quietly
from tests.conftest import RESNET, Outcome
from tests.datasets.downloads import DOWNLOADS
from tests.declared_json import check_json, declarations

pytestmark = pytest.mark.slow

Run = Callable[..., Outcome]
RUN_FOLDERS = {"smn.run/1", "smn.cascade-run/1", "smn.onnx/1"}
"""What `config.json` of a run folder says of itself."""


def test_every_command_has_a_declaration_and_every_schema_in_the_sources_is_one() -> None:
    sources = [path for path in Path(smn_cli.__file__).parent.rglob("*.py") if path.parent.name != "schemas"]
    named = {name for path in sources for name in re.findall(r'"(smn\.[a-z-]+/\d+)"', path.read_text())}
    assert named - RUN_FOLDERS == set(declarations())
    group: Any = typer.main.get_command(app)
    assert {f"smn.{name}/1" for name in group.commands} == set(declarations())


@pytest.mark.parametrize(
    "words",
    [
        f"adapt {{images}} --arch {RESNET} --weights {{weights}} --out {{tmp}}/run {SHORT}",
        f"adapt {{labeled}}/train --labels folders --arch {RESNET} --weights {{weights}} --out {{tmp}}/run --size 32 "
        "--batch-size 6 --steps 2",
        f"plan {{images}} --arch {RESNET} --weights {{weights}} {SHORT}",
        f"plan {{images}} --arch {RESNET} --weights {{weights}} --size 32 --batch-size 8 --steps 2 --train full",
        f"eval {{labeled}} --arch {RESNET} --weights {{weights}} --size 32 --linear",
        "eval {labeled} --run {run} --weights {weights} --knn --linear --k 5 --k 3 --fail-under knn.top1=0",
        "eval {labeled} --adapter {adapter} --adapter {merged} --weights {weights} --label-fraction 1,.5 --repeats 2",
        "embed {images} --adapter {adapter} --weights {weights} --out {tmp}/features.npy",
        "pack {run} --out {tmp}/packed.safetensors",
        "apply {adapter} --weights {weights} --out {tmp}/applied.safetensors",
        "inspect {adapter}",
        "verify {adapter} --weights {weights}",
        "diff {adapter} {merged} --weights {weights}",
        "merge {adapter} {merged} --weights {weights} --how or --out {tmp}/new.safetensors",
        "eval {labeled} --adapter {cascade} --weights {weights} --knn --linear",
        "inspect {cascade}",
        "verify {cascade} --weights {weights}",
        "apply {cascade} --expert 1 --weights {weights} --out {tmp}/applied.safetensors",
        "embed {images} --adapter {cascade} --weights {weights} --out {tmp}/features.npy",
    ],
)
def test_a_command_writes_what_is_declared(
    words: str, road: Road, merged: Path, cascade_file: Path, run_cli: Run, tmp_path: Path
) -> None:
    places = {**vars(road), "merged": merged, "cascade": cascade_file, "tmp": tmp_path}
    outcome = run_cli(*words.format(**places).split(), "--json", "-")
    assert outcome.code == 0, outcome.err
    check_json(outcome.out)
    assert json.loads(outcome.out)["schema"] == f"smn.{words.split()[0]}/1"


@pytest.fixture(scope="module")
def merged(road: Road, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second adapter over the road's base."""
    out = tmp_path_factory.mktemp("merged") / "merged.safetensors"
    quietly("merge", road.adapter, road.adapter, "--weights", road.weights, "--out", out)
    return out


def test_data_writes_what_is_declared(run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DOWNLOADS["eurosat"](tmp_path / "root", monkeypatch, "eurosat")
    outcome = run_cli("data", "eurosat", tmp_path / "out", "--root", tmp_path / "root", "--json", "-")
    assert outcome.code == 0, outcome.err
    check_json(outcome.out)


@pytest.mark.real
@pytest.mark.long
def test_the_demo_writes_what_is_declared(run_cli: Run, tmp_path: Path) -> None:
    try:
        lite0_weights()
    except BackboneError as error:
        pytest.skip(str(error))
    outcome = run_cli("demo", "--steps", 1, "--out", tmp_path / "demo", "--json", "-")
    assert outcome.code == 0, outcome.err
    check_json(outcome.out)
    content = json.loads(outcome.out)
    assert content["adapter_bytes"] == (tmp_path / "demo" / "adapter.safetensors").stat().st_size
    assert content["gain"].keys() == {"knn.top1", "knn.top1@20", "linear.top1"}


WELL: dict[str, Any] = {
    "schema": "smn.demo/1",
    "adapter": "a",
    "adapter_bytes": 1,
    "checkpoint": "c",
    "density": 0.5,
    "digest": "0",
    "outputs_equal": True,
    "base": {"knn": {"k": 200, "temperature": 0.1, "top1": 0.5, "top1@20": 0.5}},
    "seconds": 1.0,
}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"surplus": 1}, AssertionError),
        ({"base": {"knn": WELL["base"]["knn"], "surplus": {}}}, AssertionError),
        ({"base": {"knn": {"k": 200, "temperature": 0.1}}}, ValidationError),
        ({"base": {"knn": {**WELL["base"]["knn"], "top1@20": "x"}}}, ValidationError),
        ({"density": "0.5"}, ValidationError),
        ({"adapter_bytes": 1.5}, ValidationError),
        ({"outputs_equal": 1}, ValidationError),
        ({"verdict": "unsure"}, ValidationError),
    ],
)
def test_what_is_not_as_declared_is_refused(change: dict[str, Any], error: type[Exception]) -> None:
    check_json(json.dumps(WELL))
    with pytest.raises(error):
        check_json(json.dumps({**WELL, **change}))


@pytest.mark.parametrize("name", sorted(WELL))
def test_a_missing_field_is_refused(name: str) -> None:
    with pytest.raises((ValidationError, KeyError)):
        check_json(json.dumps({key: value for key, value in WELL.items() if key != name}))
