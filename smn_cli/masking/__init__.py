"""Scores, masks and the masked backbone. Maths only: no files, no command line."""
