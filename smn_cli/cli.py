"""The Typer app, and the single place where errors become one line and an exit code."""

import errno
import platform
import shlex
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import typer

import smn_cli
from smn_cli.commands.adapt import adapt
from smn_cli.commands.apply import apply
from smn_cli.commands.cascade import cascade
from smn_cli.commands.data import data
from smn_cli.commands.demo import demo
from smn_cli.commands.diff import diff
from smn_cli.commands.embed import embed
from smn_cli.commands.eval import evaluate
from smn_cli.commands.export import export
from smn_cli.commands.inspect import inspect
from smn_cli.commands.merge import merge
from smn_cli.commands.pack import pack
from smn_cli.commands.plan import plan
from smn_cli.commands.pull import pull
from smn_cli.commands.push import push
from smn_cli.commands.verify import verify
from smn_cli.errors import SmnError, printable
from smn_cli.process import Typed, end_streams, settle_process
from smn_cli.terminal.arch_names import complete_arch
from smn_cli.terminal.flags import in_flags
from smn_cli.terminal.given_settings import Command, settings_for
from smn_cli.terminal.help_page import StartPage

# Typer vendors click since 0.26, so its usage error is reached through the class that both have
_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="smn",
    cls=StartPage,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text, see HelpPage
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"smn {smn_cli.__version__}")
        raise typer.Exit


@app.callback()
def _smn(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Adapt a pretrained image backbone to unlabeled images; ship a small, exact mask file.

    Exit codes: 0 done, 1 unexpected fault, 2 wrong usage, 3 a gate failed, 4 adapter and base do not match,
    5 bad or missing data, 6 unreadable or damaged file, 130 interrupted (state saved).

    Every option may also stand in smn.toml, or in the environment: SMN_ADAPT_STEPS=400 is --steps of smn adapt.
    """


_COMMANDS: dict[str, Callable[..., None]] = {
    "adapt": adapt,
    "plan": plan,
    "eval": evaluate,
    "embed": embed,
    "pack": pack,
    "apply": apply,
    "export": export,
    "inspect": inspect,
    "verify": verify,
    "diff": diff,
    "merge": merge,
    "push": push,
    "pull": pull,
    "cascade": cascade,
    "data": data,
    "demo": demo,
}
_IN_SHORT = {
    "adapt": "Learn a mask from images, without labels",
    "plan": "Say what smn adapt would do, and what it takes",
    "eval": "Score base and adapted: better, same or worse",
    "embed": "Write features of images for other tools",
    "pack": "Pack a run into one small adapter file",
    "apply": "Rebuild the adapted network as a checkpoint",
    "export": "Write base and adapters for ONNX Runtime",
    "inspect": "Show what an adapter file holds",
    "verify": "Prove that adapter and base belong together",
    "diff": "Compare two adapters, layer by layer",
    "merge": "Make one adapter of several",
    "push": "Send an adapter to the Hugging Face hub",
    "pull": "Fetch an adapter from the Hugging Face hub",
    "cascade": "Experimental: an expert mask for each cluster",
    "data": "Write a known data set as class folders",
    "demo": "Go the whole road offline, in minutes",
}
"""For lists of all commands, which would cut longer texts."""
for _name, _command in _COMMANDS.items():
    app.command(_name, cls=Command, short_help=_IN_SHORT[_name])(_command)


def main(arguments: list[str] | None = None) -> None:
    """Run smn and exit with the code of the contract."""
    words = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    settle_process()
    Typed.command = shlex.join([_program(), *words])
    try:
        if "--install-completion" in words:
            complete_arch("")  # loads timm for seconds the first time, which nobody expects of a key
        code = _run(words)
        sys.stdout.flush()
    except SmnError as error:
        code = _fail(in_flags(str(error), _parameter_names()), error.exit_code, words)
    except _USAGE_ERROR as error:
        code = _fail(f"{error.format_message().rstrip('.')}. See smn --help.", 2, words)
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted; nothing more was written", 130, words)
    except OSError as error:
        code = 0 if _is_unread(error) else _fail(_explained(error), 1, words)
    except Exception as error:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            raise SystemExit(_fail("out of memory: use smaller images (--size) or batches", 1, words)) from None
        code = _fail(f"unexpected fault, {type(error).__name__}: {error} (smn --debug shows where)", 1, words)
        _say(f"smn: this is a mistake in smn: please report it, with the command and {_versions()}")
    finally:
        end_streams()
    raise SystemExit(code or 0)


def _run(words: list[str]) -> int:
    """The app's exit code.

    Raises:
        OSError: a pipe is broken, for which Typer ends the process without a word, be it stdout or one of some work.
    """
    names = {name: frozenset(signature(command).parameters) for name, command in _COMMANDS.items()}
    streams = sys.stdout, sys.stderr
    try:
        return app(words, prog_name=_program(), standalone_mode=False, **settings_for(names)) or 0
    except SystemExit as ended:
        sys.stdout, sys.stderr = streams  # in whose place Typer puts some that swallow errors
        if isinstance(ended.__context__, OSError):
            raise ended.__context__ from None
        raise


def _program() -> str:
    """The command that was typed: help and completion of the shell name it."""
    return "smn-cli" if Path(sys.argv[0]).stem == "smn-cli" else "smn"


def _parameter_names() -> frozenset[str]:
    return frozenset(name for command in _COMMANDS.values() for name in signature(command).parameters)


def _fail(message: str, code: int, words: list[str]) -> int:
    if "--debug" in words:
        _say(traceback.format_exc().rstrip())
    line = f"smn: {printable(' '.join(message.split()))}"
    if sys.stderr.isatty():  # one line elsewhere; here it breaks between words, as all else does
        width = shutil.get_terminal_size().columns
        line = textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
    _say(line)
    return code


def _say(line: str) -> None:
    with suppress(OSError):  # nobody reads it
        sys.stderr.write(f"{line}\n")


def _is_unread(error: OSError) -> bool:
    """Whether it is stdout whose reader has gone, as `head` does, and not a pipe of some work."""
    if not isinstance(error, BrokenPipeError):
        return False
    try:
        sys.stdout.write("\n")  # of a long text that could not be written nothing may be left to be flushed
        sys.stdout.flush()
    except OSError as still:
        return isinstance(still, BrokenPipeError)
    return False


def _explained(error: OSError) -> str:
    """What the system would not do, with which file, and what helps."""
    try:
        Path.cwd()
    except OSError:
        return "the working directory is no longer there: change to another one"
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if errno.errorcode.get(error.errno or 0) in ("ENOSPC", "EDQUOT", "EFBIG"):
        what += "; make room and run the command again (what a run has saved is whole: smn adapt --resume)"
    return f"cannot read or write {what}"


def _versions() -> str:
    """Of what smn runs on, as far as it is installed."""
    found = [f"smn {smn_cli.__version__}", f"Python {platform.python_version()}"]
    for name in ("torch", "timm"):
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join([*found, platform.platform(terse=True)])
