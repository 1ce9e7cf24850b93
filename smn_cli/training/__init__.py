"""The SwAV loss, the optimisers and schedules, the loop and its checkpoints."""
