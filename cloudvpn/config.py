# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the command line and config files into a Config, and reports all problems of a run together."""

from __future__ import annotations

import difflib
import os
import pwd
import re
import stat
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .errors import ConfigError
from .log import escape
from .options import BY_NAME, ETHERNET_HEADER, FILE, INTERFACE, OPTIONS, YES_NO, Config, Option, find
from .permissions import config_problem, secret_problem
from .privileges import ROOT

MAX_DEPTH: Final = 16  # @include inside @include
MAX_FILES: Final = 1000  # in one run: files that include each other twice would double with each level
IPV6_LEAST_MTU: Final = 1280  # RFC 8200, section 5
MAX_FILE: Final = 16 << 20  # bytes
MAX_LINE: Final = 64 << 10  # bytes, without the newline
MAX_SHOWN: Final = 50  # problems
MAX_QUOTED: Final = 60  # characters of what the user wrote
MAX_PATH: Final = 4096  # characters of a path: PATH_MAX of Linux

COMMANDS: Final = ("check", "demo", "help", "version")  # first words of a command line, with a minus or two
INCLUDE: Final = "@include"
SECRETS: Final = ("key", "key_pass_file")
IS_LINUX: Final = sys.platform == "linux"
ELSEWHERE: Final = {"iface_device"} if IS_LINUX else {"iface_dev", "tunctl"}


@dataclass(frozen=True)
class Loaded:
    """A config without problems, and what the user should know of it."""

    config: Config
    warnings: tuple[str, ...]
    unused: tuple[str, ...]  # options that the user set and that have no effect


def load_file(path: str | os.PathLike[str]) -> Loaded:
    return load_words(["--", os.fspath(path)])


def load_words(words: Sequence[str]) -> Loaded:
    """Read the words of a command line, in their order: options, and names of files.

    Not argparse: it knows neither one-dash words that may hold two dashes, nor a yes/no option that takes the next
    word only if it is yes or no, nor the order between options and files, nor more than one error a run.
    """
    try:
        reader = _Reader(Path.cwd())
    except OSError:
        raise ConfigError(["command line: the current directory does not exist any more"]) from None
    reader.read_words(words)
    return reader.finish()


class _Reader:
    """What was read so far: the good values with their places, and the problems in their order."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.entries: dict[str, list[tuple[str, Any]]] = {}  # attribute -> (place, value), good values only
        self.seen: dict[str, str] = {}  # attribute -> last place, of bad values too
        self.warnings: list[str] = []
        self.problems: list[str] = []
        self.hidden = 0  # problems over MAX_SHOWN
        self.files = 0
        self.infos: dict[str, os.stat_result] = {}  # of the files that were read
        self.is_incomplete = False  # a file could not be read: what is missing may be in there

    def report(self, place: str, problem: str) -> None:
        if len(self.problems) < MAX_SHOWN:
            self.problems.append(escape(f"{place}: {problem}"))
        else:
            self.hidden += 1

    def warn(self, place: str, warning: str) -> None:
        self.warnings.append(escape(f"{place}: {warning}"))

    # The command line

    def read_words(self, words: Sequence[str]) -> None:
        left = deque(words)
        while left:
            word = left.popleft()
            if word == "--":
                break
            if word.startswith("-"):
                self._read_option(word, left)
            else:
                self._read_file(word, "command line", ())
        for word in left:
            self._read_file(word, "command line", ())

    def _read_option(self, word: str, left: deque[str]) -> None:
        place = f"command line: {_cut(word)}"
        name = word.removeprefix("-").removeprefix("-")
        option = find(name)
        if name == INCLUDE:
            self._include(left.popleft() if left else "", place, Path(), ())
        elif option is None:
            self._report_unknown(place, name, COMMANDS)
            # What follows is most likely its value: to report it as a missing file would hide the typo.
            while left and not left[0].startswith("-") and not os.path.exists(left[0]):
                left.popleft()
        elif option.kind is YES_NO:
            self._set(option, place, left.popleft() if left and left[0] in ("yes", "no") else "yes", self.cwd)
        else:
            value = " ".join(left.popleft() for _ in range(min(option.kind.words, len(left))))
            self._set(option, place, value, self.cwd)
            if option.attribute == "key_pass":
                self.warn(place, "shows in `ps` to every user of this machine, use key_pass_file")

    # Files

    def _include(self, value: str, place: str, folder: Path, above: tuple[tuple[int, int], ...]) -> None:
        if value:
            self._read_file(str(folder / value), place, above)
        else:
            self.report(place, "expected a path, got nothing")

    def _read_file(self, name: str, place: str, above: tuple[tuple[int, int], ...]) -> None:
        """Read one file; `above` identifies the files that include it, the outermost first."""
        self.files += 1
        try:
            info, lines = _read_lines(name)
            identity = (info.st_dev, info.st_ino)
            self.infos[name] = info
            if identity in above:
                raise OSError("it includes itself, directly or through others")
            if len(above) > MAX_DEPTH:
                raise OSError(f"{INCLUDE} is more than {MAX_DEPTH} deep")
            if self.files > MAX_FILES:
                raise OSError(f"more than {MAX_FILES} files")
        except (OSError, ValueError) as error:
            self.is_incomplete = True
            self.report(place, f"cannot read {_quote(name, MAX_PATH)}: {_reason(error)}")
            return
        for number, line in enumerate(lines, 1):
            self._read_line(line, name, number, (*above, identity))

    def _read_line(self, line: bytes, file: str, number: int, files: tuple[tuple[int, int], ...]) -> None:
        if len(line) > MAX_LINE:
            self.report(f"{file}:{number}", f"the line is longer than {MAX_LINE} bytes")
            return
        if line.startswith(b"#"):  # in whatever encoding: comments of 2009 need not be UTF-8
            return
        try:
            text = line.decode().strip(" \t\r")
        except UnicodeDecodeError:
            self.report(f"{file}:{number}", "the line is not UTF-8 text")
            return
        if not text:
            return
        name, value = (*re.split(r"[ \t]+", text, maxsplit=1), "")[:2]
        place = f"{file}:{number}: {_cut(name)}"
        folder = Path(file).parent
        option = find(name)
        if name == INCLUDE:
            self._include(value, place, folder, files)
        elif option is None:
            self._report_unknown(place, name)
        else:
            self._set(option, place, "yes" if option.kind is YES_NO and not value else value, self.cwd / folder)

    # Both

    def _report_unknown(self, place: str, name: str, commands: Sequence[str] = ()) -> None:
        problem = "unknown option"
        if name.startswith("#"):
            problem = "a comment has its # in the first column"
        elif name in commands:
            problem = "it has to be the first word"
        elif len(self.problems) < MAX_SHOWN:  # the search is slow, a file of garbage has many lines
            known = {key: row.name if row.attribute == key else key for key, row in BY_NAME.items()}
            known |= {word: word for word in (INCLUDE, *commands)}
            for near in difflib.get_close_matches(name[:MAX_QUOTED].replace("-", "_").lower(), known, 1):
                problem += f", the nearest known one is {known[near]}"
        self.report(place, problem)

    def _set(self, option: Option, place: str, text: str, folder: Path) -> None:
        self.seen[option.attribute] = place
        if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):  # surrogates: see os.fsdecode()
            self.report(place, "the value is not UTF-8 text, or holds a NUL")  # not quoted, it may be a password
            return
        try:
            value = option.parse(text)
        except ValueError as error:
            self.report(place, f"expected {error}, got {_quote(text) if text else 'nothing'}")
        else:
            value = folder / value if isinstance(value, Path) else value
            self.entries.setdefault(option.attribute, []).append((place, value))

    # What can be told only when all is read

    def finish(self) -> Loaded:
        values: dict[str, Any] = {
            key: tuple(value for _, value in entries) if OPTIONS[key].is_list else entries[-1][1]
            for key, entries in self.entries.items()
        }
        places = {(key, value): place for key, entries in self.entries.items() for place, value in entries}
        config = Config(**values, places=places)
        self._check_files(self.report if config.strict_permissions else self.warn)
        self._check_combinations(config)
        if not self.is_incomplete:
            self._check_missing(config)
        if self.problems:
            raise ConfigError(self.problems + ([f"and {self.hidden} more"] if self.hidden else []))
        self._collect_warnings(config)
        unused = tuple(row.name for key, row in OPTIONS.items() if key in self.seen and row.unused)
        return Loaded(config, tuple(self.warnings), unused)

    def _check_files(self, open_to_others: Callable[[str, str], None]) -> None:
        """Only those that count: a path that a later line replaced need not be there."""
        for name, info in self.infos.items():
            if problem := config_problem(name, info):
                open_to_others("strict_permissions", problem)
        for key, entries in self.entries.items():
            if OPTIONS[key].kind is FILE:
                for place, path in entries if OPTIONS[key].is_list else entries[-1:]:
                    try:
                        info = path.stat()
                        if stat.S_ISDIR(info.st_mode):
                            raise OSError("it is a directory")
                        if not os.access(path, os.R_OK):  # to open it would wait on a pipe, or end its writer
                            raise OSError("permission denied")
                    except OSError as error:
                        self.report(place, f"cannot read {_quote(str(path), MAX_PATH)}: {_reason(error)}")
                        continue
                    if key in SECRETS and (problem := secret_problem(path, info)):
                        open_to_others(place, problem)

    def _check_combinations(self, config: Config) -> None:
        if config.key_pass is not None and config.key_pass_file is not None:
            self.report(self.seen["key_pass_file"], f"excludes key_pass, which is set too ({self.seen['key_pass']})")
        if config.conn_timeout <= config.conn_keepalive:
            key = "conn_timeout" if "conn_timeout" in self.seen else "conn_keepalive"
            timeout, keepalive = (
                OPTIONS[name].kind.show(getattr(config, name)) for name in ("conn_timeout", "conn_keepalive")
            )
            problem = f"conn_timeout must exceed conn_keepalive, but they are {timeout} and {keepalive}"
            self.report(self.seen[key], problem)
        if config.iface_mtu is not None and config.iface_mtu < IPV6_LEAST_MTU:
            for address in config.iface_address:
                if address.version == 6:
                    problem = f"at least {IPV6_LEAST_MTU} is needed for iface_address {address}"
                    self.report(self.seen["iface_mtu"], problem)

        if config.chroot is not None:
            self._check_chroot(config, config.chroot)

    def _check_chroot(self, config: Config, chroot: Path) -> None:
        place = self.seen["chroot"]
        try:
            if not stat.S_ISDIR(chroot.stat().st_mode):
                raise OSError("it is no directory")
        except OSError as error:
            self.report(place, f"cannot use {_quote(str(chroot), MAX_PATH)}: {_reason(error)}")
            return
        if config.status_file is not None and inside(chroot, config.status_file) is None:
            self.report(self.seen["status_file"], "must lie in the chroot, such as "
                        f"{_quote(str(chroot / config.status_file.name), MAX_PATH)}")

    def _check_missing(self, config: Config) -> None:
        for key, other in (("key", "cert"), ("cert", "key")):
            if key not in self.seen:
                place = f"{self.seen[other]}: " if other in self.seen else ""
                self.report(f"{place}{key}", f"missing: a node needs both its {key} and its {other}")
        if "ca" not in self.seen:
            self.report("ca", "missing: a node needs at least one CA to know whom to trust")
        if not config.iface and not self.seen.keys() & {"listen", "connect"}:
            self.report("iface, listen, connect", "all missing: a node with none of them has nothing to do")

    def _collect_warnings(self, config: Config) -> None:
        if config.ssl_method == "ssl":
            self.warn(self.seen["ssl_method"], "ssl means the same as tls here: TLS 1.2 or newer")
        for key, place in self.seen.items():
            if not config.iface and key != "iface" and OPTIONS[key].group == INTERFACE:
                self.warn(place, "without effect, because iface is not set to yes")
        if config.iface:
            self._collect_interface_warnings(config)
        self._collect_security_warnings(config)

    def _collect_security_warnings(self, config: Config) -> None:
        if config.user is not None and pwd.getpwnam(config.user).pw_uid == ROOT:
            self.warn(self.seen["user"], "this is root, who keeps all rights: name another user")
        elif config.user is None and config.group is not None:
            self.warn(self.seen["group"], "without user the node stays root, whom a group does not bind: set user, too")
        if config.user is None and config.chroot is not None:
            self.warn(self.seen["chroot"], "without user the node stays root, who can leave a chroot: set user, too")

    def _collect_interface_warnings(self, config: Config) -> None:
        for key in ELSEWHERE & self.seen.keys():
            self.warn(self.seen[key], "without effect on this system: here it is "
                      + ("iface_dev that names the interface" if IS_LINUX else "iface_device that names the TAP"))
        if config.iface_mtu is not None and config.iface_mtu + ETHERNET_HEADER > config.conn_mtu:
            self.warn(self.seen["iface_mtu"], f"allows frames of {config.iface_mtu + ETHERNET_HEADER} bytes with their "
                      f"Ethernet header, larger ones than conn-mtu {OPTIONS['conn_mtu'].show(config.conn_mtu)} are "
                      "dropped: set both to fit")
        if config.iface_persist and IS_LINUX and (config.iface_dev is None or "%d" in config.iface_dev):
            self.warn(self.seen["iface_persist"], "each start will leave one more interface: set iface_dev to one name")


def inside(chroot: Path, path: Path) -> Path | None:
    """What `path` is called inside the chroot; None if it lies outside. Links on the way to it are followed."""
    folder = path.parent.resolve()
    root = chroot.resolve()
    return Path("/") / folder.relative_to(root) / path.name if folder.is_relative_to(root) else None


def _read_lines(name: str) -> tuple[os.stat_result, list[bytes]]:
    """Read a config file; its device and inode tell it from all others."""
    info = os.stat(name)
    if not stat.S_ISREG(info.st_mode):  # before open(): that of a pipe or a terminal may wait forever
        raise OSError("it is no regular file")
    with open(name, "rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise OSError(f"it is larger than {MAX_FILE} bytes")
    return info, data.split(b"\n")


def _reason(error: Exception) -> str:
    if isinstance(error, ValueError):  # a NUL; Python's words for it change from version to version
        return "no file can have this name"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _cut(text: str, limit: int = MAX_QUOTED) -> str:
    return text if len(text) <= limit else text[:limit] + "..."


def _quote(text: str, limit: int = MAX_QUOTED) -> str:
    return f'"{_cut(text, limit)}"'
