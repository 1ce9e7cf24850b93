"""Runs of images: whole batches, all of them once, tars whole where there are many."""

from pathlib import Path

import pytest

from smn_cli.data.images.shares import MAX_RUN, RUNS_A_PROCESS, runs_of


def tars(*sizes: int) -> list[Path]:
    return [Path(f"s/{tar:03d}.tar/{number:05d}.jpg") for tar, size in enumerate(sizes) for number in range(size)]


def loose(total: int) -> list[Path]:
    return [Path(f"images/{number:06d}.jpg") for number in range(total)]


@pytest.mark.parametrize(
    "paths", [[], loose(1), loose(31), loose(200), tars(40, 40, 40), tars(7, 300, 1, 50), tars(500)]
)
@pytest.mark.parametrize("num_processes", [1, 2, 5])
def test_runs_hold_every_image_once_in_whole_batches(paths: list[Path], num_processes: int) -> None:
    runs = runs_of(paths, 16, num_processes)
    assert [place for run in runs for place in run] == list(range(len(paths)))
    assert all(run.start % 16 == 0 and len(run) for run in runs)


def test_a_tar_is_one_run_where_there_are_many_and_its_last_batch_takes_from_the_next() -> None:
    runs = runs_of(tars(*[100] * 20), 16, 2)
    assert len(runs) == 20
    assert runs[:3] == [range(112), range(112, 208), range(208, 304)]


def test_few_images_are_cut_so_that_each_process_has_runs() -> None:
    for paths in (loose(1600), tars(1600)):
        runs = runs_of(paths, 16, 4)
        assert len(runs) >= 4 * RUNS_A_PROCESS
        assert max(map(len, runs)) <= 1600 // (4 * RUNS_A_PROCESS)
    assert len(runs_of(loose(16), 16, 4)) == 1  # a batch is never cut


def test_no_run_is_longer_than_what_a_process_holds_at_a_time() -> None:
    assert max(map(len, runs_of(loose(200_000), 128, 2))) <= MAX_RUN
