"""The result: stored records -> significance -> tables and pictures. Needs neither torch nor any method."""
