"""Shared building blocks: the only place where two methods meet. No block names a method."""
