# SPDX-License-Identifier: GPL-3.0-or-later
"""A TOML file whose mistakes are told with their lines: `Source` is the file, `Table` one table of it."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

from cloudvpn.errors import ConfigError
from cloudvpn.log import escape

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

HEADER: Final = re.compile(r"\s*\[\[?\s*([\w-]+)\s*\]")
MAX_QUOTED: Final = 60


def quote(value: object) -> str:
    text = escape(str(value))
    return f'"{text[:MAX_QUOTED]}..."' if len(text) > MAX_QUOTED else f'"{text}"'


def suggest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f'; did you mean "{near[0]}"?' if near else ""


class Source:
    """One file, parsed. Its mistakes are collected in `problems`, each a sentence with file and line."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.path, self.problems = path, problems
        try:
            text = path.read_text(encoding="utf-8")
            root: dict[str, Any] = tomllib.loads(text)
        except OSError as error:
            raise ConfigError([f"{path}: {error.strerror}; give the path of a scenario file"]) from error
        except UnicodeDecodeError as error:
            raise ConfigError([f"{path}: not a text in UTF-8"]) from error
        except tomllib.TOMLDecodeError as error:
            place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
            line = place[1] if place and place[1] else len(text.splitlines())
            message = str(error)[: place.start()] if place else str(error)
            raise ConfigError([f"{path}:{line}: {message}; this is not TOML"]) from error
        self._lines = text.splitlines()
        # The keys before the first table; and, in the end, tables whose names nobody asked for.
        self.top = Table(self, "", -1, root)

    def line(self, table: str, index: int, key: str) -> int:
        """The line of a key in the table that is the `index`th of its name, or else that of its header."""
        count, found, name = -1, 1, ""
        for number, line in enumerate(self._lines, 1):
            if header := HEADER.match(line):
                name = header[1]
                count += name == table
                if name == table and count == index:
                    found = number
            elif name == table and count == max(index, 0) and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
                return number
        return found

    def tables(self, name: str) -> list[Table]:
        """All `[[name]]` of the file."""
        value = self.top.values.pop(name, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            self.problems.append(f"{self.path}:{self.line(name, 0, '')}: {name}: write it as [[{name}]]")
            return []
        return [Table(self, name, index, entry) for index, entry in enumerate(value)]

    def table(self, name: str) -> Table | None:
        """`[name]`, if it is there."""
        value = self.top.values.pop(name, None)
        if value is None or isinstance(value, dict):
            return None if value is None else Table(self, name, 0, value)
        self.problems.append(f"{self.path}:{self.line(name, 0, '')}: {name}: write it as [{name}]")
        return None


class Table:
    """Keys are taken out of it; what is left in the end is a mistake."""

    def __init__(self, source: Source, name: str, index: int, values: dict[str, Any]) -> None:
        self.source, self.name, self.index = source, name, index
        self.values, self._known = values, list[str]()

    def place(self, key: str = "") -> str:
        if self.name or not isinstance(self.values.get(key), (dict, list)):
            line = self.source.line(self.name, self.index, key)
        else:
            line = self.source.line(key, 0, "")
        return f"{self.source.path}:{line}: {key or self.name}"

    def complain(self, key: str, message: str) -> None:
        self.source.problems.append(f"{self.place(key)}: {message}")

    def take(self, key: str, parse: Callable[[Any], T]) -> T | None:
        """The value of `key`; None if it is not there, or bad, which is noted."""
        self._known.append(key)
        if key not in self.values:
            return None
        try:
            return parse(self.values[key])
        except (ValueError, KeyError, TypeError) as error:
            self.complain(key, f"{quote(self.values[key])} is not {error.args[0]}")
            return None
        finally:
            self.values.pop(key)

    def need(self, key: str, parse: Callable[[Any], T]) -> T | None:
        if key not in self.values:
            self.complain("", f'"{key}" is missing')
        return self.take(key, parse)

    def left(self) -> list[str]:
        """What has not been taken."""
        return list(self.values)

    def finish(self, also: Iterable[str] = ()) -> None:
        """`also`: further keys that there might have been."""
        for key in self.values:
            self.complain(key, f"there is no such option here{suggest(key, [*self._known, *also])}")
