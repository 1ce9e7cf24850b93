"""A judge is one class: a toy one decides what a run keeps."""

from collections.abc import Callable

from smn_cli.evaluation.intervals import Gain
from smn_cli.judging.judges import Candidate, Judge, Judgement
from smn_cli.runs.run_result import read_learned
from tests.small_runs import Workshop, equal, log_of, masks_of

Make = Callable[..., Workshop]


class LikesTheSecond:
    """Thinks that the second state is much better than the base, and all others worse."""

    uses_labels = False

    def __init__(self) -> None:
        self.num_seen = 0

    def judge(self, candidate: Candidate) -> Judgement:
        self.num_seen += 1
        value = 1.0 if self.num_seen == 2 else -1.0
        return Judgement(Gain(value, value - 0.1, value + 0.1), True, {"seen": float(self.num_seen)})


def test_a_toy_judge_decides_what_is_kept(workshop: Make) -> None:
    session = workshop().start("run", keep="best", steps=3, lr_scores=500.0)
    session.best_state.alarms = []  # so few images leave none to judge by
    judge: Judge = LikesTheSecond()
    session.judge = judge
    seen = []
    for _ in session.steps():
        seen.append(masks_of(session))
    learned = read_learned(session.folder)
    assert (learned.step, learned.judge_gain) == (2, 1.0)
    assert equal({n: m.byte() for n, m in learned.masks.items()}, {n: m.byte() for n, m in seen[1].items()})
    assert not equal({n: m.byte() for n, m in seen[2].items()}, {n: m.byte() for n, m in seen[1].items()})
    evaluations = [line["evaluation"]["seen"] for line in log_of(session) if "evaluation" in line]
    assert evaluations == [1, 2, 3]
