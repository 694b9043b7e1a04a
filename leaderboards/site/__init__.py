"""The leaderboard as a page: one folder that opens from a file, without a server and without a network."""

from leaderboards.site.write import write_site

__all__ = ["write_site"]
