"""Relations instead of places: the masked network is to find the neighbours that the teachers find.

With T the teachers' space (unit length, any width), z the masked network's unit-length, centred features, and Z a
memory of z over all training images,

    P_ij   = softmax over the 100 nearest j of T_i . T_j / t_i, with t_i such that the perplexity of P_i is as wished
    loss_i = - sum_j P_ij log softmax over all j but i (z_i . Z_j / temperature)

Of more than 50,000 images neighbours are searched for approximately, and the memory is in half precision.
The perplexity by bisection is that of stochastic neighbour embedding (Hinton & Roweis, NIPS 2002); similarities to a
memory as targets are those of SEED (arXiv 2101.04731). Nothing here asks that teacher and student have one width. Codes
of the teachers' space beside it (SwAV's idea) were tried and cost a point or two (docs/log.md).
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from smn_cli.config.plan import AdaptPlan
from smn_cli.distributed import Team
from smn_cli.features.row_store import MANY, pieces
from smn_cli.objectives.base import Objective, ObjectiveInputs, PlanRules
from smn_cli.objectives.log_sum import loss_in_blocks
from smn_cli.objectives.neighbour_search import check_number, nearest_others
from smn_cli.objectives.saved_state import check_like

NUM_NEIGHBOURS = 100
MAX_PERPLEXITY, IMAGES_A_NEIGHBOUR = 30.0, 30
_NUM_HALVINGS = 40


def wished_perplexity(num_images: int) -> float:
    """A thirtieth of the images, at least 2 and at most 30: neighbours that count."""
    return max(2.0, min(MAX_PERPLEXITY, num_images / IMAGES_A_NEIGHBOUR))


def neighbour_targets(
    space: Tensor, *, perplexity: float, num_neighbours: int = NUM_NEIGHBOURS
) -> tuple[Tensor, Tensor]:
    """Whom the teacher thinks of as neighbours, and how much.

    Args:
        space: (N, D) rows of unit length; of very many see `nearest_others`.
        perplexity: of every row, above 1; where fewer neighbours are, all of them alike.
        num_neighbours: k at most; N - 1 where that is fewer.

    Returns:
        (N, k) int64 places, and (N, k) float32 shares, rows of which sum to 1; nobody is a neighbour of itself.
    """
    places, likeness = nearest_others(space, min(num_neighbours, len(space) - 1))
    wanted = [shares(likeness[part], perplexity=perplexity) for part in pieces(len(space))]
    return places, torch.cat(wanted)


def shares(likeness: Tensor, *, perplexity: float) -> Tensor:
    """softmax(likeness / t) of each row, with the t at which its perplexity, exp of its entropy, is as wished.

    Args:
        likeness: (N, k).
        perplexity: above 1 and below k; else the nearest that can be had.
    """
    rows = likeness.double()
    low = torch.full((len(rows), 1), -12.0, dtype=torch.float64)  # of log t
    high = torch.full_like(low, 6.0)
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        found = functional.log_softmax(rows / middle.exp(), dim=1)
        is_wide = -(found.exp() * found).sum(dim=1, keepdim=True) > torch.tensor(perplexity).log()
        low, high = torch.where(is_wide, low, middle), torch.where(is_wide, middle, high)
    return functional.softmax(rows / ((low + high) / 2).exp(), dim=1).float()


def neighbourhood_loss(
    embeddings: Tensor, memory: Tensor, positions: Tensor, places: Tensor, shares: Tensor, *, temperature: float
) -> Tensor:
    """Cross-entropy between the teacher's neighbours and the masked network's.

    Args:
        embeddings: (B, F) of unit length, with gradient.
        memory: (N, F) of unit length, without.
        positions: (B,) rows of the memory that the embeddings are of, which are left out.
        places, shares: (N, k) of `neighbour_targets`; places of any integer type.
        temperature: of the predictions, above 0.

    Returns:
        Scalar; log(N - 1) if all predictions are uniform.
    """
    logits = embeddings @ memory.T / temperature
    own = functional.one_hot(positions, len(memory)).bool()
    log_predictions = functional.log_softmax(logits.masked_fill(own, -torch.inf), dim=1)
    chosen = log_predictions.gather(1, places[positions].long())
    return -(shares[positions] * chosen).sum(dim=1).mean()


def _memory_of(features: Tensor) -> tuple[Tensor, Tensor]:
    """(N, F) float16 memory and the (F,) mean that centres it, of features as they are."""
    parts = pieces(len(features))
    units = (functional.normalize(features[part].float(), dim=1).mean(dim=0) for part in parts)
    mean = torch.stack([unit * (len(features[part]) / len(features)) for unit, part in zip(units, parts, strict=True)])
    mean = mean.sum(dim=0)
    memory = torch.empty(features.shape, dtype=torch.half)
    for part in parts:
        unit = functional.normalize(features[part].float(), dim=1)
        memory[part] = functional.normalize(unit - mean, dim=1).half()
    return memory, mean


class NeighbourhoodObjective(Objective):
    """The teachers' neighbours.

    Args:
        prepared: what `prepare` returned.
        temperature: of all predictions.
        device: of the backbone.
        team: the processes that share a batch; all hold the same memory.
    """

    needs_teacher: ClassVar[bool] = True
    learns_relations: ClassVar[bool] = True
    rules: ClassVar[PlanRules] = PlanRules(idle_options=("queue", "lr_head", "prototypes"), batch_size=32, num_visits=4)

    def __init__(self, prepared: dict[str, Tensor], *, temperature: float, device: torch.device, team: Team) -> None:
        self.temperature, self.team = temperature, team
        self.mean = prepared["mean"].to(device)
        self.places, self.shares = prepared["places"].to(device), prepared["shares"].to(device)
        memory = prepared["memory"]
        self.has_many = len(memory) > MANY
        # what was prepared may be a mapped file
        self.memory = memory.to(device, copy=True) if self.has_many else memory.float().to(device)

    @classmethod
    def check_number(cls, num_images: int) -> None:
        """See `smn_cli.objectives.neighbour_search`."""
        check_number(num_images)

    @classmethod
    def prepare(cls, inputs: ObjectiveInputs) -> dict[str, Tensor]:
        """Targets, and the memory as it starts."""
        assert inputs.teacher_features is not None
        assert inputs.features_at_start is not None
        space = inputs.teacher_features
        memory, mean = _memory_of(inputs.features_at_start(len(space)))
        places, wanted = neighbour_targets(space, perplexity=wished_perplexity(len(space)))
        return {
            "places": places.int(),
            "shares": wanted,
            "memory": memory,
            "mean": mean,
        }

    @classmethod
    def build(cls, inputs: ObjectiveInputs, prepared: dict[str, Tensor]) -> "NeighbourhoodObjective":
        """Nothing but what was prepared."""
        return cls(prepared, temperature=inputs.plan.temperature, device=inputs.device, team=inputs.team)

    @property
    def log_k(self) -> float:
        """Of the other images."""
        return math.log(len(self.memory) - 1)

    def loss(self, step: int, positions: Tensor, features: list[Tensor]) -> Tensor:
        """Mean over the views of a batch, which the memory then holds; see `Objective.loss`."""
        rows = positions.to(self.memory.device)
        views = [functional.normalize(functional.normalize(v.float(), dim=1) - self.mean, dim=1) for v in features]
        losses = [self._loss_of(view, rows) for view in views]
        self._visited = self.team.gathered(rows), self.team.gathered(views[0].detach())
        return torch.stack(losses).mean()

    def _loss_of(self, view: Tensor, rows: Tensor) -> Tensor:
        if self.has_many:
            own = self.places[rows].long(), self.shares[rows]
            return loss_in_blocks(view, self.memory, rows, *own, temperature=self.temperature)
        return neighbourhood_loss(view, self.memory, rows, self.places, self.shares, temperature=self.temperature)

    def after_backward(self, step: int) -> None:
        """The memory takes the views of the batch: not before, since the gradient needs it as it was."""
        rows, embeddings = self._visited
        self.memory[rows] = embeddings.to(self.memory.dtype)

    def state(self) -> dict[str, Any]:
        """The memory."""
        return {"memory": self.memory}

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`.

        Raises:
            KeyError, ValueError: it is of another plan.
        """
        check_like(self.memory, state["memory"], "the memory")
        self.memory.copy_(state["memory"])

    @classmethod
    def bytes_an_image(cls, plan: AdaptPlan) -> int:
        """Neighbours and shares, and one row of similarities for each image of a batch."""
        return 12 * NUM_NEIGHBOURS + 8 * plan.batch_size
