"""The end of a run is told from what its first process has saved."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smn_cli.console import Output
from smn_cli.distributed import Team
from smn_cli.runs.run_folder import STATE
from smn_cli.terminal.conclusion import conclude_run
from tests.small_runs import Workshop


@dataclass(frozen=True)
class LateFirst(Team):
    """A team whose first process has saved no sooner than the others wait for it."""

    state: Path = Path()
    saved: bytes = b""

    def wait(self) -> None:
        self.state.write_bytes(self.saved)


def test_processes_read_the_state_when_the_first_has_saved_it(workshop: Callable[..., Workshop]) -> None:
    session = workshop().finish("run", steps=2)
    state = session.folder.path / STATE
    session.team = LateFirst(state=state, saved=state.read_bytes())
    state.write_bytes(b"half of it")
    assert conclude_run(Output(None), session, 1.0)["kept_step"] == 2
