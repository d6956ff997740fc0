"""Shows an Episode, wherever it comes from."""
