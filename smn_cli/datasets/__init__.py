"""The paper's data sets, and one that a dependency ships, as folders of images by class."""
