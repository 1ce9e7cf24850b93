"""A readout along the road: packed, told of, used by smn embed, and as timm's last layer."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from smn_cli import rebuild as rebuild_module
from smn_cli.adapters.adapter import load_adapter
from smn_cli.backbones.loading import Backbone
from tests.commands.conftest import SHORT, Road, quietly
from tests.conftest import CONVNET, RESNET, VIT, Outcome

Cli = Callable[..., Outcome]
LAYERS = ("centred", "whitened")
KINDS = (*LAYERS, "stages")
ARCHS = [RESNET, pytest.param(CONVNET, marks=pytest.mark.slow), pytest.param(VIT, marks=pytest.mark.slow)]


@dataclass(frozen=True)
class Packed:
    """A run's adapters by kind of readout, and without one under "none"."""

    arch: str
    weights: Path
    run: Path
    files: dict[str, Path]


@pytest.fixture(scope="module")
def packed(
    weights_file: Callable[[str], Path], road: Road, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Packed]:
    """A function from a timm name; the tests read the files and write elsewhere."""
    done: dict[str, Packed] = {}

    def make(arch: str) -> Packed:
        if arch not in done:
            folder, weights = tmp_path_factory.mktemp(arch), weights_file(arch)
            files = {kind: folder / f"{kind}.safetensors" for kind in (*KINDS, "none")}
            run = folder / "run"
            quietly("adapt", road.images, "--arch", arch, "--weights", weights, "--out", run, *SHORT.split())
            for kind, file in files.items():
                quietly("pack", run, "--out", file, *([] if kind == "none" else ["--readout", kind]))
            done[arch] = Packed(arch, weights, run, files)
        return done[arch]

    return make


def told(outcome: Outcome) -> dict[str, Any]:
    """The JSON of a command that has to work."""
    assert outcome.code == 0, outcome.err
    content: dict[str, Any] = json.loads(outcome.out)
    return content


def rows_of(path: Path) -> np.ndarray:
    rows: np.ndarray = np.load(path, allow_pickle=False)
    return rows


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("kind", KINDS)
def test_embed_gives_what_the_readout_makes_of_the_features(
    arch: str, kind: str, packed: Callable[[str], Packed], road: Road, run_cli: Cli, tmp_path: Path
) -> None:
    made = packed(arch)
    words = ("embed", road.images, "--weights", made.weights, "--json", "-", "--adapter")
    content = told(run_cli(*words, made.files[kind], "--out", tmp_path / "v.npy"))
    plain = told(run_cli(*words, made.files[kind], "--no-readout", "--out", tmp_path / "f.npy"))
    told(run_cli(*words, made.files["none"], "--out", tmp_path / "n.npy"))
    readout, features = load_adapter(made.files[kind]).readout, rows_of(tmp_path / "f.npy")
    assert readout is not None
    assert (content["readout"], plain["readout"]) == (kind, None)
    assert content["features"] == readout.dim
    assert features.tobytes() == rows_of(tmp_path / "n.npy").tobytes()
    if kind != "stages":  # of other numbers than the features
        assert rows_of(tmp_path / "v.npy").tobytes() == readout(torch.from_numpy(features)).numpy().tobytes()
    # what it was fitted to has mean zero
    np.testing.assert_allclose(rows_of(tmp_path / "v.npy").mean(axis=0), 0, atol=2e-3 * np.abs(features).max())
    told(run_cli(*words, made.files[kind], "--out", tmp_path / "again.npy"))
    assert (tmp_path / "again.npy").read_bytes() == (tmp_path / "v.npy").read_bytes()


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("kind", LAYERS)
def test_plain_timm_gives_embed_s_numbers_from_the_applied_checkpoint(
    arch: str, kind: str, packed: Callable[[str], Packed], road: Road, run_cli: Cli, tmp_path: Path
) -> None:
    made, checkpoint = packed(arch), tmp_path / "c.safetensors"
    file, words = made.files[kind], ("--weights", made.weights, "--json", "-", "--out")
    content = told(run_cli("apply", file, "--readout", *words, checkpoint))
    told(run_cli("embed", road.images, "--adapter", file, *words, tmp_path / "v.npy"))
    adapter = load_adapter(file)
    assert adapter.readout is not None
    assert (content["readout"], content["num_classes"]) == (kind, adapter.readout.dim)
    extra = {"dynamic_img_size": True} if arch == VIT else {}
    model = timm.create_model(arch, num_classes=adapter.readout.dim, checkpoint_path=str(checkpoint), **extra).eval()
    prepare = adapter.transform()
    images = torch.stack([prepare(Image.open(path)) for path in sorted(road.images.iterdir())])
    with torch.inference_mode():
        vectors = model(images.to(memory_format=torch.channels_last))
    np.testing.assert_allclose(vectors.numpy(), rows_of(tmp_path / "v.npy"), rtol=1e-4, atol=1e-5)
    assert vectors.shape == (24, adapter.readout.dim)


def test_a_checkpoint_with_a_readout_is_the_adapted_network(
    packed: Callable[[str], Packed], run_cli: Cli, tmp_path: Path
) -> None:
    made = packed(RESNET)
    words = ("--weights", made.weights)
    assert run_cli("apply", made.files["whitened"], "--readout", *words, "--out", tmp_path / "c.safetensors").code == 0
    verified = run_cli("verify", made.files["none"], *words, "--checkpoint", tmp_path / "c.safetensors")
    assert verified.code == 0, verified.err


@pytest.mark.parametrize(
    ("kind", "words", "reason"),
    [
        ("none", ("--readout",), "--readout: the adapter carries none; make it with smn pack"),
        ("stages", ("--readout",), "--readout: the adapter's reads the stages, and is no layer over the last features"),
        ("whitened", ("--readout", "--drop-classifier"), "--readout takes the place of the classifier"),
    ],
)
def test_apply_refuses_in_one_line_what_is_no_last_layer(
    kind: str, words: tuple[str, ...], reason: str, packed: Callable[[str], Packed], run_cli: Cli, tmp_path: Path
) -> None:
    made = packed(RESNET)
    out = tmp_path / "c.safetensors"
    refused = run_cli("apply", made.files[kind], *words, "--weights", made.weights, "--out", out)
    assert (refused.code, reason in refused.err, refused.err.count("\n")) == (2, True, 1), refused.err
    assert not out.exists()


def test_the_size_table_and_inspect_count_it(packed: Callable[[str], Packed], run_cli: Cli, tmp_path: Path) -> None:
    made = packed(RESNET)
    outcome = run_cli("pack", made.run, "--readout", "whitened", "--out", tmp_path / "a.safetensors", "--json", "-")
    content = told(outcome)
    assert (tmp_path / "a.safetensors").read_bytes() == made.files["whitened"].read_bytes()
    parts = ("mask", "norm_stats", "head", "readout", "metadata")
    assert sum(content[f"{part}_bytes"] for part in parts) == content["file_bytes"]
    assert content["readout_bytes"] == 3 * 96 + 2 * 3 * 4
    assert content["readout"] == "whitened"
    assert "\nreadout  " in outcome.err
    found = told(run_cli("inspect", made.files["whitened"], "--json", "-"))
    assert found["readout"] == {
        **found["readout"],
        "kind": "whitened",
        "dim": 3,
        "features": 96,
        "images": 24,
        "bits": 8,
    }
    assert found["bytes"]["readout"] == content["readout_bytes"]
    assert sum(found["bytes"].values()) == 2 * found["bytes"]["file"]
    page = run_cli("inspect", made.files["whitened"]).out
    assert "carries a readout, whitened: 96 features to 3 numbers at 8 bits, fitted to 24 images" in page
    bare = run_cli("inspect", made.files["none"], "--json", "-")
    assert told(bare)["readout"] is None


@pytest.mark.parametrize("kind", KINDS)
def test_verify_holds_it_against_the_network(kind: str, packed: Callable[[str], Packed], run_cli: Cli) -> None:
    made = packed(RESNET)
    words = ("verify", made.files[kind], "--weights", made.weights)
    assert f"readout {kind}: takes as many numbers as the network gives" in run_cli(*words).out
    assert told(run_cli(*words, "--json", "-"))["readout"] == kind
    assert told(run_cli("verify", made.files["none"], "--weights", made.weights, "--json", "-"))["readout"] is None


@pytest.mark.slow
def test_stages_are_counted_by_a_network_that_can_be_run_on_images_of_its_own_size(
    packed: Callable[[str], Packed], run_cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made, asked = packed(RESNET), []
    whole = rebuild_module.backbone_for

    def noted(*args: Any, is_run: bool = True) -> Backbone:
        asked.append(is_run)
        return whole(*args, is_run=is_run)

    monkeypatch.setattr(rebuild_module, "backbone_for", noted)
    content = load_adapter(made.files["stages"])._content
    content.header = replace(content.header, preprocessing=content.header.preprocessing | {"size": 8192})
    (tmp_path / "large.safetensors").write_bytes(content.to_bytes())  # would take gigabytes
    for file in (tmp_path / "large.safetensors", made.files["whitened"]):
        assert run_cli("verify", file, "--weights", made.weights).code == 0
    assert asked == [True, False]


@pytest.mark.parametrize("command", ["verify", "embed", "apply"])
def test_a_readout_of_another_network_s_features_is_refused(
    command: str, packed: Callable[[str], Packed], road: Road, run_cli: Cli, tmp_path: Path
) -> None:
    made, alien = packed(RESNET), load_adapter(packed(VIT).files["whitened"]).readout
    load_adapter(made.files["none"]).with_readout(alien).save(tmp_path / "a.safetensors")
    out = tmp_path / ("v.npy" if command == "embed" else "c.safetensors")
    words = {
        "verify": ("verify", tmp_path / "a.safetensors"),
        "embed": ("embed", road.images, "--adapter", tmp_path / "a.safetensors", "--out", out),
        "apply": ("apply", tmp_path / "a.safetensors", "--readout", "--out", out),
    }[command]
    refused = run_cli(*words, "--weights", made.weights)
    assert refused.code == 4, refused.err
    assert f"the adapter's readout takes 64 features, and {RESNET} has 96" in refused.err
    assert not out.exists()


@pytest.mark.slow
def test_diff_tells_of_it_and_merge_leaves_it_out(
    packed: Callable[[str], Packed], run_cli: Cli, tmp_path: Path
) -> None:
    made = packed(RESNET)
    files = (made.files["whitened"], made.files["none"])
    content = told(run_cli("diff", *files, "--weights", made.weights, "--json", "-"))
    assert content["same_network"] is True
    assert content["differs"]["readout.kind"] == ["whitened", None]
    adapter = load_adapter(made.files["whitened"])
    assert adapter.readout is not None
    parts = {**adapter.readout.parts, "bias": adapter.readout.parts["bias"] + 1}
    adapter.with_readout(type(adapter.readout)(adapter.readout.entry, parts)).save(tmp_path / "b.safetensors")
    content = told(run_cli("diff", files[0], tmp_path / "b.safetensors", "--weights", made.weights, "--json", "-"))
    assert list(content["differs"]) == ["readout.digest"]
    merged = run_cli("merge", *files, "--weights", made.weights, "--out", tmp_path / "m.safetensors")
    assert merged.code == 0, merged.err
    assert merged.err.count("its readout is left out") == 1
    assert load_adapter(tmp_path / "m.safetensors").readout is None


@pytest.mark.slow
def test_a_readout_stands_beside_a_classifier_and_in_its_place(
    road: Road, weights_file: Callable[[str], Path], run_cli: Cli, tmp_path: Path
) -> None:
    words = ("--recipe", "paper", "--size", "32", "--batch-size", "8", "--steps", "3", "--labels", "folders")
    weights, run, file = weights_file(RESNET), tmp_path / "run", tmp_path / "a.safetensors"
    adapted = run_cli("adapt", road.labeled / "train", "--arch", RESNET, "--weights", weights, "--out", run, *words)
    assert adapted.code == 0, adapted.err
    content = told(run_cli("pack", run, "--readout", "whitened", "--out", file, "--json", "-"))
    assert content["head_bytes"] > 0
    assert content["readout_bytes"] > 0
    shown = {}
    for name, flags in (("classes", ()), ("readout", ("--readout",))):
        out = tmp_path / f"{name}.safetensors"
        shown[name] = told(run_cli("apply", file, *flags, "--weights", weights, "--out", out, "--json", "-"))
    assert (shown["classes"]["classes"], shown["classes"]["readout"]) == (["blue", "green", "red"], None)
    dim = load_adapter(file).readout.dim  # type: ignore[union-attr]
    assert (shown["readout"]["classes"], shown["readout"]["num_classes"]) == ([], dim)


@pytest.mark.slow
def test_images_that_are_gone_are_told_in_one_line(
    road: Road, weights_file: Callable[[str], Path], run_cli: Cli, image_folder: Path, tmp_path: Path
) -> None:
    words = ("--arch", RESNET, "--weights", weights_file(RESNET), "--out", tmp_path / "run", *SHORT.split())
    assert run_cli("adapt", image_folder, *words).code == 0
    for path in image_folder.iterdir():
        path.unlink()
    out = tmp_path / "a.safetensors"
    refused = run_cli("pack", tmp_path / "run", "--readout", "centred", "--out", out)
    assert (refused.code, out.exists()) == (5, False)
    assert "is gone: a readout is fitted to the run's images; put them back, or pack without --readout" in refused.err
    assert run_cli("pack", tmp_path / "run", "--out", out).code == 0


def test_an_unknown_kind_is_refused(packed: Callable[[str], Packed], run_cli: Cli, tmp_path: Path) -> None:
    refused = run_cli("pack", packed(RESNET).run, "--readout", "magic", "--out", tmp_path / "a.safetensors")
    assert refused.code == 2
    assert "--readout magic is unknown: expected one of centred, whitened, stages" in refused.err


def test_a_readout_needs_no_training(
    weights_file: Callable[[str], Path], road: Road, run_cli: Cli, tmp_path: Path
) -> None:
    """Few images, which would be an alarm for a run that trains; all of them are read."""
    run, file = tmp_path / "run", tmp_path / "adapter.safetensors"
    words = ("--arch", RESNET, "--weights", weights_file(RESNET), "--out", run, "--json", "-", "--size", 32)
    content = told(run_cli("adapt", road.images, *words, "--batch-size", 4, "--steps", 0))
    assert (content["trained"], content["identity"], content["alarms"]) == (False, True, [])
    assert content["images"] > 4  # more than one batch
    packed = run_cli("pack", run, "--out", file, "--readout", "stages", "--json", "-")
    assert told(packed)["density"] == 1
    assert "the adapted network is the base, and only the readout is new" in packed.err
    readout = load_adapter(file).readout
    assert readout is not None
    assert readout.entry.num_images == content["images"]
    vectors = tmp_path / "v.npy"
    told(
        run_cli(
            "embed", road.images, "--adapter", file, "--weights", weights_file(RESNET), "--json", "-", "--out", vectors
        )
    )
    assert rows_of(vectors).shape == (len(list(road.images.iterdir())), readout.dim)
