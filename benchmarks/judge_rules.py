"""What judges say of the runs of `judge.py`, and what was true, as Markdown.

Harm: kept, and below the base beyond the interval in k-NN 20, raw or partly whitened. A real gain: some judged state is
above it in raw features, and not below it in partly whitened ones.
"""

from collections.abc import Callable, Collection
from typing import Any


def table(rows: list[dict[str, Any]], *, today: Collection[str], fenced: Collection[str]) -> str:
    """Markdown: what each arm gained at its last step, and what each rule would have kept.

    Args:
        rows: of `judge.py`.
        today: arms whose runs have a table of their own.
        fenced: sets on which nothing is trained without a witness.
    """
    rows = [{**row, "fenced": row["data"] in fenced} for row in rows if "error" not in row]
    witnessed = [row for row in rows if row["base_agreement"] is not None]
    of_today = [row for row in witnessed if row["arm"] in today]
    return f"{arms_table(rows)}\n\n{rules_table(witnessed)}\n\nToday's mask and crops:\n\n{rules_table(of_today)}"


def arms_table(rows: list[dict[str, Any]]) -> str:
    """Gains of k-NN 20, raw and partly whitened, means over seeds; bold if above, struck if below, each time."""
    sets = list(dict.fromkeys(row["data"] for row in rows))
    lines = [f"| arm | {' | '.join(sets)} |", "|" + "---|" * (len(sets) + 1)]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        cells = []
        for name in sets:
            last = [r["judgements"][-1]["scores"] for r in rows if (r["arm"], r["data"]) == (arm, name)]
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
    real = [row for row in rows if any(is_real_gain(each["scores"]) for each in row["judgements"])]
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
    """The state of the largest gain by the teacher's likeness, of those that a rule lets pass; None for the base."""
    passing = [each for each in row["judgements"] if not each["alarms"] and rule(row, each)]
    return max(passing, key=lambda each: each["gain"]["value"], default=None)


def lost(row: dict[str, Any], each: dict[str, Any]) -> float:
    """Share of neighbours in common with the witness that a state lost."""
    return float(row["base_agreement"] - each["witness_agreement"])


def is_consistent(row: dict[str, Any], each: dict[str, Any]) -> bool:
    return bool(each.get("view_consistency", 1.0) >= (row["base_health"].get("view_consistency") or 0.0))


Rule = Callable[[dict[str, Any], dict[str, Any]], bool]
RULES: dict[str, Rule] = {
    "teacher's likeness alone": lambda row, each: each["gain"]["low"] > 0,
    "likeness, and view consistency not below the base's": lambda row, each: (
        each["gain"]["low"] > 0 and is_consistent(row, each)
    ),
    "both, and nothing is trained on small images": lambda row, each: (
        each["gain"]["low"] > 0 and is_consistent(row, each) and not row["fenced"]
    ),
    **{
        f"both, and a witness loses at most {limit}": lambda row, each, limit=limit: (  # type: ignore[misc]
            each["gain"]["low"] > 0 and is_consistent(row, each) and lost(row, each) <= limit
        )
        for limit in (0.03, 0.02, 0.0125, 0.01, 0.005, 0.0)
    },
    "a witness loses at most 0.0125, alone": lambda row, each: lost(row, each) <= 0.0125,
}
