"""Storage of videos and records: what is read and written, wherever it lies."""
