"""smn push: an adapter with its model card on the Hugging Face hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smn_cli.errors import UsageError
from smn_cli.terminal.options import JsonOption

if TYPE_CHECKING:
    from smn_cli.schemas.hub import PushJson

REPORT = "report.html"


def push(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Adapter file.")],
    repository: Annotated[str, typer.Argument(metavar="USER/NAME", help="Repository on the hub; made if need be.")],
    evaluation: Annotated[
        Path | None, typer.Option("--eval", metavar="JSON", help="Scores for the card, from smn eval --json.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="HTML",
            help="A run's report.html to send along; it shows small images, their names and the command.",
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Only you may see the repository.")] = False,
    json: JsonOption = None,
) -> None:
    """Send an adapter and its model card to the Hugging Face hub, in one commit.

    Examples:
        smn push adapter.safetensors USER/NAME --eval eval.json
        smn push adapter.safetensors USER/NAME --report run/report.html --private
    """
    from smn_cli.adapters.container import read_bytes
    from smn_cli.adapters.stored import load_stored
    from smn_cli.console import Output, size
    from smn_cli.hub import ADAPTER_FILE, parse_address, send
    from smn_cli.publishing.adapter_card import adapter_card, read_evaluation
    from smn_cli.publishing.place import PAGE

    output = Output(json)
    target = parse_address(repository)
    if target.file != ADAPTER_FILE or target.revision is not None:
        raise UsageError(f"{repository}: expected USER/NAME, a repository without file or revision")
    adapter = load_stored(file)
    card = adapter_card(adapter, target.repository, None if evaluation is None else read_evaluation(evaluation))
    files = {ADAPTER_FILE: read_bytes(file), PAGE: card.encode()}
    if report is not None:
        if report.suffix != ".html" or not report.is_file():
            raise UsageError(f"--report {report}: expected the report.html of a run")
        files[REPORT] = report.read_bytes()
    if not adapter.header.licence:
        output.talk("the adapter says no licence: smn pack --license NAME puts one in")
    commit = send(target.repository, files, message=f"Adapter for {adapter.made_for}", is_private=private)
    output.result(f"{target.repository}: " + ", ".join(f"{name} ({size(len(data))})" for name, data in files.items()))
    output.result(f"use it as hf://{target.repository}, as it is now: {commit}")
    content: PushJson = {
        "schema": "smn.push/1",
        "repository": target.repository,
        "commit": commit,
        "files": {name: len(data) for name, data in files.items()},
        "adapted_digest": adapter.header.adapted_digest,
    }
    output.json(content)
