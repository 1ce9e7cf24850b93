"""Who says whether a network has become better, and what is kept of it."""
