"""The rooms: each file or folder here that ends with ``METHOD = TheClass`` is a method, named as its file is.

A method is asked for as ``room[:argument][@preset]``, or as ``path/to/file.py[@preset]`` for a file outside
the suite; the argument of a wrapper is such a method in its turn. Installed packages add rooms by the entry-point
group ``genrec_bench.methods`` (name -> class).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType

from benchmark.method import UNIFIED, Entrant, Method
from benchmark.names import hint
from benchmark.space import TUNED, is_tuned
from methods.blocks.text_encoder import LSA, MINILM

ENTRY_POINTS = "genrec_bench.methods"
NOT_ROOMS = {"blocks", "audits"}
"""Folders here that hold what rooms share and questions asked of them."""

_SPEC = re.compile(r"(?P<room>.+?\.py|[^:@]+)(?::(?P<argument>[^@]+))?(?:@(?P<preset>.+))?")
_WRAPPED_FILE = re.compile(r"(?P<room>\w+):(?P<argument>.+\.py)(?:@(?P<preset>[^/]+))?")
_FILE_STEM = re.compile(r"[A-Za-z0-9_.-]+")


def names() -> list[str]:
    """Every room, sorted. Imports none of them."""
    built_in = _built_in()
    installed = _installed()
    for taken in sorted(built_in & installed.keys()):
        raise ValueError(
            f"the entry point '{installed[taken].value}' of an installed package takes the name '{taken}' of "
            "a built-in method; rename it or uninstall the package"
        )
    return sorted(built_in | installed.keys())


def lineup(track: str = UNIFIED) -> list[str]:
    """The variants that run when no method is named: room by room, in the order of each room's ``lineup``.

    Of a track other than unified only the rooms that have it. Raises ValueError when none has.
    """
    everything = [room + suffix for room in names() for suffix in _room(room).lineup]
    found = [spec for spec in everything if track == UNIFIED or track in load(spec).cls.tracks]
    if not found:
        raise ValueError(f"no method has settings for track {track}; leave --track out")
    return found


def tunable() -> list[str]:
    """The variants of the lineup that declare a search space."""
    return [spec for spec in lineup() if load(spec).cls.search]


def usual_text_encoder(profile: str) -> str:
    """The unified track's, the same for every method; at the smoke profile the one that needs no download."""
    return LSA if profile == "smoke" else MINILM


def load(spec: str) -> Entrant:
    """The method that ``spec`` names. Raises ValueError with the nearest known name."""
    match = _WRAPPED_FILE.fullmatch(spec.strip()) or _SPEC.fullmatch(spec.strip())
    if match is None:
        raise ValueError(f"'{spec}' is no method name; write room[:argument][@preset] or path/to/file.py[@preset]")
    room, argument, preset = match["room"], match["argument"], match["preset"]
    room, cls, source = _found(room)
    if cls.wraps is not None:
        argument, base, source = _base_of(cls, room, argument)
        cls = cls.around(base)
    else:
        _check_argument(cls, room, argument)
        cls = cls.variants.get(argument or "", cls)
    _check_tuned(cls, spec, preset)
    if preset is not None and preset not in cls.presets:
        raise ValueError(f"unknown preset '@{preset}' of {room}; {hint(preset, cls.presets, 'presets', prefix='@')}")
    name = room + (f":{argument}" if argument else "") + (f"@{preset}" if preset else "")
    return Entrant(name, cls, argument, preset, source)


def _found(room: str) -> tuple[str, type[Method], str | None]:
    """A room's name or the path of a file -> its name, its class, the file outside the suite."""
    if not room.endswith(".py"):
        return room, _room(room), None
    path = Path(room).expanduser()
    return path.stem, _external(path), str(path.resolve())


def _base_of(cls: type[Method], room: str, argument: str | None) -> tuple[str, type[Method], str | None]:
    """What a wrapper is to build on -> its name, its class, the file outside the suite."""
    assert cls.wraps is not None
    if argument is None or argument == room:
        fit = ", ".join(f"{room}:{name}" for name in names() if name != room and issubclass(_room(name), cls.wraps))
        raise ValueError(f"{room} builds on another method; write one of {fit}")
    name, base, source = _found(argument)
    if not issubclass(base, cls.wraps):
        raise ValueError(
            f"{room} cannot build on {name}, which is no {cls.wraps.__name__} (a method that decodes semantic IDs); "
            f"{room} alone names the ones it can build on"
        )
    return name, base, source


def _built_in() -> set[str]:
    return {m.name for m in pkgutil.iter_modules(__path__) if m.name not in NOT_ROOMS and not m.name.startswith("_")}


def _installed() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def _room(room: str) -> type[Method]:
    known = names()
    if room not in known:
        raise ValueError(f"unknown method '{room}'; {hint(room, known, 'methods')}")
    if room in _built_in():
        return _method_of(importlib.import_module(f"{__name__}.{room}"), f"methods/{room}")
    return _checked(_installed()[room].load(), f"entry point '{room}'")


def _external(path: Path) -> type[Method]:
    """The METHOD of a file outside the suite. Raises ValueError saying what the file lacks."""
    if not path.is_file():
        raise ValueError(f"there is no method file {path}; check the path")
    if not _FILE_STEM.fullmatch(path.stem):
        raise ValueError(f"'{path.stem}' cannot name a method; rename {path} to letters, digits, '_', '.' and '-'")
    if path.stem in names():
        raise ValueError(f"{path} has the name of the built-in method '{path.stem}'; rename the file")
    return _method_of(_import_file(path), str(path))


def _import_file(path: Path) -> ModuleType:
    name = f"genrec_bench_external_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _method_of(module: ModuleType, source: str) -> type[Method]:
    if not hasattr(module, "METHOD"):
        raise ValueError(f"{source} defines no METHOD; end it with 'METHOD = TheClass'")
    return _checked(module.METHOD, source)


def _checked(cls: object, source: str) -> type[Method]:
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise ValueError(f"METHOD of {source} is {cls!r}, not a subclass of benchmark.method.Method")
    return cls


def _check_argument(cls: type[Method], room: str, argument: str | None) -> None:
    if not cls.arguments:
        if argument is not None:
            raise ValueError(f"{room} takes no argument; write '{room}' instead of '{room}:{argument}'")
    elif argument is None and "" not in cls.arguments:
        choices = ", ".join(f"{room}:{known}" for known in cls.arguments)
        raise ValueError(f"{room} needs an argument; write one of {choices}")
    elif argument is not None and argument not in cls.arguments:
        nearest = hint(argument, cls.arguments, "arguments", prefix=f"{room}:")
        raise ValueError(f"unknown argument '{argument}' of {room}; {nearest}")


def _check_tuned(cls: type[Method], spec: str, preset: str | None) -> None:
    """A tuned row is made by its own command, and no room may pass for one. Raises ValueError."""
    taken = next(filter(is_tuned, cls.presets), None)
    if taken is not None:
        raise ValueError(
            f"{cls.__name__} has a preset '{taken}', but such names are kept for what tuning finds; rename it"
        )
    if preset is not None and is_tuned(preset):
        base = spec.strip().removesuffix(TUNED)[:-1]
        raise ValueError(f"'{spec}' is made by tuning, not by name: run the command 'tune {base} --dataset NAME'")
