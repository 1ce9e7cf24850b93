"""What the library says of parameters is said of options on the command line, and nothing else is changed."""

from smn_cli.terminal.flags import in_flags

NAMES = frozenset({"lr_scores", "out", "steps"})


def test_parameters_become_options() -> None:
    assert in_flags("lower `lr_scores`, or change `out`", NAMES) == "lower --lr-scores, or change --out"


def test_what_is_no_parameter_stays() -> None:
    said = "`rm` in /tmp/`steps is no option, nor is `Steps` or `lr-scores`"
    assert in_flags(said, NAMES) == said
