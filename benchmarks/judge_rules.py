"""What judges say of the runs of `judge.py`, and what was true, as Markdown.

Harm: kept, and below the base beyond the interval in k-NN 20, raw or partly whitened. A real gain: some judged state is
above it in raw features, and not below it in partly whitened ones.
"""

from collections.abc import Callable
from typing import Any


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: what each arm gained at its last step, and what each rule would have kept of all runs and of today's.

    Args:
        rows: of `judge.py`, with what its `ended` tells of them.
    """
    witnessed = [row for row in rows if row["base_agreement"] is not None]
    of_today = [row for row in witnessed if row["today"]]
    return f"{arms_table(rows)}\n\n{rules_table(witnessed)}\n\nToday's mask and crops:\n\n{rules_table(of_today)}"


def arms_table(rows: list[dict[str, Any]]) -> str:
    """Gains of k-NN 20, raw and partly whitened, means over seeds; bold if above, struck if below, each time."""
    sets = list(dict.fromkeys(row["data"] for row in rows))
    lines = [f"| arm | {' | '.join(sets)} |", "|" + "---|" * (len(sets) + 1)]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        cells = []
        for name in sets:
            last = [r.get("seen", r["judgements"])[-1]["scores"] for r in rows if (r["arm"], r["data"]) == (arm, name)]
            kinds = ("raw k20", "whitened k20")
            cells.append(" / ".join(gain_cell([scores[kind] for scores in last]) for kind in kinds) if last else "-")
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def gain_cell(scores: list[list[float]]) -> str:
    text = f"{sum(score[1] for score in scores) / len(scores):+.3f}"
    if all(score[2] > 0 for score in scores):
        return f"**{text}**"
    return f"~~{text}~~" if all(score[3] < 0 for score in scores) else text


def rules_table(rows: list[dict[str, Any]]) -> str:
    """Of runs with a witness: what each rule keeps, what of that is harm, and which real gains it misses."""
    lines = ["| judge | runs | kept | harm | real gains | missed |", "|" + "---|" * 6]
    real = [row for row in rows if any(is_real_gain(each["scores"]) for each in row.get("seen", row["judgements"]))]
    for name, rule in RULES.items():
        best = {id(row): kept_by(rule, row) for row in rows}
        kept = [each for each in best.values() if each is not None]
        harm, missed = sum(is_harm(each["scores"]) for each in kept), sum(best[id(row)] is None for row in real)
        shares = f"{harm} ({harm / max(1, len(kept)):.0%}) | {len(real)} | {missed} ({missed / max(1, len(real)):.0%})"
        lines.append(f"| {name} | {len(rows)} | {len(kept)} | {shares} |")
    return "\n".join(lines)


def is_harm(scores: dict[str, list[float]]) -> bool:
    return any(scores[kind][3] < 0 for kind in ("raw k20", "whitened k20"))


def is_real_gain(scores: dict[str, list[float]]) -> bool:
    return scores["raw k20"][2] > 0 and scores["whitened k20"][3] >= 0


def kept_by(rule: "Rule", row: dict[str, Any]) -> dict[str, Any] | None:
    """The state that a rule puts highest, of those that it lets pass; None for the base."""
    if row["ended"]:
        return None
    passing = [(rule(row, each), each) for each in row["judgements"] if not each["alarms"]]
    return max(
        ((value, each) for value, each in passing if value is not None), key=lambda pair: pair[0], default=(0, None)
    )[1]


def lost(row: dict[str, Any], each: dict[str, Any]) -> float:
    """Share of neighbours in common with the witness that a state lost."""
    return float(row["base_agreement"] - each["witness_agreement"])


def more_consistent(row: dict[str, Any], each: dict[str, Any]) -> float | None:
    """How much oftener two views find the same neighbours; None if they do so less often than the base's."""
    gain = each.get("view_consistency", 1.0) - (row["base_health"].get("view_consistency") or 0.0)
    return float(gain) if gain >= 0 else None


def liker(row: dict[str, Any], each: dict[str, Any]) -> float | None:
    """How much liker to the teacher the neighbours are; None if not beyond the interval."""
    return float(each["gain"]["value"]) if each["gain"]["low"] > 0 else None


def liker_and_consistent(row: dict[str, Any], each: dict[str, Any]) -> float | None:
    return None if more_consistent(row, each) is None else liker(row, each)


def better(row: dict[str, Any], each: dict[str, Any]) -> float | None:
    """What smn asks for with a witness: views alone tell where the last layer teaches, to whom the base is likest."""
    return more_consistent(row, each) if row["itself"] else liker_and_consistent(row, each)


Rule = Callable[[dict[str, Any], dict[str, Any]], float | None]
LIMITS = (0.03, 0.02, 0.0125, 0.01, 0.005, 0.0)


def witnessed(rule: Rule, limit: float) -> Rule:
    """The rule, of states that lose no more than so much to the witness."""
    return lambda row, each: rule(row, each) if lost(row, each) <= limit else None


def witnessed_or_itself(limit: float) -> Rule:
    """What smn asks for with a witness; at most `limit` where the last layer teaches, whose likeness says nothing."""
    return lambda row, each: witnessed(better, limit if row["itself"] else 0.0125)(row, each)


RULES: dict[str, Rule] = {
    "teacher's likeness alone": liker,
    "likeness, and view consistency not below the base's": liker_and_consistent,
    "both, and nothing is trained on small images": lambda row, each: (
        None if row["fenced"] else liker_and_consistent(row, each)
    ),
    **{f"both, and a witness loses at most {limit}": witnessed(liker_and_consistent, limit) for limit in LIMITS},
    **{
        f"the same, but consistency alone and at most {limit} where the last layer teaches": witnessed_or_itself(limit)
        for limit in LIMITS
    },
    "a witness loses at most 0.0125, alone": witnessed(lambda row, each: float(each["gain"]["value"]), 0.0125),
}
