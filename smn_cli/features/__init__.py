"""Features of image files under a network: embedded, cached, written."""
