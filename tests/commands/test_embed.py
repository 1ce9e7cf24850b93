"""smn embed: the features that plain timm computes, in files that other tools read."""

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor

from smn_cli.adapters.adapter import load_adapter
from tests.commands.conftest import Road, quietly
from tests.conftest import CONVNET, RESNET, VIT, Outcome

Run = Callable[..., Outcome]


def embedded(run_cli: Run, out: Path, *words: object) -> dict[str, Any]:
    """The JSON of a run of smn embed that has to work."""
    outcome = run_cli("embed", *words, "--out", out, "--json", "-")
    assert outcome.code == 0, outcome.err
    content: dict[str, Any] = json.loads(outcome.out)
    return content


def rows_of(out: Path) -> np.ndarray:
    rows: np.ndarray = np.load(out, allow_pickle=False)
    return rows


def by_plain_timm(arch: str, checkpoint: Path, adapter: Path, paths: list[Path]) -> Tensor:
    """Features of the images in one batch under a checkpoint of smn apply, by timm and torch alone."""
    config = load_adapter(adapter).header.preprocessing
    model = timm.create_model(arch, checkpoint_path=str(checkpoint))
    model.reset_classifier(0)
    prepare = load_adapter(adapter).preprocessing
    assert prepare.size == config["size"]
    batch = torch.stack([prepare(Image.open(path).convert("RGB")) for path in paths])
    with torch.inference_mode():
        features: Tensor = model.eval().to(memory_format=torch.channels_last)(
            batch.to(memory_format=torch.channels_last)
        )
    return features


@pytest.mark.slow
def test_features_are_those_of_plain_timm_on_the_applied_checkpoint(road: Road, run_cli: Run, tmp_path: Path) -> None:
    out, checkpoint = tmp_path / "f.npy", tmp_path / "c.safetensors"
    content = embedded(run_cli, out, road.images, "--adapter", road.adapter, "--weights", road.weights)
    quietly("apply", road.adapter, "--weights", road.weights, "--out", checkpoint)
    paths = sorted(road.images.iterdir())
    expected = by_plain_timm(RESNET, checkpoint, road.adapter, paths)
    rows = rows_of(out)
    assert (content["images"], content["features"]) == rows.shape == (24, expected.shape[1])
    assert rows.tobytes() == expected.numpy().tobytes()
    base = tmp_path / "base.npy"
    embedded(run_cli, base, road.images, "--arch", RESNET, "--weights", road.weights, "--size", 32)
    assert rows_of(base).tobytes() != rows.tobytes()  # the mask changes the features


@pytest.mark.parametrize("arch", [CONVNET, VIT])
def test_a_base_alone_gives_the_features_of_timm(
    arch: str, run_cli: Run, tmp_path: Path, image_folder: Path, weights_file: Callable[[str], Path]
) -> None:
    out = tmp_path / "f.npy"
    content = embedded(run_cli, out, image_folder, "--arch", arch, "--weights", weights_file(arch), "--size", 64)
    model = timm.create_model(arch, checkpoint_path=str(weights_file(arch)), **_sized(arch))
    model.reset_classifier(0)
    mean, std = (torch.tensor(content["preprocessing"][name]).view(3, 1, 1) for name in ("mean", "std"))
    images = [Image.open(path).resize((64, 64), Image.Resampling.BICUBIC) for path in sorted(image_folder.iterdir())]
    pixels = torch.stack([torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) for image in images])
    batch = ((pixels / 255 - mean) / std).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = model.eval().to(memory_format=torch.channels_last)(batch)
    assert rows_of(out).tobytes() == expected.numpy().tobytes()


def _sized(arch: str) -> dict[str, bool]:
    return {"dynamic_img_size": True} if arch == VIT else {}


def test_a_run_gives_the_features_of_its_adapter(road: Road, run_cli: Run, tmp_path: Path) -> None:
    of_file, of_run = tmp_path / "file.npy", tmp_path / "run.npy"
    embedded(run_cli, of_file, road.images, "--adapter", road.adapter, "--weights", road.weights)
    embedded(run_cli, of_run, road.images, "--run", road.run, "--workers", 2)
    assert of_run.read_bytes() == of_file.read_bytes()


@pytest.mark.slow
def test_rows_are_in_the_order_of_the_paths_beside_them(road: Road, run_cli: Run, tmp_path: Path) -> None:
    out, one = tmp_path / "f.npy", tmp_path / "one.npy"
    paths = sorted(road.images.iterdir())
    words = ("--adapter", road.adapter, "--weights", road.weights)
    content = embedded(run_cli, out, *reversed(paths), *words)
    assert content["paths"] == str(tmp_path / "f.paths.txt")
    assert (tmp_path / "f.paths.txt").read_text().splitlines() == [str(path) for path in paths]
    embedded(run_cli, one, paths[7], *words)
    np.testing.assert_allclose(rows_of(one)[0], rows_of(out)[7], rtol=1e-4, atol=1e-5)  # another batch: rounding
    listed = tmp_path / "again.npy"
    embedded(run_cli, listed, tmp_path / "f.paths.txt", *words)
    assert listed.read_bytes() == out.read_bytes()


@pytest.mark.slow
def test_l2_scales_every_row_to_length_one(road: Road, run_cli: Run, tmp_path: Path) -> None:
    words = (road.images, "--adapter", road.adapter, "--weights", road.weights)
    content = embedded(run_cli, tmp_path / "f.npy", *words, "--l2")
    embedded(run_cli, tmp_path / "raw.npy", *words)
    raw, rows = rows_of(tmp_path / "raw.npy"), rows_of(tmp_path / "f.npy")
    assert content["l2"] is True
    np.testing.assert_allclose(rows, raw / np.linalg.norm(raw, axis=1, keepdims=True), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_images_in_a_tar_give_the_features_of_the_files(road: Road, run_cli: Run, tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for path in sorted(road.images.iterdir()):
            tar.add(path, path.name)
    words = ("--adapter", road.adapter, "--weights", road.weights)
    embedded(run_cli, tmp_path / "tar.npy", tmp_path / "shard.tar", *words)
    embedded(run_cli, tmp_path / "f.npy", road.images, *words)
    assert rows_of(tmp_path / "tar.npy").tobytes() == rows_of(tmp_path / "f.npy").tobytes()
    assert (tmp_path / "tar.paths.txt").read_text().splitlines()[0] == str(tmp_path / "shard.tar" / "000.png")


def test_bad_images_are_too_many_or_left_out_and_listed(road: Road, run_cli: Run, tmp_path: Path) -> None:
    broken, out = tmp_path / "broken.png", tmp_path / "f.npy"
    broken.write_bytes(b"no image")
    words = (road.images, broken, "--adapter", road.adapter, "--weights", road.weights)
    refused = run_cli("embed", *words, "--out", out)
    assert refused.code == 5
    assert "1 of 25 images are unusable, more than --max-bad 0.01 allows" in refused.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.png"]
    content = embedded(run_cli, out, *words, "--max-bad", "0.05")
    assert [entry["path"] for entry in content["bad"]] == [str(broken)]
    assert len(rows_of(out)) == len((tmp_path / "f.paths.txt").read_text().splitlines()) == content["images"] == 24
    assert (tmp_path / "f.bad_images.txt").read_text().startswith(f"{broken}\t")


@pytest.mark.slow
def test_parquet_holds_the_same_features_with_their_paths(
    road: Road, run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the parquet extra")
    from smn_cli.features import write as feature_files

    monkeypatch.setattr(feature_files, "_ROWS_OF_GROUP", 8)  # batches of 128 are in one group all the same
    words = (road.images, "--adapter", road.adapter, "--weights", road.weights)
    content = embedded(run_cli, tmp_path / "f.parquet", *words)
    embedded(run_cli, tmp_path / "f.npy", *words)
    table = parquet.read_table(tmp_path / "f.parquet")
    assert table.column_names == ["path", "features"]
    assert str(table.schema.field("features").type) == f"fixed_size_list<element: float>[{content['features']}]"
    assert table["path"].to_pylist() == (tmp_path / "f.paths.txt").read_text().splitlines()
    found = np.array(table["features"].to_pylist(), dtype=np.float32)
    assert found.tobytes() == rows_of(tmp_path / "f.npy").tobytes()
    first = (tmp_path / "f.parquet").read_bytes()
    embedded(run_cli, tmp_path / "f.parquet", *words, "--overwrite")
    assert (tmp_path / "f.parquet").read_bytes() == first
    assert not (tmp_path / "f.parquet").with_suffix(".paths.txt.parquet").exists()


def test_parquet_without_pyarrow_is_refused_before_any_work(
    road: Road, run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused = run_cli("embed", road.images, "--adapter", road.adapter, "--out", tmp_path / "f.parquet")
    assert (refused.code, "pip install 'smn-cli[parquet]'" in refused.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--out", "f.npy"), "smn embed needs --adapter FILE, --run RUN or, for a base alone, --arch NAME"),
        (
            ("--out", "f.txt", "--arch", RESNET),
            "--out f.txt: expected a name ending in one of .npy, .parquet, .csv",
        ),
        (("--out", "there.npy", "--arch", RESNET), "--out there.npy exists: --overwrite replaces it"),
        (("--out", "f.npy", "--adapter", "a", "--run", "b"), "--adapter and --run both name the masks"),
    ],
)
def test_wrong_usage_is_told(
    words: tuple[str, ...],
    reason: str,
    run_cli: Run,
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.npy").write_bytes(b"")
    refused = run_cli("embed", image_folder, *words)
    assert (refused.code, reason in refused.err) == (2, True), refused.err


def test_an_adapter_over_another_base_leaves_no_file(road: Road, run_cli: Run, tmp_path: Path) -> None:
    words = (road.images, "--adapter", road.adapter, "--weights", road.other_weights)
    assert run_cli("embed", *words, "--out", tmp_path / "f.npy").code == 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_archives_give_the_features_of_the_folder_that_they_hold(road: Road, run_cli: Run, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the parquet extra")
    parquet = pytest.importorskip("pyarrow.parquet")
    paths = sorted(road.images.iterdir())
    words = ("--arch", RESNET, "--weights", road.weights, "--size", 32, "--workers", 2)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for path in paths:
            file.write(path, path.name)
    images = pyarrow.array([{"bytes": path.read_bytes(), "path": path.name} for path in paths])
    parquet.write_table(pyarrow.table({"image": images}), tmp_path / "a.parquet", row_group_size=5)
    embedded(run_cli, tmp_path / "folder.npy", road.images, *words)
    for name in ("a.zip", "a.parquet"):
        embedded(run_cli, tmp_path / "archive.npy", tmp_path / name, "--overwrite", *words)
        assert rows_of(tmp_path / "archive.npy").tobytes() == rows_of(tmp_path / "folder.npy").tobytes()
    assert (tmp_path / "archive.paths.txt").read_text().splitlines()[12] == f"{tmp_path}/a.parquet/0000012.img"


def test_lance_tables_are_replaced_only_when_asked_and_other_folders_never(
    road: Road, run_cli: Run, tmp_path: Path
) -> None:
    pytest.importorskip("lance", reason="needs the lance extra")
    out = tmp_path / "f.lance"
    words = ("embed", road.images, "--arch", RESNET, "--weights", road.weights, "--size", 32, "--out", out)
    out.mkdir()
    (out / "notes.txt").touch()
    refused = run_cli(*words, "--overwrite")
    assert (refused.code, refused.err) == (2, f"smn: --out {out} exists and is no Lance table: choose another --out\n")
    (out / "notes.txt").rename(tmp_path / "notes.txt")
    (out / "_versions").mkdir()
    refused = run_cli(*words)
    assert (refused.code, refused.err) == (2, f"smn: --out {out} exists: --overwrite replaces it\n")
    assert run_cli(*words, "--overwrite").code == 0
    import lance

    assert lance.dataset(str(out)).count_rows() == 24
    refused = run_cli(*words[:-1], tmp_path / "none" / "f.lance")
    assert (refused.code, f"the folder {tmp_path / 'none'} does not exist" in refused.err) == (2, True)


def test_a_faiss_index_of_unit_rows_compares_by_inner_products(road: Road, run_cli: Run, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss", reason="needs the scale extra")
    words = (road.images, "--arch", RESNET, "--weights", road.weights, "--size", 32)
    content = embedded(run_cli, tmp_path / "f.faiss", *words, "--l2")
    assert content["paths"] == str(tmp_path / "f.paths.txt")
    assert (tmp_path / "f.paths.txt").read_text().splitlines() == [str(path) for path in sorted(road.images.iterdir())]
    assert faiss.read_index(str(tmp_path / "f.faiss")).metric_type == faiss.METRIC_INNER_PRODUCT
    embedded(run_cli, tmp_path / "g.faiss", *words)
    assert faiss.read_index(str(tmp_path / "g.faiss")).metric_type == faiss.METRIC_L2
