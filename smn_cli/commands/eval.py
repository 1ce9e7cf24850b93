"""smn eval: base and adapted features on labeled folders, with gates for CI."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from smn_cli.config.eval_options import EvalOptions
from smn_cli.errors import GateError, UsageError
from smn_cli.terminal.cascades import report_rows
from smn_cli.terminal.low_shot import check_low_shot_options, parse_fractions, report_low_shot
from smn_cli.terminal.networks import check_choice, open_networks
from smn_cli.terminal.option_parameters import takes_options
from smn_cli.terminal.options import (
    DeviceOption,
    JsonOption,
    PrecisionOption,
    RunOption,
    SizeOption,
    WeightsOption,
    WorkersOption,
)
from smn_cli.terminal.tables import report_controls, report_scores

if TYPE_CHECKING:
    from smn_cli.backbones.loading import Backbone
    from smn_cli.cascade.cascade import Cascade
    from smn_cli.console import Output
    from smn_cli.data.labels.eval_split import LabeledSplit
    from smn_cli.evaluation.compare import Comparison, ScoringProtocol
    from smn_cli.evaluation.gates import Gate, GateResult
    from smn_cli.evaluation.low_shot import LabelSubsets, LowShotRow
    from smn_cli.features.embed import Embedding
    from smn_cli.schemas.scores import AdapterScoresJson, ComparisonJson, EvalDataJson, EvalJson, EvalScoresJson
    from smn_cli.terminal.networks import Networks


@takes_options
def evaluate(
    *,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="train/ and test/ (or val/), or class folders alone.")],
    adapter: Annotated[
        list[Path] | None,
        typer.Option(
            "--adapter",
            metavar="FILE",
            help="Adapter or cascade. May repeat; gates are about the first.",
            rich_help_panel="Network",
        ),
    ] = None,
    run: RunOption = None,
    arch: Annotated[
        str | None, typer.Option("--arch", help="timm model, to score a base alone.", rich_help_panel="Network")
    ] = None,
    weights: WeightsOption = None,
    size: SizeOption = None,
    options: EvalOptions,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
    workers: WorkersOption = None,
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache", help="Embed every image, though features may be in the cache.", rich_help_panel="Run"
        ),
    ] = False,
    json: JsonOption = None,
) -> None:
    """Score base and adapted features on labeled folders, and say better, same or worse.

    Under torchrun processes share the images, and the figures are those of a single process.

    Examples:
        smn eval ./labeled --adapter adapter.safetensors --knn --linear
        smn eval ./labeled --run run --min-gain knn.top1=0.0 --json eval.json
    """
    gates = _parse_gates(options)
    check_choice("smn eval", adapter or [], run, arch)
    check_low_shot_options(options)
    fractions = parse_fractions(options.label_fraction) if options.label_fraction is not None else []
    from smn_cli.console import Output
    from smn_cli.data.labels.eval_split import load_labeled_split
    from smn_cli.distributed import device_of_process, team_of
    from smn_cli.features.cache import FeatureCache
    from smn_cli.features.embed import Embedding
    from smn_cli.terminal.options import resolve_device, resolve_precision, resolve_workers

    device = device_of_process(resolve_device(device))
    precision = resolve_precision(precision, device)
    with team_of(device) as team:
        output = Output(json, is_silent=not team.is_first)
        split = team.from_first(
            lambda: load_labeled_split(data, seed=options.seed, max_train=options.max_train, max_test=options.max_test)
        )
        networks = open_networks(adapter or [], run, arch, weights, size)
        output.talk(f"{_in_words(split)}, {networks.preprocessing.size} px")
        if networks.cascade is not None and fractions:
            raise UsageError("--label-fraction does not take a cascade: give adapters")
        cache = None if no_cache else FeatureCache()
        embedding = Embedding(networks.preprocessing, precision, resolve_workers(workers), cache, team)
        scored = _score(output, networks, split, embedding, fractions, options, device)
    if scored is None:
        return  # the first process goes on alone
    comparisons, rows = scored
    results = _check(gates, next(iter(comparisons.values())), rows)
    _report(output, comparisons, rows, results)
    _draw(rows, options, networks, _facts(data, split))
    content: EvalJson = {
        "schema": "smn.eval/1",
        "data": _describe(data, split),
        "arch": networks.backbone.arch,
        "preprocessing": networks.preprocessing.to_json(),
        "precision": precision,
        **_to_json(comparisons, rows),
        "gates": [result.to_json() for result in results],
        "passed": all(result.passed for result in results),
    }
    output.json(content)
    _raise_if_failed(results)


def _parse_gates(options: EvalOptions) -> "list[Gate]":
    from smn_cli.evaluation.gates import parse_gate

    gates = [parse_gate(text, on_gain=False) for text in options.fail_under]
    return gates + [parse_gate(text, on_gain=True) for text in options.min_gain]


def _draw_subsets(split: "LabeledSplit", fractions: list[float], options: EvalOptions) -> "list[LabelSubsets]":
    from smn_cli.data.labels.label_subsets import draw_subsets

    balanced = not options.unbalanced
    return draw_subsets(
        split.train_labels, fractions, num_repeats=options.repeats, seed=options.seed, balanced=balanced
    )


def _score(
    output: "Output",
    networks: "Networks",
    split: "LabeledSplit",
    embedding: "Embedding",
    fractions: list[float],
    options: EvalOptions,
    device: str,
) -> "tuple[dict[str, Comparison], list[LowShotRow]] | None":
    """Comparisons by name (the base alone has none), and the table of few labels if it is asked for.

    None in other processes of a team than the first.
    """
    from smn_cli.distributed import told_of_the_others
    from smn_cli.scoring import help_to_score

    protocol = _protocol(options)
    with told_of_the_others(embedding.team):
        if not embedding.team.is_first:
            asked = networks.cascade or networks.changes
            help_to_score(
                networks.backbone, asked, split, embedding, protocol, controls=options.controls, device=device
            )
            return None
        if networks.cascade is not None:
            cascade = _score_cascade(output, networks.backbone, networks.cascade, split, embedding, protocol, device)
            return {"cascade": cascade}, []
        return _score_adapters(output, networks, split, embedding, protocol, fractions, options, device)


def _protocol(options: EvalOptions) -> "ScoringProtocol":
    from smn_cli.evaluation.compare import ScoringProtocol

    is_knn = options.knn or not options.linear
    return ScoringProtocol(knn=is_knn, linear=options.linear, ks=options.k or ScoringProtocol.ks, c=options.linear_c)


def _score_adapters(
    output: "Output",
    networks: "Networks",
    split: "LabeledSplit",
    embedding: "Embedding",
    protocol: "ScoringProtocol",
    fractions: list[float],
    options: EvalOptions,
    device: str,
) -> "tuple[dict[str, Comparison], list[LowShotRow]]":
    from smn_cli.scoring import compare_networks

    num_images = (len(split.train_paths) + len(split.test_paths)) * (1 + len(networks.changes))
    with output.progress("embedding", num_images) as tick:
        scored = compare_networks(
            networks.backbone,
            networks.changes,
            split,
            embedding,
            protocol,
            subsets=_draw_subsets(split, fractions, options),
            controls=options.controls,
            device=device,
            progress=tick,
        )
    _tell_of_cache(output, embedding)
    return scored


def _score_cascade(
    output: "Output",
    backbone: "Backbone",
    cascade: "Cascade",
    split: "LabeledSplit",
    embedding: "Embedding",
    protocol: "ScoringProtocol",
    device: str,
) -> "Comparison":
    from smn_cli.scoring import evaluate_cascade

    num_images = len(split.train_paths) + len(split.test_paths)
    with output.progress("embedding", num_images * (2 + len(cascade.experts))) as tick:
        comparison = evaluate_cascade(backbone, cascade, split, embedding, protocol, device=device, progress=tick)
    _tell_of_cache(output, embedding)
    report_rows(output, comparison.rows)
    return comparison


def _tell_of_cache(output: "Output", embedding: "Embedding") -> None:
    cache = embedding.cache
    if cache is not None and cache.num_found:
        output.talk(f"features of {cache.num_found} images were in the cache; --no-cache embeds them again")


def _check(gates: "list[Gate]", judged: "Comparison", rows: "list[LowShotRow]") -> "list[GateResult]":
    """Hold the gates against the first adapted network, or against a base alone."""
    from smn_cli.evaluation.controls import ControlledComparison
    from smn_cli.evaluation.gates import check_gates
    from smn_cli.evaluation.low_shot import at_fraction

    metrics = dict((judged.adapted or judged.base).metrics)
    gains = {name: gain.value for name, gain in judged.gains.items()}
    if isinstance(judged, ControlledComparison):
        metrics |= judged.metrics
        gains |= judged.control_gains
    for row in rows:
        few = next(iter(row.adapted.values()), row.base)
        metrics |= {at_fraction(name, row.fraction): value for name, value in few.metrics.items()}
        few_gains = next(iter(row.gains.values()), {})
        gains |= {at_fraction(name, row.fraction): gain.value for name, gain in few_gains.items()}
    return check_gates(gates, metrics, gains)


def _report(
    output: "Output", comparisons: "dict[str, Comparison]", rows: "list[LowShotRow]", results: "list[GateResult]"
) -> None:
    for number, (name, comparison) in enumerate(comparisons.items()):
        report_scores(output, comparison, [] if number else results, name=name if len(comparisons) > 1 else None)
        report_controls(output, comparison)
    if rows:
        report_low_shot(output, rows)


def _in_words(split: "LabeledSplit") -> str:
    return (
        f"{len(split.train_paths)} training and {len(split.test_paths)} test images, {len(split.classes)} classes "
        f"({split.origin})"
    )


def _facts(data: Path, split: "LabeledSplit") -> dict[str, Any]:
    return {
        "labels": f"{data}, {split.origin}: {len(split.train_paths)} images of {len(split.classes)} classes",
        "test images": len(split.test_paths),
    }


def _draw(rows: "list[LowShotRow]", options: EvalOptions, networks: "Networks", facts: dict[str, Any]) -> None:
    from smn_cli.reports.low_shot import write_low_shot_page, write_plot

    if options.plot is not None:
        write_plot(rows, options.plot)
    if options.report is not None:
        classes = "as chance has them" if options.unbalanced else "even"
        draws = f"{options.repeats}, seed {options.seed}, classes {classes}"
        facts = {**facts, "draws": draws, "image side": f"{networks.preprocessing.size} px"}
        write_low_shot_page(rows, options.report, arch=networks.backbone.arch, facts=facts)


def _to_json(comparisons: "dict[str, Comparison]", rows: "list[LowShotRow]") -> "EvalScoresJson":
    content = cast("EvalScoresJson", next(iter(comparisons.values())).to_json())
    if len(comparisons) > 1:
        content["adapters"] = [
            cast("AdapterScoresJson", {"name": name, **comparison.adapted.groups, **_beyond_base(comparison.to_json())})
            for name, comparison in comparisons.items()
            if comparison.adapted is not None
        ]
    if rows:
        content["low_shot"] = [row.to_json() for row in rows]
    return content


def _beyond_base(told: "ComparisonJson") -> Any:
    """What a comparison says beside the scores of its two networks."""
    return {name: value for name, value in told.items() if name not in ("base", "adapted")}


def _raise_if_failed(results: "list[GateResult]") -> None:
    failed = [result for result in results if not result.passed]
    if failed:
        found = "was not computed" if failed[0].value is None else f"is {failed[0].value:.4f}"
        raise GateError(f"{len(failed)} of {len(results)} gates failed, first {failed[0].gate}: it {found}")


def _describe(data: Path, split: "LabeledSplit") -> "EvalDataJson":
    return {
        "path": str(data),
        "train": len(split.train_paths),
        "test": len(split.test_paths),
        "classes": split.classes,
        "split": split.origin,
    }
