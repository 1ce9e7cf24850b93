"""Settings of a run: options, the plan that follows from them. Nothing here knows torch, so that `--help` is quick."""
