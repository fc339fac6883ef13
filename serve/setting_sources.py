"""Where settings come from: the environment, and a TOML file that the environment overrides.

A setting `name` is the variable `YOUTU_NAME` or the key `name`. The file is `youtu.toml` in the working
directory, or the one that `YOUTU_CONFIG` names. This module handles names, not their meaning.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "YOUTU_"
CONFIG_VARIABLE = "YOUTU_CONFIG"
CONFIG_FILE = "youtu.toml"
OF_THE_CLIENT = {"YOUTU_SERVER"}  # read by client/, which runs in the same shells


def read(environ: Mapping[str, str], known: Collection[str], faults: list[str]) -> dict[str, tuple[str, Any]]:
    """Setting -> where it was set and its value. Appends a line to `faults` for whatever cannot be read.

    An empty variable counts as not set.
    """
    sources = (*_from_file(environ, known, faults), *_from_environment(environ, known, faults))
    return {setting: (origin, value) for setting, origin, value in sources}


def _from_file(
    environ: Mapping[str, str], known: Collection[str], faults: list[str]
) -> Iterable[tuple[str, str, Any]]:
    named = environ.get(CONFIG_VARIABLE)
    path = Path(named or CONFIG_FILE)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows add the mark
    except FileNotFoundError:
        if named:
            faults.append(f"{CONFIG_VARIABLE}: file not found: {path}")
        return
    except UnicodeDecodeError as error:
        faults.append(f"{path}: byte {error.start + 1} is not UTF-8; save the file as UTF-8")
        return
    except (OSError, tomllib.TOMLDecodeError) as error:
        faults.append(f"{path}: cannot be read as TOML: {error}")
        return
    for key, value in values.items():
        origin = f"{key} in {path}"
        if isinstance(value, dict):
            faults.append(f"{origin}: is a table; write settings as plain keys outside any table")
        elif key not in known:
            setting = _setting(key)
            hint = f"; in a file the key is {setting}" if setting in known else _nearest(setting, known)
            faults.append(f"{origin}: unknown setting{hint}")
        elif isinstance(value, bool | list):
            sent = "a list" if isinstance(value, list) else str(value).lower()
            faults.append(f'{origin}: should be a number or a quoted text such as "on", not {sent}')
        else:
            yield key, origin, value


def _from_environment(
    environ: Mapping[str, str], known: Collection[str], faults: list[str]
) -> Iterable[tuple[str, str, Any]]:
    for variable, value in sorted(environ.items()):
        if not value or variable in {CONFIG_VARIABLE, *OF_THE_CLIENT}:
            continue
        setting = _setting(variable)
        correct = PREFIX + setting.upper()
        if variable == correct and setting in known:
            yield setting, variable, value
        elif variable.startswith(PREFIX) or (setting in known and _plain(variable) == correct):
            names = [PREFIX + name.upper() for name in known]
            hint = f"; did you mean {correct}?" if setting in known else _nearest(correct, names)
            faults.append(f"{variable}: unknown setting{hint}")


def _plain(name: str) -> str:
    return name.replace("-", "_").upper()


def _setting(name: str) -> str:
    """The setting that a variable or key is meant to be: without prefix, capitals and dashes."""
    return _plain(name).removeprefix(PREFIX).lower()


def _nearest(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else " (docs/settings.md lists them all)"
