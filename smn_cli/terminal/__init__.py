"""What the commands share: options worded once, tables printed alike."""
