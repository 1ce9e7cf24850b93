"""A seed means the same in every version, and nothing but seeding.py makes a generator."""

import re
from pathlib import Path

import torch

import smn_cli
from smn_cli import seeding


def test_every_stream_is_what_it_was() -> None:
    """With the numbers of version 0.1: what was made with a seed can be made again."""
    assert seeding.split_generator(3).initial_seed() == 3
    assert seeding.epoch_generator(3, 2).initial_seed() == 3_000_011
    assert seeding.epoch_generator(2**63 - 1, 2).initial_seed() == 2**63 - 1_000_001
    assert seeding.sample_generator(3).initial_seed() == 3
    assert seeding.fixed_generator().initial_seed() == 0
    assert seeding.step_generator(3, 5, "places").integers(0, 1000, 4).tolist() == [23, 136, 56, 883]
    assert seeding.step_generator(3, 5, "changes").integers(0, 1000, 4).tolist() == [530, 606, 47, 245]
    assert seeding.resampling_generator(3).integers(0, 1000, 4).tolist() == [811, 85, 179, 236]
    assert seeding.weight_stream(3, "conv.weight").random_raw(2).tolist() == [
        17_545_676_379_521_315_733,
        18_411_295_820_523_153_059,
    ]
    assert seeding.named_draw(3, "cat").sample(range(100), 4) == [78, 71, 60, 97]
    assert (seeding.sklearn_seed(3), seeding.sklearn_seed(2**32 + 3)) == (3, 3)


def test_first_weights_follow_from_the_seed_and_leave_torchs_own_stream_alone() -> None:
    torch.manual_seed(11)
    state = torch.get_rng_state()
    with seeding.initial_weights(3):
        assert torch.initial_seed() == 3
        torch.rand(5)
    assert torch.equal(torch.get_rng_state(), state)


def test_nothing_else_makes_a_generator() -> None:
    root = Path(smn_cli.__file__).parent
    made = re.compile(
        r"torch\.Generator\(|manual_seed|fork_rng|default_rng|Random\(|Philox\(|random_state=\d|RandomState"
    )
    others = [path for path in sorted(root.rglob("*.py")) if path.name != "seeding.py"]
    assert [str(path.relative_to(root)) for path in others if made.search(path.read_text())] == []


def test_the_table_names_every_stream() -> None:
    named = set(re.findall(r"^\| `(\w+)`", seeding.__doc__ or "", re.MULTILINE))
    made_here = {name for name, thing in vars(seeding).items() if getattr(thing, "__module__", "") == seeding.__name__}
    assert named == made_here
