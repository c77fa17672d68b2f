"""What a kind of data says for itself: how it is opened, read, written, measured and shown."""
