"""Settings of a run: wishes, the plan that follows from them. Nothing here knows torch, so that `--help` is quick."""
