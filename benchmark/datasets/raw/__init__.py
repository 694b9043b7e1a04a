"""Readers of the official raw files: reviews, ratings and metadata as their owners publish them -> Tables."""
