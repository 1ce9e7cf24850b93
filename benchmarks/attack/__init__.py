"""Kills, damage and exhaustion, each a campaign with a seed and a budget: `python -m benchmarks.attack --help`."""
