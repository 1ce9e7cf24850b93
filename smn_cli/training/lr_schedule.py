"""Learning rate over the steps of a run."""

import math


def cosine_factor(position: float, length: float) -> float:
    """1 at position 0, falling to 0 at `length` along half a cosine; 0 beyond."""
    if length <= 0 or position >= length:
        return 0.0
    return 0.5 * (1 + math.cos(math.pi * max(position, 0) / length))


def lr_factor(
    step: int, *, first_step: int, num_steps: int, steps_per_epoch: int, period: str, warmup_steps: int = 0
) -> float:
    """Factor on the learning rate at a step.

    Args:
        step: counted from 0.
        first_step: where warm-up, or else the cosine, starts; the factor is 0 before it.
        num_steps: where the cosine reaches 0.
        steps_per_epoch: used by the epoch period.
        period: "step", or "epoch" to hold the factor for whole epochs, as the paper's runs do.
        warmup_steps: steps over which the factor rises in equal parts to 1; by epoch, whole epochs of which the first
            is at 0, as in the paper's supervised runs.
    """
    if step < first_step:
        return 0.0
    if period == "epoch":
        epoch, warmup = step // steps_per_epoch, warmup_steps // steps_per_epoch
        if epoch < warmup:
            return epoch / warmup
        return cosine_factor(epoch - warmup, math.ceil(num_steps / steps_per_epoch) - warmup)
    done = step - first_step
    if done < warmup_steps:
        return (done + 1) / (warmup_steps + 1)
    return cosine_factor(done - warmup_steps, num_steps - first_step - warmup_steps)
