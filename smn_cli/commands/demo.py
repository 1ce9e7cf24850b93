"""smn demo: the whole road on real weights and real images, offline."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smn_cli.errors import SmnError
from smn_cli.terminal.conclusion import conclude_run
from smn_cli.terminal.options import JsonOption
from smn_cli.terminal.tables import report_controls, report_scores, report_sizes

if TYPE_CHECKING:
    from smn_cli.adapters.adapter import Adapter
    from smn_cli.backbones.loading import Backbone
    from smn_cli.console import Output
    from smn_cli.evaluation.controls import ControlledComparison
    from smn_cli.schemas.runs import DemoJson, DemoProofJson

DEMO_STEPS = 160
SIZE = 64
"""In pixels: the digits have eight, and a size of its own shows what `smn eval` says of it."""


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for everything the demo makes.")] = Path(
        "smn-demo"
    ),
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps.")] = DEMO_STEPS,
    seed: Annotated[int, typer.Option("--seed", help="Two demos with one seed are equal.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier demo made.")] = False,
    json: JsonOption = None,
) -> None:
    """Adapt, pack, apply, prove and score on real weights and images, in minutes on a laptop CPU.

    Examples:
        smn demo
        smn demo --out demo --steps 40 --overwrite
    """
    from smn_cli.console import Output, duration, say_at_once

    say_at_once("smn demo: loading torch")
    from smn_cli.backbones.loading import load_backbone
    from smn_cli.backbones.packaged import LITE0_ARCH, lite0_weights
    from smn_cli.datasets.digits import DESCRIPTION, write_digits

    started = time.monotonic()
    output = Output(json)
    weights = lite0_weights()
    images, run = out / "images", out / "run"
    _check_free(out, overwrite)
    output.talk(f"1. images: {DESCRIPTION}")
    write_digits(images)
    output.talk(f"2. adapt {LITE0_ARCH} (ImageNet weights) to {images / 'train'}; its labels are not looked at")
    _adapt(output, images / "train", run, weights, steps, seed)
    output.talk("3. pack")
    adapter_path = out / "adapter.safetensors"
    adapter = _pack(output, run, weights, adapter_path)
    output.talk("4. apply, and prove that the rebuilt network is the adapted one")
    checkpoint = out / "adapted.safetensors"
    proof = _apply_and_prove(output, adapter_path, weights, checkpoint)
    output.talk("5. score base and adapted on the test images")
    comparison = _score(output, load_backbone(LITE0_ARCH, weights), adapter, images)
    seconds = time.monotonic() - started
    output.talk(f"done in {duration(seconds)}; everything is in {out}")
    content: DemoJson = {
        "schema": "smn.demo/1",
        "adapter": str(adapter_path),
        "adapter_bytes": adapter_path.stat().st_size,
        "checkpoint": str(checkpoint),
        "density": adapter.header.density,
        **proof,
        **comparison.to_json(),
        "seconds": round(seconds, 1),
    }
    output.json(content)


MADE = ("images", "run", "adapter.safetensors", "adapted.safetensors")
"""Everything a demo makes, and all that --overwrite removes."""


def _check_free(out: Path, overwrite: bool) -> None:
    import shutil

    from smn_cli.errors import UsageError
    from smn_cli.runs.run_folder import is_run

    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: expected a folder to make")
    if out.exists() and any(out.iterdir()):
        if not is_run(out / "run"):
            raise UsageError(f"--out {out} exists and is not an earlier demo: choose another folder")
        if not overwrite:
            raise UsageError(f"--out {out} exists: --overwrite replaces an earlier demo")
        for name in MADE:
            path = out / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)


def _adapt(output: "Output", images: Path, run: Path, weights: Path, steps: int, seed: int) -> None:
    from smn_cli.backbones.loading import load_backbone
    from smn_cli.backbones.packaged import LITE0_ARCH
    from smn_cli.config.options import AdaptOptions
    from smn_cli.data.images.find import find_images
    from smn_cli.data.images.validate import check_images
    from smn_cli.training.run_context import Execution, RunRequest
    from smn_cli.training.session import Session

    checked = check_images(find_images([images]), max_bad=0)
    started = time.monotonic()
    request = RunRequest(run, checked, AdaptOptions(steps=steps, seed=seed, size=SIZE), str(weights))
    execution = Execution(on_teacher_embedding=output.counter("frozen network looks at images"))
    session = Session.start(request, load_backbone(LITE0_ARCH, weights), execution=execution)
    with output.progress("adapting", steps) as tick:
        for report in session.steps():
            tick(report.step, f"loss {report.loss:.3f} (ln K {report.log_k:.3f}) density {report.density:.4f}")
    conclude_run(output, session, time.monotonic() - started)


def _pack(output: "Output", run: Path, weights: Path, path: Path) -> "Adapter":
    from smn_cli.adapters.sizes import measure_sizes
    from smn_cli.backbones.loading import load_backbone
    from smn_cli.backbones.packaged import LITE0_ARCH
    from smn_cli.runs.pack import pack_run
    from smn_cli.runs.run_folder import RunFolder

    backbone = load_backbone(LITE0_ARCH, weights)
    adapter = pack_run(RunFolder.open(run), backbone)
    adapter.save(path)
    report_sizes(output, path, measure_sizes(adapter, backbone.model.state_dict()))
    return adapter


def _apply_and_prove(output: "Output", adapter_path: Path, weights: Path, checkpoint: Path) -> "DemoProofJson":
    """Rebuild from the files alone, load with plain timm, compare outputs with the live adapted network."""
    from smn_cli.api import load_adapter
    from smn_cli.backbones.loading import load_backbone
    from smn_cli.backbones.packaged import LITE0_ARCH
    from smn_cli.rebuild import check_rebuilt_outputs, rebuild, save_checkpoint

    adapter = load_adapter(adapter_path)
    network = rebuild(adapter, load_backbone(LITE0_ARCH, weights))
    save_checkpoint(network, checkpoint)
    live = adapter.apply(load_backbone(LITE0_ARCH, weights).model)
    if not check_rebuilt_outputs(live, LITE0_ARCH, checkpoint, network.num_classes):
        raise SmnError(f"{checkpoint}: plain timm computes other outputs than the live network; please report this")
    output.result(
        f"{checkpoint}: state dict as recorded ({adapter.header.adapted_digest[:12]}...), outputs of plain timm "
        "equal the live network bit for bit"
    )
    return {"digest": adapter.header.adapted_digest, "outputs_equal": True}


def _score(output: "Output", backbone: "Backbone", adapter: "Adapter", images: Path) -> "ControlledComparison":
    from smn_cli.data.labels.eval_split import load_labeled_split
    from smn_cli.evaluation.compare import ScoringProtocol
    from smn_cli.evaluation.controls import ControlledComparison
    from smn_cli.features.embed import Embedding
    from smn_cli.scoring import evaluate_networks

    split = load_labeled_split(images)
    num_images = 2 * (len(split.train_paths) + len(split.test_paths))
    with output.progress("embedding", num_images) as tick:
        comparison = evaluate_networks(
            backbone,
            adapter,
            split,
            Embedding(adapter.preprocessing),
            ScoringProtocol(linear=True),
            controls=True,
            progress=tick,
        )
    report_scores(output, comparison, [])
    report_controls(output, comparison)
    assert isinstance(comparison, ControlledComparison)  # which was asked for
    return comparison
