"""Gathers what a finished run has to show and writes report.html."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor
from torch.nn import functional

from smn_cli.atomic import write_atomically
from smn_cli.masking.backbone import density, run_backbone
from smn_cli.masking.binarize import effective_weight
from smn_cli.reports.figures import density_figure, health_figure, loss_figure, map_figure, thumbnail
from smn_cli.reports.render import render_page
from smn_cli.runs.run_folder import REPORT, RunFolder
from smn_cli.runs.run_result import Learned, read_learned
from smn_cli.seeding import FIXED_SEED
from smn_cli.training.session import Session

NUM_ROWS, NUM_NEIGHBOURS, NUM_COLOURS = 6, 5, 8


def write_report(session: Session) -> Path:
    """Write report.html into the run folder: verdict, curves, density by tensor, embedding map, neighbours.

    Everything stands in the one file; it loads nothing from anywhere. All processes of a team call this.
    """
    learned = read_learned(session.folder)
    steps, evaluations = _read_metrics(session.folder.path)
    base = session.health.base_features
    adapted = session.health.embed(_kept_network(session, learned))  # each process of a team a share
    path = session.folder.path / REPORT
    if not session.team.is_first:
        return path
    page = render_page(
        "report.html.j2",
        session=session,
        learned=learned,
        is_judged_by_labels=session.judge.uses_labels,
        is_identity=session.plan.keep == "best" and learned.step == 0,
        density=density(learned.masks),
        loss=Markup(_loss(steps)),
        health=[Markup(svg) for svg in _health(session, evaluations)],
        density_by_tensor=Markup(_density_by_tensor(learned)) if learned.masks else "",
        embedding_map=Markup(_map(base[0], adapted[0])) if len(base[0]) >= NUM_COLOURS else "",
        neighbours=_neighbour_rows(session, base, adapted),
        evaluations=evaluations,
        settings=session.plan.to_json(),
    )
    write_atomically(path, page)
    return path


def _read_metrics(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Steps and judgements; records that a damaged file no longer has whole are passed over."""
    records = RunFolder(folder).read_metrics()
    judged = [record for record in records if isinstance(record.get("evaluation"), dict)]
    keys: Any = max((record["evaluation"].keys() for record in judged), key=len, default=None)
    return (
        [record for record in records if {"loss", "log_k"} <= record.keys()],
        [record for record in judged if record["evaluation"].keys() == keys],
    )


def _kept_network(session: Session, learned: Learned) -> Any:
    backbone = session.backbone.model
    own = dict(backbone.named_parameters())
    weights = {name: effective_weight(own[name], mask.to(own[name].device)) for name, mask in learned.masks.items()}
    tensors = {**weights, **learned.weights, **learned.norm_stats}
    return session.context.placed(lambda images: run_backbone(backbone, images, tensors))


def _loss(steps: list[dict[str, Any]]) -> str:
    if not steps:
        return ""
    return loss_figure([r["step"] for r in steps], [r["loss"] for r in steps], steps[0]["log_k"])


def _health(session: Session, evaluations: list[dict[str, Any]]) -> list[str]:
    if not evaluations:
        return []
    taken = [record["step"] for record in evaluations]
    figures = []
    for name, base in session.health.base_health.to_json().items():
        values = [record["evaluation"][name] for record in evaluations]
        figures.append(health_figure(taken, values, base, name.replace("_", " ")))
    for name, base in evaluations[0]["evaluation"].items():
        metric = name.removeprefix("base ")
        if metric != name:
            values = [record["evaluation"][metric] for record in evaluations]
            figures.append(health_figure(taken, values, base, metric))
    return figures


def _density_by_tensor(learned: Learned) -> str:
    names = list(learned.masks)
    return density_figure(names, [float(learned.masks[name].double().mean()) for name in names])


def _map(base: Tensor, adapted: Tensor) -> str:
    """PCA maps of the held-out images, coloured by clusters of the base, which has no labels either."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    unit = [functional.normalize(features.double(), dim=1).numpy() for features in (base, adapted)]
    colours = KMeans(NUM_COLOURS, n_init=1, random_state=FIXED_SEED).fit_predict(unit[0])
    maps = [PCA(2, random_state=FIXED_SEED).fit_transform(features) for features in unit]
    # the sign of a component is arbitrary: turn the second map the way of the first
    for component in range(2):
        if np.dot(maps[0][:, component], maps[1][:, component]) < 0:
            maps[1][:, component] *= -1
    return map_figure(maps[0], maps[1], colours)


def _neighbour_rows(
    session: Session, base: tuple[Tensor, Tensor], adapted: tuple[Tensor, Tensor]
) -> list[dict[str, Any]]:
    """For the images whose neighbours changed most: the image, its neighbours before and after."""
    before, after = _nearest(*base), _nearest(*adapted)
    num_new = [len(set(new) - set(old)) for old, new in zip(before.tolist(), after.tolist(), strict=True)]
    chosen = sorted(range(len(num_new)), key=lambda position: -num_new[position])[:NUM_ROWS]
    held_out, searched, prepare = session.split.held_out, session.split.searched, session.preprocessing
    return [
        {
            "image": thumbnail(held_out[position], prepare),
            "before": [thumbnail(searched[index], prepare) for index in before[position].tolist()],
            "after": [thumbnail(searched[index], prepare) for index in after[position].tolist()],
        }
        for position in chosen
    ]


def _nearest(held_out: Tensor, searched: Tensor) -> Tensor:
    similarities = functional.normalize(held_out.float(), dim=1) @ functional.normalize(searched.float(), dim=1).T
    return torch.topk(similarities, min(NUM_NEIGHBOURS, len(searched)), dim=1).indices
