"""smn merge votes weight by weight, writes a valid adapter over the same base, and refuses what cannot be merged."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from torch import Tensor

from smn_cli.adapters.adapter import load_adapter, make_adapter
from tests.adapters.forging import random_masks
from tests.commands.conftest import Road
from tests.conftest import RESNET, Outcome

pytestmark = pytest.mark.slow

Run = Callable[..., Outcome]


def backbone_of(path: Path) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in load_file(path).items() if not name.startswith("fc.")}


def write_three(road: Road, folder: Path) -> tuple[list[Path], list[dict[str, Tensor]]]:
    state, paths = backbone_of(road.weights), [folder / f"{number}.safetensors" for number in range(3)]
    masks = [random_masks(state, density=0.7, seed=number) for number in range(3)]
    masks[2].popitem()  # a tensor that is not masked keeps all its weights
    for path, mask, codec in zip(paths, masks, ("bits", "lzma", "context"), strict=True):
        make_adapter(state, mask, arch=RESNET, codec=codec).save(path)
    return paths, masks


@pytest.mark.parametrize(("how", "needed"), [("and", 3), ("or", 1), ("majority", 2)])
def test_a_weight_is_kept_by_votes(road: Road, run_cli: Run, tmp_path: Path, how: str, needed: int) -> None:
    paths, masks = write_three(road, tmp_path)
    words = ["merge", *paths, "--how", how, "--weights", road.weights, "--out", tmp_path / "m", "--json", "-"]
    outcome = run_cli(*words)
    assert outcome.code == 0, outcome.err
    found = load_adapter(tmp_path / "m").masks(backbone_of(road.weights))
    for name, mask in masks[0].items():
        votes = np.sum([each[name].numpy() if name in each else np.ones(mask.shape) for each in masks], axis=0)
        assert np.array_equal(found[name].numpy(), votes >= needed)
    content = json.loads(outcome.out)
    assert (content["schema"], content["how"]) == ("smn.merge/1", how)
    assert content["bytes"] == (tmp_path / "m").stat().st_size
    assert run_cli("verify", tmp_path / "m", "--weights", road.weights).code == 0


def test_the_order_of_files_does_not_change_the_network(road: Road, run_cli: Run, tmp_path: Path) -> None:
    paths, _ = write_three(road, tmp_path)
    for out, order in (("m", paths), ("n", paths[::-1])):
        assert run_cli("merge", *order, "--weights", road.weights, "--out", tmp_path / out).code == 0
    digests = [load_adapter(tmp_path / out).header.adapted_digest for out in ("m", "n")]
    assert digests[0] == digests[1]


def test_what_cannot_be_merged_is_refused_and_nothing_written(road: Road, run_cli: Run, tmp_path: Path) -> None:
    paths, masks = write_three(road, tmp_path)
    other, state = backbone_of(road.other_weights), backbone_of(road.weights)
    make_adapter(other, masks[0], arch=RESNET, codec="bits").save(tmp_path / "x")
    means = {name: tensor + 1 for name, tensor in state.items() if name.endswith("running_mean")}
    make_adapter(state, masks[0], arch=RESNET, codec="bits", norm_stats=means).save(tmp_path / "s")
    opposite = {name: ~mask for name, mask in masks[0].items()}
    make_adapter(state, opposite, arch=RESNET, codec="bits").save(tmp_path / "o")
    out = tmp_path / "m"
    for words, code, part in (
        ([*paths, tmp_path / "x"], 4, "are for different bases"),
        ([paths[0], tmp_path / "s"], 2, "different normalisation statistics"),
        ([paths[0], tmp_path / "o", "--how", "and"], 2, "leaves no weight of"),
        ([paths[0]], 2, "needs two or more"),
        ([*paths, "--how", "xor"], 2, "expected one of and, or, majority"),
        ([*paths, tmp_path / "none"], 6, "cannot be read"),
        ([*paths, "--weights", road.other_weights], 4, "1 of"),
    ):
        given = [] if "--weights" in words else ["--weights", road.weights]
        outcome = run_cli("merge", *words, *given, "--out", out)
        assert (outcome.code, outcome.out) == (code, ""), outcome.err
        assert part in outcome.err
        assert not out.exists()


def test_an_existing_file_is_replaced_only_if_asked(road: Road, run_cli: Run, tmp_path: Path) -> None:
    paths, _ = write_three(road, tmp_path)
    out = tmp_path / "m"
    out.write_text("mine")
    assert run_cli("merge", *paths, "--weights", road.weights, "--out", out).code == 2
    assert out.read_text() == "mine"
    assert run_cli("merge", *paths, "--weights", road.weights, "--out", out, "--overwrite").code == 0
    assert load_adapter(out).header.provenance["how"] == "majority"
