"""A tuning study on disk, and what it tries next: a function of the space, the seed and the trials so far.

The log is one JSON file that is replaced as a whole after every step, so a study that was killed at any moment goes
on where it was, and asks for the same settings as one that was not.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmark.files import content_hash, json_bytes, make_folder, write_atomically
from benchmark.space import Choices, LogRange, OneOf, inside, n_settings, settings

SCHEMA = 1
SAMPLER = "TPE"
"""Tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011) with optuna's defaults, every setting for itself:
the first ten are drawn at random."""
REPEATS = 20
"""Suggestions in a row that were tried before, until an untried setting is drawn from a countable space."""
COUNTABLE = 100_000
"""Larger spaces are never exhausted."""
DIGITS = 4
"""Significant digits of a suggested number that is not whole."""
INSTALL = "pip install 'optuna>=4,<6'"


@dataclass(frozen=True)
class Trial:
    """One setting that was tried, or is being tried."""

    values: Mapping[str, Any]
    status: str = "running"
    """``running``, or the status of its record."""
    score: float | None = None
    seconds: float | None = None
    reason: str | None = None


@dataclass
class Study:
    """The trials of one space on one dataset, in order, and the file that holds them."""

    folder: Path
    identity: Mapping[str, Any]
    """All that makes scores comparable and suggestions the same."""
    space: Mapping[str, Choices]
    trials: list[Trial] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder / "study.json"

    @property
    def best(self) -> int | None:
        """The number of the trial with the best score, of equal ones the earliest; None while there is none."""
        scored = [number for number, trial in enumerate(self.trials) if trial.score is not None]
        return max(scored, key=lambda number: (self.trials[number].score, -number), default=None)

    def put(self, number: int, trial: Trial) -> None:
        """Add or replace a trial and write the log."""
        self.trials[number:] = [trial]
        told = {"schema": SCHEMA, "identity": self.identity, "trials": [asdict(t) for t in self.trials]}
        write_atomically(self.path, json_bytes(told))

    def log(self) -> dict[str, Any]:
        """What the record of the tuned run says about its tuning; ``trials`` in the order they were tried."""
        best = self.best
        assert best is not None
        return {
            "metric": self.identity["metric"],
            "trials": [asdict(trial) for trial in self.trials],
            "chosen": best,
            "values": dict(self.trials[best].values),
            "space": self.identity["space"],
            "sampler": SAMPLER,
            "seed": self.identity["seed"],
            "optuna": version("optuna"),
        }


@contextlib.contextmanager
def opened(root: Path, identity: Mapping[str, Any], space: Mapping[str, Choices]) -> Iterator[Study]:
    """The study of this identity below ``root``, continued when it was begun, and nobody else's meanwhile.

    Raises ValueError when another process has it, or naming the file when it is damaged.
    """
    study = Study(folder_of(root, identity), identity, space)
    make_folder(study.folder)
    with (study.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(
                f"another process is tuning this very study ({study.folder}); wait for it to end, it will answer both"
            ) from error
        study.trials = read_trials(study.path, identity, space)
        yield study


def folder_of(root: Path, identity: Mapping[str, Any]) -> Path:
    return root / f"study-{content_hash(identity, 10)}"


def read_trials(path: Path, identity: Mapping[str, Any], space: Mapping[str, Choices]) -> list[Trial]:
    """The trials of a log, none when it does not exist. Raises ValueError naming the file when it is damaged."""
    if not path.exists():
        return []
    advice = "delete it and run the same command: finished trials have records of their own and are not run again"
    try:
        told = json.loads(path.read_bytes())
        trials = [Trial(**_as_chosen(trial, space)) for trial in told["trials"]]
        whole = told["schema"] == SCHEMA and told["identity"] == json.loads(json_bytes(identity))
        whole &= all(trial.status == "running" or (trial.score is None) == (trial.status != "ok") for trial in trials)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the tuning log {path} is damaged; {advice}") from error
    if not whole:
        raise ValueError(f"the tuning log {path} is damaged or of another study; {advice}")
    for number, trial in enumerate(trials[1:], 1):  # trial 0 is the default, which may lie anywhere
        if not inside(trial.values, space):
            raise ValueError(f"trial {number} of the tuning log {path} lies outside the search space; {advice}")
    return trials


def _as_chosen(trial: dict[str, Any], space: Mapping[str, Choices]) -> dict[str, Any]:
    """JSON knows no tuples: give every value the kind that its choices have."""
    values = {path: tuple(v) if isinstance(v, list) else v for path, v in trial["values"].items()}
    if values.keys() != space.keys():
        raise ValueError("other settings than the space has")
    return trial | {"values": values}


def require_optuna() -> None:
    """Raises ValueError with the install command when optuna is missing."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ValueError(f"tune needs optuna, which is not installed; install it with: {INSTALL}") from error


def suggest(space: Mapping[str, Choices], trials: Sequence[Trial], seed: int) -> dict[str, Any] | None:
    """The setting to try after ``trials``, never one of them again; None when all settings were tried.

    Every suggestion has a generator of its own, so that it depends on nothing but the arguments. A failed trial
    counts as the worst, so that settings which do not fit into memory are avoided.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    own = int(content_hash([seed, len(trials)], 8), 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = optuna.samplers.TPESampler(seed=own, multivariate=False)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        distributions = {path: _distribution(choices) for path, choices in space.items()}
        for trial in trials:
            if inside(trial.values, space):  # the default need not
                study.add_trial(_told(trial, space, distributions))
        for _ in range(REPEATS):
            asked = study.ask(distributions)
            values = {path: _value(choices, asked.params[path]) for path, choices in space.items()}
            if not _tried(values, trials):
                return values
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
    return _untried(space, trials, own)


def _distribution(choices: Choices) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(choices, OneOf):
        return CategoricalDistribution(tuple(range(len(choices.values))))
    log = isinstance(choices, LogRange)
    if choices.whole:
        return IntDistribution(int(choices.low), int(choices.high), log=log)
    return FloatDistribution(choices.low, choices.high, log=log)


def _told(trial: Trial, space: Mapping[str, Choices], distributions: Mapping[str, Any]) -> Any:
    """A trial in optuna's terms; a choice is told by its place."""
    from optuna.trial import TrialState, create_trial

    params = {
        path: choices.values.index(trial.values[path]) if isinstance(choices, OneOf) else trial.values[path]
        for path, choices in space.items()
    }
    state = TrialState.PRUNED if trial.score is None else TrialState.COMPLETE
    return create_trial(state=state, value=trial.score, params=params, distributions=dict(distributions))


def _value(choices: Choices, param: Any) -> Any:
    """Optuna's answer as a value of the Config."""
    if isinstance(choices, OneOf):
        return choices.values[param]
    if choices.whole:
        return int(param)
    short = float(f"{param:.{DIGITS}g}")
    return min(max(short, choices.low), choices.high)


def _tried(values: Mapping[str, Any], trials: Sequence[Trial]) -> bool:
    return any(trial.values == values for trial in trials)


def _untried(space: Mapping[str, Choices], trials: Sequence[Trial], seed: int) -> dict[str, Any] | None:
    """A setting drawn among those that are left, None when none is."""
    if (n_settings(space) or math.inf) > COUNTABLE:
        return None
    left = [values for values in settings(space) if not _tried(values, trials)]
    return random.Random(seed).choice(left) if left else None
