"""Images, from files to what a network takes."""
