"""A run on disk: its folder, its settings, what it learned, and the adapter that is packed of it."""
