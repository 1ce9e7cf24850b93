"""The adapter file: its schema and codecs, the base's fingerprint, reading, writing, refusing, applying."""
