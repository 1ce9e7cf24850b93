"""What people see: talk and progress on stderr, results on stdout, JSON on request. The only user of rich."""

import json
import os
import sys
import textwrap
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from smn_cli.atomic import may_be_written, write_result
from smn_cli.errors import UsageError, printable
from smn_cli.process import lead_nowhere, stdout_is_closed

if TYPE_CHECKING:
    from smn_cli.schemas.commands import CommandJson

PLAIN_LINE_EVERY_S = 10.0
_SHORTEST_BAR = 12


class Ticker(Protocol):
    """Called with how much is done and a few words on how it goes."""

    def __call__(self, done: int, words: str = "") -> None: ...


class Output:
    """Where a command's words and results go.

    Args:
        json_target: None, a file's path, or "-" for stdout, which then holds nothing but the JSON.
        is_silent: say nothing at all, as those processes of a run do that are not its first.
    """

    def __init__(self, json_target: str | None = None, *, is_silent: bool = False) -> None:
        self.json_target = None if is_silent else json_target
        self._talk = _console(stderr=True, quiet=is_silent)
        self._results = self._talk if json_target == "-" else _console(stderr=False, quiet=is_silent)
        if json_target == "-" and stdout_is_closed():
            raise UsageError("--json -: stdout is closed; name a file")
        if json_target not in (None, "-"):
            path = Path(str(json_target)).absolute()
            if not path.parent.is_dir():
                raise UsageError(f"--json {json_target}: its folder does not exist")
            if path.is_dir():
                raise UsageError(f"--json {json_target} is a folder: expected a file name or '-'")
            if not may_be_written(path):
                raise UsageError(f"--json {json_target}: it may not be written to there; name another file or '-'")

    def talk(self, line: str) -> None:
        """A line for whoever watches."""
        self._line(self._talk, line)

    def result(self, line: str) -> None:
        """A line of the result."""
        self._line(self._results, line)

    @staticmethod
    def _line(console: Console, line: str) -> None:
        """Print a line; on a terminal it breaks between words, and what goes on is set in."""
        text = printable(line)
        if console.is_terminal:
            words = text.lstrip()
            start = " " * (len(text) - len(words))
            text = textwrap.fill(
                words,
                console.width,
                initial_indent=start,
                subsequent_indent=f"{start}  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        console.print(text, markup=False, soft_wrap=True)

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, texts: Collection[str] = ()
    ) -> None:
        """A result as a table; the first column is text, and those of `texts`, the others are numbers.

        On a narrow terminal the first column breaks, for numbers would lose their end.
        """
        table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for position, column in enumerate(columns):
            is_text = position == 0 or column in texts
            width = max(len(printable(row[position])) for row in [columns, *rows]) if position else None
            table.add_column(column, justify="left" if is_text else "right", no_wrap=position > 0, min_width=width)
        for row in rows:
            table.add_row(*map(printable, row))
        self._results.print(table)

    def json(self, content: "CommandJson") -> None:
        """Write the JSON if it was asked for."""
        text = json.dumps(content, indent=2)
        if self.json_target == "-":
            try:
                sys.stdout.write(text + "\n")
                sys.stdout.flush()
            except BrokenPipeError:
                lead_nowhere(sys.stdout)
        elif self.json_target is not None:
            write_result(Path(self.json_target), (text + "\n").encode())

    @contextmanager
    def progress(self, what: str, total: int, done: int = 0) -> Iterator[Ticker]:
        """A bar on a terminal, now and then a plain line elsewhere."""
        if self._talk.is_terminal:
            with self._bar(what, total, done) as tick:
                yield tick
        else:
            yield _plain_ticker(self, what, total, done)

    def counter(self, what: str) -> Callable[[int, int], None]:
        """A line now and then for work whose length is not known beforehand; called with (done, total)."""
        if self._talk.is_terminal:
            return self._live_counter(what)
        last = time.monotonic()

        def count(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= PLAIN_LINE_EVERY_S or done == total:
                last = time.monotonic()
                self.talk(f"{what} {done}/{total}")

        return count

    def _live_counter(self, what: str) -> Callable[[int, int], None]:
        """A bar that is there from the first call to the last."""
        bar: Progress | None = None

        def count(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                bar = Progress(*_columns(self._talk), console=self._talk)
                bar.add_task(what, total=total, words="")
                bar.start()
            bar.update(bar.task_ids[0], completed=done, total=total)
            if done >= total:
                bar.stop()
                bar = None

        return count

    @contextmanager
    def _bar(self, what: str, total: int, done: int) -> Iterator[Ticker]:
        with Progress(*_columns(self._talk), console=self._talk) as bar:
            task = bar.add_task(what, total=total, completed=done, words="")

            def tick(done: int, words: str = "") -> None:
                bar.update(task, completed=done, words=words)

            yield tick


def say_at_once(line: str) -> None:
    """A line before torch and timm are loaded, which takes seconds; by one process of a team alone."""
    if "torch" not in sys.modules and os.environ.get("RANK", "0") == "0":
        Output().talk(line)


def _columns(console: Console) -> tuple[ProgressColumn, ...]:
    """What it is, how far, since when and how long still; what else there is to say comes last, where a narrow
    terminal cuts it."""
    return (
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=24, table_column=Column(min_width=_SHORTEST_BAR)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TextColumn("left", table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        _WordsColumn(console),
    )


class _WordsColumn(ProgressColumn):
    """A task's words: as many of their parts, with commas between them, as a line of the terminal has room for."""

    def __init__(self, console: Console) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._console = console

    def render(self, task: Task) -> Text:
        """What Rich puts at the end of the bar's line."""
        shortest = f"{task.description} {'-' * _SHORTEST_BAR} {task.total:.0f}/{task.total:.0f} 0:00:00 left 0:00:00 "
        words = str(task.fields["words"])
        while len(shortest) + len(words) > self._console.width and words:
            words = words.rpartition(", ")[0]
        return Text(words)


class _LastingConsole(Console):
    """One that goes on where the reader of its stream has gone: what a command makes is worth more than its words."""

    def on_broken_pipe(self) -> None:
        """Say nothing more; Rich would end the process in the middle of its work, and close stdout whichever broke."""
        self.quiet = True
        lead_nowhere(self.file)


def _console(*, stderr: bool, quiet: bool) -> Console:
    console = _LastingConsole(stderr=stderr, highlight=False, soft_wrap=True, quiet=quiet)
    if console.is_terminal:
        console.soft_wrap = False  # lines break between words there
    else:
        console.width = 200  # a table in a file or a pipe is not to be cut
    return console


def _plain_ticker(output: Output, what: str, total: int, done_before: int) -> Ticker:
    started = last = time.monotonic()

    def tick(done: int, words: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < PLAIN_LINE_EVERY_S and done < total:
            return
        last = now
        elapsed_s = now - started
        left_s = elapsed_s / max(done - done_before, 1) * (total - done)
        times = f"{duration(elapsed_s)}, {duration(left_s)} left" if done < total else duration(elapsed_s)
        output.talk(f"{what} {done}/{total} {f'{words}, ' if words else ''}{times}")

    return tick


def size(num_bytes: float) -> str:
    """Bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.2f} GB"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
