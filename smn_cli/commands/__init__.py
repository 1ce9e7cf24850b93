"""One file a verb: options to settings, a call, a report. Nothing else."""
