"""The tables of sizes and of scores that several commands print."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smn_cli.adapters.sizes import SizeReport
    from smn_cli.console import Output
    from smn_cli.evaluation.compare import Comparison
    from smn_cli.evaluation.gates import GateResult
    from smn_cli.judging.judges import Judgement

_READOUT_WORDS = {"centred": "centred", "whitened": "partly whitened", "stages": "of its own stages"}
_GAIN_COLUMNS = ("adapted", "gain", "95 % interval", "")
_VERDICT_WORDS = {
    "better": "better than its base",
    "same": "not distinguishable from its base",
    "worse": "worse than its base: do not ship it",
}


def report_sizes(output: "Output", path: Path, sizes: "SizeReport") -> None:
    """Print bytes by part and the ratios of the whole file."""
    lzma_name = "backbone after lzma" + (" (from a sample)" if sizes.lzma_is_estimate else "")
    rows = [
        ("backbone, float32", sizes.fp32_bytes),
        (lzma_name, sizes.lzma_bytes),
        ("mask at 1 bit a weight", sizes.bits_bytes),
        (f"mask, codec {sizes.codec}", sizes.mask_bytes),
        ("normalisation statistics", sizes.norm_stats_bytes),
        *([("classifier", sizes.head_bytes)] if sizes.head_bytes else []),
        *([("readout", sizes.readout_bytes)] if sizes.readout_bytes else []),
        ("header, digests, checksum", sizes.metadata_bytes),
        ("whole file", sizes.file_bytes),
    ]
    output.table(
        f"{path}, density {sizes.density:.4f}",
        ("part", "bytes", "float32 / part"),
        [(name, f"{count:,}", f"{sizes.fp32_bytes / count:,.1f}x" if count else "-") for name, count in rows],
    )
    output.result(
        f"{path} is {sizes.ratio:.0f}x smaller than the float32 backbone, "
        f"{sizes.lzma_ratio:.0f}x smaller than the backbone after lzma"
    )


def report_scores(
    output: "Output", comparison: "Comparison", gates: "list[GateResult]", *, name: str | None = None
) -> None:
    """Print every metric for base and adapted, the gain with its interval, the gates and the verdict.

    `name` is that of the adapted network, where there are several.
    """
    base, adapted = comparison.base.metrics, comparison.adapted.metrics if comparison.adapted else {}
    rows = [[metric, *_cells(metric, value, comparison)] for metric, value in base.items()]
    rows += [[metric, "-", f"{value:.4f}", "", "", ""] for metric, value in adapted.items() if metric not in base]
    columns = ["metric", "base", *_GAIN_COLUMNS[: 4 * bool(adapted)]]
    output.table("top-1 accuracy" + (f", {name}" if name else ""), columns, rows)
    for gate in gates:
        found = "not computed" if gate.value is None else f"{gate.value:.4f}"
        output.result(f"gate {gate.gate}: {found}, {'passed' if gate.passed else 'FAILED'}")
    if comparison.verdict is not None:
        output.result(f"verdict: {name or 'the adapted network'} is {_VERDICT_WORDS[comparison.verdict]}")


def report_controls(output: "Output", comparison: "Comparison") -> None:
    """Print what needs no training, and say it when the untouched base at its own size is better."""
    from smn_cli.evaluation.controls import ControlledComparison

    if not isinstance(comparison, ControlledComparison):
        return
    rows = []
    for kind, each in comparison.readouts.items():
        for metric, value in each.base.metrics.items():
            rows.append([f"{metric} {_READOUT_WORDS[kind]}", *_cells(metric, value, each)])
    native = comparison.native
    if native is not None:
        for metric, value in native.comparison.base.metrics.items():
            rows.append([f"{metric} base at {native.size} px", *_cells(metric, value, native.comparison)])
    if rows:
        columns = ["without training", "base", *_GAIN_COLUMNS[: 4 * (comparison.adapted is not None)]]
        output.table("controls", columns, rows)
    if native is not None:
        cost = ", ".join(f"{milliseconds:.1f} ms at {size} px" for size, milliseconds in native.milliseconds.items())
        output.result(f"an image takes {cost}, on this machine")
        if native.is_better:
            output.result(
                f"the untouched base at {native.size} px is better than the adapted network at its own size: where "
                "that time can be spent, use the base at that size, or adapt it there"
            )


def _cells(metric: str, base: float, comparison: "Comparison") -> list[str]:
    if comparison.adapted is None or metric not in comparison.gains:
        return [f"{base:.4f}"] + ["-", "", "", ""] * (comparison.adapted is not None)
    gain = comparison.gains[metric]
    interval = f"{gain.low:+.4f} .. {gain.high:+.4f}"
    adapted = f"{comparison.adapted.metrics[metric]:.4f}"
    return [f"{base:.4f}", adapted, f"{gain.value:+.4f}", interval, gain.verdict]


def report_judgement(output: "Output", step: int, judgement: "Judgement", *, rival: str = "base") -> None:
    """Say in one line what the judge of a run found, against the network that it started from."""
    gain = judgement.difference
    words = {"better": f"better than the {rival}", "worse": f"worse than the {rival}"}
    verdict = words.get(gain.verdict, f"not told apart from the {rival}")
    value, low, high = (f"{number:+.3f}".replace("0.", ".", 1) for number in (gain.value, gain.low, gain.high))
    doubt = "" if judgement.is_sound or gain.verdict != "better" else ", but another sign speaks against it: not kept"
    output.talk(f"step {step}: {verdict}: {value} ({low} to {high}){doubt}")
