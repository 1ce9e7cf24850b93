"""What `smn cascade` and `smn eval` say of a cascade."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from smn_cli.cascade.run import ExpertRecord
    from smn_cli.console import Output
    from smn_cli.evaluation.compare import Scores
    from smn_cli.schemas.runs import CascadeSizesJson


@dataclass(frozen=True)
class CascadeSizes:
    """Bytes of a cascade, and what they are held against.

    Attributes:
        parts: of the file by part; "file" is their sum.
        dispatcher_file: the dispatcher's own adapter file.
        separate_files: dispatcher and experts as adapter files of their own, without router and combination.
        combinations: what each kind of combination would take in this file's place.
    """

    parts: Mapping[str, int]
    dispatcher_file: int
    separate_files: int
    combinations: Mapping[str, int]

    @property
    def ratio(self) -> float:
        """The whole file over the dispatcher's own."""
        return self.parts["file"] / self.dispatcher_file

    def to_json(self) -> "CascadeSizesJson":
        """All numbers."""
        return {
            "bytes": dict(self.parts),
            "dispatcher_file_bytes": self.dispatcher_file,
            "separate_files_bytes": self.separate_files,
            "ratio": self.ratio,
            "combination_bytes": dict(self.combinations),
        }


def report_cascade(output: "Output", path: "Path", sizes: CascadeSizes, kind: str) -> None:
    """Print bytes by part, against the dispatcher's own file, and what other combinations would take."""
    own = sizes.dispatcher_file
    num_adapters = 1 + sum(name.startswith("expert-") for name in sizes.parts)
    rows = [(name if name != "file" else "whole file", count) for name, count in sizes.parts.items()]
    rows += [("the dispatcher's own file", own), (f"{num_adapters} separate files", sizes.separate_files)]
    whole = sizes.parts["file"] - sizes.parts["combination"]
    rows += [(f"whole file with --combine {name}", whole + count) for name, count in sizes.combinations.items()]
    output.table(
        f"{path}, combination {kind}",
        ("part", "bytes", "part / dispatcher's file"),
        [(name, f"{count:,}", f"{count / own:.2f}x") for name, count in rows],
    )
    output.result(
        f"{path} takes {sizes.ratio:.2f} times the dispatcher's own file, "
        f"{num_adapters} separate files would take {sizes.separate_files / own:.2f} times"
    )


def describe_experts(records: "Sequence[ExpertRecord]") -> list[str]:
    """A line an expert: what became of it."""
    lines = []
    for number, record in enumerate(records):
        if record.kept_step:
            judged = f", {record.judge_gain:+.4f} against the dispatcher to its judge" if record.judge_gain else ""
            what = f"kept step {record.kept_step} of {record.num_steps}{judged}"
        elif record.num_steps:
            what = f"nothing in {record.num_steps} steps beat the dispatcher, whose mask serves"
        else:
            what = "not trained; the dispatcher's mask serves"
        lines.append(f"expert {number}, {record.num_images} images: {what}")
    return lines


def report_rows(output: "Output", rows: "Mapping[str, Scores]") -> None:
    """Print a cascade's parts and ways side by side."""
    names = list(next(iter(rows.values())).metrics)
    table = [
        (row.replace("_", " "), *(f"{scores.metrics[name]:.4f}" for name in names)) for row, scores in rows.items()
    ]
    output.table("parts and ways of the cascade, top-1 accuracy", ("features", *names), table)
