"""What goes out to others: folders that other libraries load, and model cards."""
