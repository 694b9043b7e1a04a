"""Finished runs on a small world that lies on disk, and the tools to tamper with their copies."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import methods
import protocols
from benchmark import datasets, records
from benchmark.datasets import atomic
from benchmark.files import sha256_of
from benchmark.job import Loaders, plan_grid
from benchmark.records import Record
from benchmark.run import Run
from benchmark.scoring import score
from tests import grid_world, toys

NAME = "arrivals"
LOADERS = Loaders(
    datasets.load,
    protocols.load,
    methods.load,
    text_encoder=grid_world.identify,
    usual_encoder=grid_world.usual_encoder,
)


def write_data(root: Path) -> Path:
    """``arrivals`` as atomic files below ``root``, which is what ``data_dir`` wants."""
    world = toys.arrivals()
    rows = pd.DataFrame(
        {
            "user_id": world.user_keys[world.users - 1],
            "item_id": world.item_keys[world.items - 1],
            "timestamp": [f"{time:.0f}" for time in world.timestamps],
        }
    )
    types = {"user_id": "token", "item_id": "token", "timestamp": "float"}
    (root / NAME).mkdir(parents=True)
    atomic.write(atomic.Tables(NAME, rows, None, types), root / NAME)
    return root


def finish(
    root: Path,
    data: Path | None,
    method: str = "markov",
    protocol: str = "loo",
    seed: int = 0,
    name: str = NAME,
    **rest: Any,
) -> Record:
    """One run, finished in this process."""
    where = {"profile": "smoke", "track": "unified", "output_dir": root, "data_dir": data and str(data)}
    with contextlib.redirect_stdout(io.StringIO()):
        (planned,) = plan_grid([name], [method], [seed], protocols.load(protocol), LOADERS, **where, **rest)
    fields, arrays = score(planned.job, LOADERS, Run(seed=seed))
    return records.write(planned.job.folder, fields, arrays, None)


def tamper_arrays(
    folder: Path, file: str, edit: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray] | None], repair: bool = True
) -> None:
    """Let ``edit`` change the arrays of a file, or return others; ``repair`` the checksum as a careful cheat would."""
    with np.load(folder / file) as stored:
        arrays = {name: stored[name].copy() for name in stored.files}
    np.savez(folder / file, **(edit(arrays) or arrays))
    if repair:
        tamper_record(folder, lambda fields: fields["files"].update({file: sha256_of(folder / file)}))


def tamper_record(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Let ``edit`` change record.json."""
    fields = json.loads((folder / "record.json").read_text())
    edit(fields)
    (folder / "record.json").write_text(json.dumps(fields))
