"""Random views of images for a training step, and plain ones: cut, augmented, loaded, cached."""
