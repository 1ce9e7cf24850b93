"""The gallery shows each image's nearest under both networks, rows by chance first, and names of files alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA

from smn_cli.data.preprocessing import Preprocessing
from smn_cli.reports.gallery import NUM_CHANGED, NUM_RANDOM, Gallery, file_names, make_gallery
from smn_cli.reports.image_map import MAX_POINTS, make_map
from smn_cli.training.image_split import ImageSplit

PREPROCESSING = Preprocessing(16, (0.5,) * 3, (0.5,) * 3, "bicubic")
NUM_IMAGES, NUM_HELD_OUT = 40, 16


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Images of one colour each."""
    made = []
    for number in range(NUM_IMAGES):
        path = tmp_path / f"class{number % 2}" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (6 * number, 0, 0)).save(path)
        made.append(path)
    return made


def on_a_circle(turn: float = 0.0) -> torch.Tensor:
    """(N, 2) features: an image's nearest are its neighbours by number."""
    angles = torch.arange(NUM_IMAGES) / NUM_IMAGES * 3 + turn
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def gallery(paths: list[Path], before: torch.Tensor, after: torch.Tensor, *, judges_train: bool = False) -> Gallery:
    held_out, training = paths[:NUM_HELD_OUT], paths if judges_train else paths[NUM_HELD_OUT:]
    split = ImageSplit(training, held_out)
    start = 0 if judges_train else NUM_HELD_OUT
    features = [(each[:NUM_HELD_OUT], each[start:]) for each in (before, after)]
    return make_gallery(split, PREPROCESSING, features[0], features[1])


def test_rows_by_chance_and_those_that_changed_most_are_different_images(paths: list[Path]) -> None:
    shuffled = on_a_circle()[torch.randperm(NUM_IMAGES, generator=torch.Generator().manual_seed(3))]
    made = gallery(paths, on_a_circle(), shuffled)
    drawn, changed = ({row.name for row in rows} for rows in (made.drawn, made.changed))
    assert (len(drawn), len(changed), drawn & changed) == (NUM_RANDOM, NUM_CHANGED, set())
    assert drawn == {row.name for row in gallery(paths, shuffled, on_a_circle()).drawn}  # by no result
    assert made.what == "images held out"
    assert 0 < made.mean_new <= 5


def test_neighbours_come_in_order_with_their_cosine_and_what_is_new(paths: list[Path]) -> None:
    made = gallery(paths, on_a_circle(), on_a_circle().flip(0))
    row = next(row for row in (*made.drawn, *made.changed) if row.before != row.after)
    numbers = [int(Path(each.name).stem) for each in row.before]
    assert numbers == [16, 17, 18, 19, 20]  # the first that are searched lie nearest to all held out
    own = int(Path(row.name).stem)
    expected = torch.cos(torch.tensor([(number - own) / NUM_IMAGES * 3 for number in numbers])).tolist()
    assert [each.similarity for each in row.before] == pytest.approx(expected, abs=1e-5)
    shared = {each.name for each in row.before} & {each.name for each in row.after}
    assert [each.is_shared for each in row.after] == [each.name in shared for each in row.after]


def test_an_image_that_trained_is_not_its_own_neighbour(paths: list[Path]) -> None:
    made = gallery(paths, on_a_circle(), on_a_circle(), judges_train=True)
    assert all(each.name != row.name for row in made.drawn for each in (*row.before, *row.after))
    assert made.what == "training images that were looked at"
    assert made.mean_new == 0
    assert made.changed == []


def test_names_are_those_below_the_folder_in_common(paths: list[Path], tmp_path: Path) -> None:
    assert file_names(paths)[:2] == ["class0/00.png", "class1/01.png"]
    assert file_names([tmp_path / "a" / "x.png"]) == ["x.png"]


def test_a_map_has_each_image_at_one_place_of_sheet_and_both_maps(paths: list[Path]) -> None:
    made = make_map(paths, PREPROCESSING, on_a_circle(), on_a_circle(1.0))
    assert made is not None
    assert made.num_columns == 7
    assert [point.name for point in made.maps["before"]] == file_names(paths)
    assert [(p.name, p.colour) for p in made.maps["before"]] == [(p.name, p.colour) for p in made.maps["after"]]
    assert all(0 < p.x < made.width and 0 < p.y < made.height for points in made.maps.values() for p in points)
    assert make_map(paths[:7], PREPROCESSING, on_a_circle()[:7], on_a_circle()[:7]) is None


def test_of_many_images_a_draw_is_mapped(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smn_cli.reports.image_map.MAX_POINTS", 12)
    made = make_map(paths, PREPROCESSING, on_a_circle(), on_a_circle())
    assert made is not None
    assert len(made.maps["after"]) == 12 < MAX_POINTS
    assert (made.num_images, made.num_columns) == (NUM_IMAGES, 4)


def test_a_map_places_images_by_principal_components_and_colours_them_by_groups(paths: list[Path]) -> None:
    groups = torch.arange(NUM_IMAGES) % 8
    noise = torch.randn(NUM_IMAGES, 12, generator=torch.Generator().manual_seed(0))
    features = 20 * torch.eye(12)[groups] + noise
    made = make_map(paths, PREPROCESSING, features, features)
    assert made is not None
    points = made.maps["before"]
    colours = {
        int(group): {point.colour for point, own in zip(points, groups, strict=True) if own == group}
        for group in range(8)
    }
    assert sorted(colour for each in colours.values() for colour in each) == list(range(8))
    unit = torch.nn.functional.normalize(features.double(), dim=1).numpy()
    expected = PCA(2, svd_solver="full").fit_transform(unit)
    for axis, found in enumerate(([p.x for p in points], [-p.y for p in points])):
        assert abs(np.corrcoef(found, expected[:, axis])[0, 1]) > 0.99999
