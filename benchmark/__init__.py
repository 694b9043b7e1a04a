"""The machinery of the suite: data, contract, evaluation, records, grid. Imports neither torch nor any method."""
