"""Finding and reading images, the views of a training step, loaders, labeled folders."""
