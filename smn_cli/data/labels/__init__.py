"""Images with labels: to evaluate on, to train on, and small parts of them."""
