"""The tables of sizes and of scores that several commands print."""

from pathlib import Path
from typing import TYPE_CHECKING

from smn_cli.reports.score_rows import VERDICT_WORDS, control_rows, native_notes, score_columns, score_rows

if TYPE_CHECKING:
    from smn_cli.adapters.sizes import SizeReport
    from smn_cli.console import Output
    from smn_cli.evaluation.compare import Comparison
    from smn_cli.evaluation.gates import GateResult
    from smn_cli.judging.judges import Judgement


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
    title = "top-1 accuracy" + (f", {name}" if name else "")
    output.table(title, score_columns("metric", comparison), score_rows(comparison))
    for gate in gates:
        found = "not computed" if gate.value is None else f"{gate.value:.4f}"
        output.result(f"gate {gate.name}: {found}, {'passed' if gate.passed else 'FAILED'}")
    if comparison.verdict is not None:
        output.result(f"verdict: {name or 'the adapted network'} is {VERDICT_WORDS[comparison.verdict]}")


def report_controls(output: "Output", comparison: "Comparison") -> None:
    """Print what needs no training, and say it when the untouched base at its own size is better."""
    rows = control_rows(comparison)
    if rows:
        output.table("controls", score_columns("without training", comparison), rows)
    for note in native_notes(comparison):
        output.result(note)


def report_judgement(output: "Output", step: int, judgement: "Judgement", *, rival: str = "base") -> None:
    """Say in one line what the judge of a run found, against the network that it started from."""
    gain = judgement.difference
    words = {"better": f"better than the {rival}", "worse": f"worse than the {rival}"}
    verdict = words.get(gain.verdict, f"not told apart from the {rival}")
    value, low, high = (f"{number:+.3f}".replace("0.", ".", 1) for number in (gain.value, gain.low, gain.high))
    doubt = "" if judgement.is_sound or gain.verdict != "better" else ", but another sign speaks against it: not kept"
    output.talk(f"step {step}: {verdict}: {value} (95 %: {low} to {high}){doubt}")
