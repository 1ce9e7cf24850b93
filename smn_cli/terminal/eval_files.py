"""The files that `smn eval` writes beside its JSON: told early where they cannot be written, and written."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from smn_cli.atomic import may_be_written
from smn_cli.errors import UsageError

if TYPE_CHECKING:
    from smn_cli.config.eval_options import EvalOptions
    from smn_cli.console import Output
    from smn_cli.reports.evaluation import Evaluation

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
"""Names the file that GitHub shows at a job; what is there already stays."""

PLOT_SUFFIXES = (".png", ".svg")


def check_files(options: "EvalOptions") -> None:
    """Refuse files that cannot be written or would hold nothing.

    Raises:
        UsageError: it is so.
    """
    check_result_file("--report", options.report, (".html",))
    check_result_file("--summary", options.summary)
    check_result_file("--junit", options.junit)
    check_result_file("--plot", options.plot, PLOT_SUFFIXES)
    if options.junit is not None and not (options.fail_under or options.min_gain):
        raise UsageError(f"--junit {options.junit} has a test case a gate: add --fail-under or --min-gain")


def check_result_file(flag: str, path: Path | None, suffixes: tuple[str, ...] = ()) -> None:
    """Refuse a file's name, if there is one.

    Raises:
        UsageError: it has another ending than one of `suffixes`, or no place.
    """
    if path is None:
        return
    if suffixes and path.suffix.lower() not in suffixes:
        raise UsageError(f"{flag} {path}: expected a name ending in {' or '.join(suffixes)}")
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise UsageError(f"{flag} {path}: its folder does not exist, or it is a folder itself")
    if not may_be_written(path):
        raise UsageError(f"{flag} {path}: it may not be written to there; name another file")


def write_files(output: "Output", options: "EvalOptions", evaluation: "Evaluation") -> None:
    """Write summary, JUnit file, plot and page, each where it was asked for; the summary also where GitHub wants it.

    Raises:
        OSError: a file cannot be written, but for GitHub's, which is no reason to fail.
    """
    from smn_cli.atomic import write_result
    from smn_cli.reports.junit import junit_xml
    from smn_cli.reports.low_shot import write_plot
    from smn_cli.reports.summary import markdown_summary

    summary = markdown_summary(evaluation)
    _append_step_summary(output, summary)
    if options.summary is not None:
        write_result(options.summary, summary.encode())
    if options.junit is not None:
        write_result(options.junit, junit_xml(evaluation))
    if options.plot is not None:
        write_plot(evaluation.rows, options.plot)
    if options.report is not None:
        from smn_cli.reports.evaluation_page import evaluation_page

        write_result(options.report, evaluation_page(evaluation))


def _append_step_summary(output: "Output", summary: str) -> None:
    place = os.environ.get(STEP_SUMMARY)
    if not place:
        return
    try:
        with Path(place).open("a", encoding="utf-8", newline="\n") as file:
            file.write(f"\n{summary}")
    except OSError as error:
        output.talk(f"warning: {STEP_SUMMARY} {place} cannot be written ({error.strerror}): it has no summary")
