"""Approximate neighbours: nearly all of the exact ones, the same in every run; or a word on what lacks."""

import sys

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.errors import UsageError
from smn_cli.objectives import neighbour_search
from smn_cli.objectives.neighbour_search import check_number, nearest_others
from smn_cli.objectives.neighbourhood import neighbour_targets


def clustered(num: int = 3000, width: int = 16, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(40, width, generator=generator)[torch.randint(0, 40, (num,), generator=generator)]
    return functional.normalize(centres + 0.4 * torch.randn(num, width, generator=generator), dim=1).half()


@pytest.fixture
def by_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the rows of a test were very many, with cells as empty as those of more."""
    pytest.importorskip("faiss", reason="needs the scale extra")
    monkeypatch.setattr(neighbour_search, "MAX_EXACT", 100)
    monkeypatch.setattr(neighbour_search, "CELLS_SEEN", 5)


@pytest.mark.usefixtures("by_faiss")
def test_nearly_all_of_the_nearest_are_found_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clustered()
    places, likeness = nearest_others(rows, 20)
    again = nearest_others(rows, 20)
    assert torch.equal(again[0], places)
    assert torch.equal(again[1], likeness)
    assert not bool((places == torch.arange(len(rows))[:, None]).any())
    cosines = (rows.float()[places] * rows.float()[:, None]).sum(dim=2)
    torch.testing.assert_close(likeness, cosines, rtol=0, atol=2e-3)
    assert bool((likeness.diff(dim=1) <= 0).all())
    monkeypatch.setattr(neighbour_search, "MAX_EXACT", len(rows))
    exact, _ = nearest_others(rows, 20)
    assert not torch.equal(exact, places)  # it was another way that found them
    found = [len(set(a) & set(b)) / 20 for a, b in zip(places.tolist(), exact.tolist(), strict=True)]
    assert sum(found) / len(found) > 0.95


@pytest.mark.usefixtures("by_faiss")
def test_copies_are_neighbours_of_each_other_and_never_of_themselves() -> None:
    rows = clustered()
    rows[100:400] = rows[100]  # more than are asked for
    places, likeness = nearest_others(rows, 20)
    assert not bool((places == torch.arange(len(rows))[:, None]).any())
    assert bool(((places[100:400] >= 100) & (places[100:400] < 400)).all())
    torch.testing.assert_close(likeness[100:400], torch.ones(300, 20), rtol=0, atol=2e-3)


@pytest.mark.usefixtures("by_faiss")
def test_rows_that_saw_too_few_are_searched_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbour_search, "CELLS_SEEN", 1)
    rows = clustered()
    places, _ = nearest_others(rows, 100)
    assert int(places.min()) == 0
    targets, shares = neighbour_targets(rows, perplexity=20)
    assert torch.equal(targets, places)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(len(rows)))


def test_without_faiss_many_images_are_refused_and_fewer_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    check_number(50_000)
    with pytest.raises(UsageError, match=r"more than 50,000 images .* pip install 'smn-cli\[scale\]'"):
        check_number(50_001)
