# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading words and files: order, includes, and every problem with its place and never a traceback."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from ipaddress import ip_interface
from pathlib import Path

import pytest

from cloudvpn import config
from cloudvpn.config import MAX_DEPTH, MAX_LINE, MAX_SHOWN, Loaded, inside, load_file, load_words
from cloudvpn.errors import ConfigError
from cloudvpn.options import OPTIONS, Endpoint

# What every node needs; the files are made by the fixture below.
TRUST = "key k.pem\ncert c.pem\nca ca.pem\n"
BASE = TRUST + "listen :: 60606\n"

Writer = Callable[[str, "str | bytes"], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """Writes files into a directory that is also the current one and holds keys."""
    monkeypatch.chdir(tmp_path)
    for name in ("k.pem", "c.pem", "ca.pem", "ca2.pem", "pass"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)

    def write(name: str, text: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return name

    write("base.conf", BASE)
    return write


def problems(*words: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_words(words)
    assert all(problem.isprintable() for problem in caught.value.problems)
    return list(caught.value.problems)


def of_line(write: Writer, line: str | bytes) -> list[str]:
    write("node.conf", line)
    return problems("base.conf", "node.conf")


# Lines and words


def test_a_file_is_read_with_all_its_liberties(write: Writer, tmp_path: Path) -> None:
    text = (
        "#!/usr/bin/cloudvpn\r\n# \xff comment\r\n\r\n \t \n" + BASE + "iface\n  conn-retry \t 7s \r\nconn_mtu\t1k\n"
        "status_verbose no\nconnect  a.example \t 1\nconnect b.example 2\niface_up_command ip link # no comment\n"
        "conn_retry 8s"
    )
    loaded = load_file(write("node.conf", text.encode("latin-1")))
    conf = loaded.config
    assert (conf.iface, conf.conn_retry, conf.conn_mtu, conf.status_verbose) == (True, 8_000_000, 1024, False)
    assert conf.connect == (Endpoint("a.example", "1"), Endpoint("b.example", "2"))
    assert conf.iface_up_command == "ip link # no comment"
    assert conf.key == tmp_path / "k.pem"
    assert (loaded.warnings, loaded.unused) == ((), ())


def test_words_mean_what_lines_mean(write: Writer) -> None:
    words = "-key k.pem --cert c.pem -ca ca.pem -ca ca2.pem --listen :: 0 -conn-mtu 1k --conn_retry 7s -iface no -iface"
    conf = load_words(words.split()).config
    assert (conf.conn_mtu, conf.conn_retry, conf.iface) == (1024, 7_000_000, True)
    assert conf.listen == (Endpoint("::", "0"),)
    assert [path.name for path in conf.ca] == ["ca.pem", "ca2.pem"]


def test_a_yes_no_option_takes_the_next_word_only_if_it_is_yes_or_no(write: Writer) -> None:
    assert load_words(["-iface", "base.conf"]).config.iface
    assert load_words(["-iface", "yes", "base.conf"]).config.iface
    assert not load_words(["-iface", "no", "base.conf"]).config.iface


def test_two_minuses_end_the_options(write: Writer) -> None:
    write("-iface", BASE)
    assert load_words(["-conn_retry", "7s", "--", "-iface"]).config.listen
    assert problems("base.conf", "--", "--") == ['command line: cannot read "--": No such file or directory']


def test_other_options_take_the_next_word_whatever_it_is(write: Writer) -> None:
    assert load_words(["base.conf", "-key_pass", "--"]).config.key_pass == "--"


@pytest.mark.parametrize(
    ("words", "retry"),
    [
        (["base.conf"], 10_000_000),
        (["base.conf", "one.conf"], 1_000_000),
        (["base.conf", "one.conf", "-conn_retry", "2s"], 2_000_000),
        (["base.conf", "-conn_retry", "2s", "one.conf"], 1_000_000),
        (["base.conf", "one.conf", "two.conf"], 2_000_000),
        (["base.conf", "-@include", "two.conf", "--@include", "one.conf"], 1_000_000),
        (["base.conf", "-conn_retry", "2s", "-conn_retry", "3s"], 3_000_000),
    ],
)
def test_later_beats_earlier(write: Writer, words: list[str], retry: int) -> None:
    write("one.conf", "conn_retry 9s\nconn_retry 1s\n")
    write("two.conf", "conn_retry 2s\n")
    assert load_words(words).config.conn_retry == retry


def test_lists_keep_their_order_over_files_and_words(write: Writer) -> None:
    write("b.conf", "iface_address 10.0.0.2/8\n@include c.conf\niface_address 10.0.0.4/8\n")
    write("c.conf", "iface_address 10.0.0.3/8\n")
    words = ["-iface", "-iface_address", "10.0.0.1/8", "b.conf", "-iface_address", "10.0.0.5/8", "base.conf"]
    assert load_words(words).config.iface_address == tuple(ip_interface(f"10.0.0.{last}/8") for last in range(1, 6))


def test_paths_are_relative_to_the_file_that_holds_them(write: Writer, tmp_path: Path) -> None:
    write("sub/node.conf", "status-file s\n@include ../other/more.conf\n")
    write("other/more.conf", "chroot ..\nca /etc/../dev/null\n@include deep.conf\n")
    write("other/deep.conf", "tunctl tun\n")
    conf = load_words(["base.conf", "sub/node.conf", "-ca", "ca2.pem"]).config
    assert conf.status_file == tmp_path / "sub/s"
    assert conf.chroot == tmp_path / "sub/../other/.."
    assert conf.tunctl == tmp_path / "sub/../other/tun"
    assert conf.ca == (tmp_path / "ca.pem", Path("/etc/../dev/null"), tmp_path / "ca2.pem")
    assert load_file(tmp_path / "base.conf").config == load_file("base.conf").config


# Problems


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "conn_retry abc",
            'conn_retry: expected a time such as 10000000 (microseconds), 5s or 200ms, got "abc"',
        ),
        ("heartbeat 2min", 'heartbeat: expected a time from 1ms to 1min, got "2min"'),
        ("conn_retry", "conn_retry: expected a time such as 10000000 (microseconds), 5s or 200ms, got nothing"),
        ("iface maybe", 'iface: expected yes or no, got "maybe"'),
        ("conn_rety 5s", "conn_rety: unknown option, the nearest known one is conn_retry"),
        ("status-fil x", "status-fil: unknown option, the nearest known one is status-file"),
        ("multipath_rati 2", "multipath_rati: unknown option, the nearest known one is multipath_ratio"),
        ("Iface yes", "Iface: unknown option, the nearest known one is iface"),
        ("include x", "include: unknown option, the nearest known one is @include"),
        ("qqqqqq 1", "qqqqqq: unknown option"),
        (" # x", "#: a comment has its # in the first column"),
        ("@include", "@include: expected a path, got nothing"),
        ("@include no.conf", '@include: cannot read "no.conf": No such file or directory'),
        ("@include a\0b", '@include: cannot read "a\\x00b": no file can have this name'),
        ("@include sub", '@include: cannot read "sub": it is no regular file'),
        ("@include /dev/null", '@include: cannot read "/dev/null": it is no regular file'),
        ("key_pass geh\0eim", "key_pass: the value is not UTF-8 text, or holds a NUL"),
        ("conn_retry 1\n# fine\nheartbeat \x1b[31m\u202e", "conn_retry: expected a time from 1ms to 24h, "
         'got "1"'),
        ("ca no.pem\nca ca2.pem", 'ca: cannot read "{here}/no.pem": No such file or directory'),
        ("key sub", 'key: cannot read "{here}/sub": it is a directory'),
        ("user no-such-user", 'user: expected the name of a user of this system, got "no-such-user"'),
        ("group no-such", 'group: expected the name of a group of this system, got "no-such"'),
        ("key_pass x\nkey_pass_file pass", None),
    ],
)  # fmt: skip
def test_a_problem_names_file_line_option_and_what_was_expected(
    write: Writer, tmp_path: Path, line: str, problem: str | None
) -> None:
    write("sub/x", "")
    if problem is None:
        expected = "node.conf:2: key_pass_file: excludes key_pass, which is set too (node.conf:1: key_pass)"
    else:
        expected = f"node.conf:1: {problem.format(here=tmp_path)}"
    assert of_line(write, line)[0] == expected


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["-conn_retry", "abc"], "-conn_retry: expected a time such as 10000000 (microseconds), 5s or 200ms, "
         'got "abc"'),
        (["-conn_retry"], "-conn_retry: expected a time such as 10000000 (microseconds), 5s or 200ms, got nothing"),
        (["--conn-rety", "5s"], "--conn-rety: unknown option, the nearest known one is conn_retry"),
        (["--chek"], "--chek: unknown option, the nearest known one is check"),
        (["--check"], "--check: it has to be the first word"),
        (["-"], "-: unknown option"),
        (["-@include"], "-@include: expected a path, got nothing"),
        (["-connect", "a"], "-connect: expected HOST PORT: an address or a name, and a number from 1 to 65535 or a "
         'known service name, got "a"'),
        (["-iface", "maybe"], 'cannot read "maybe": No such file or directory'),
        ([""], 'cannot read "": No such file or directory'),
        (["\0"], 'cannot read "\\x00": no file can have this name'),
        (["a\udcffb"], 'cannot read "a\\udcffb": No such file or directory'),
        (["-key_pass", "a\udcffb"], "-key_pass: the value is not UTF-8 text, or holds a NUL"),
        (["-" + "x" * 100], "-" + "x" * 59 + "...: unknown option"),
    ],
)  # fmt: skip
def test_a_problem_of_the_command_line_names_the_word(write: Writer, words: list[str], problem: str) -> None:
    assert problems("base.conf", *words) == [f"command line: {problem}"]


def test_all_problems_are_reported_in_their_order(write: Writer) -> None:
    write("a.conf", "iface 1\n@include b.conf\nmac 0\nconn_keepalive 2min\n")
    write("b.conf", "\n\nheartbeat 0\n")
    found = problems("-lissten", "::", "1", "-log_level", "x", "a.conf", "-conn_mtu", "13", "-cert", "no.pem")
    places = [problem.partition(": ")[0] for problem in found]
    assert places == ["command line"] * 2 + ["a.conf:1", "b.conf:3", "a.conf:3"] + ["command line"] * 2 + [
        "a.conf:4", "command line", "ca", "iface, listen, connect"]  # fmt: skip
    assert found[8] == "command line: -cert: key: missing: a node needs both its key and its cert"


def test_what_is_missing_is_one_problem_each(write: Writer) -> None:
    assert [problem.partition(":")[0] for problem in problems()] == ["key", "cert", "ca", "iface, listen, connect"]
    assert problems("base.conf", "no.conf") == ['command line: cannot read "no.conf": No such file or directory']


def test_what_an_unreadable_file_may_hold_is_not_reported_as_missing(write: Writer) -> None:
    assert problems("no.conf") == ['command line: cannot read "no.conf": No such file or directory']


@pytest.mark.parametrize("line", ["listen :: 1", "connect a 1", "iface"])
def test_a_node_needs_one_of_iface_listen_and_connect(write: Writer, line: str) -> None:
    assert len(problems(write("t.conf", TRUST))) == 1
    assert load_file(write("node.conf", TRUST + line))


@pytest.mark.parametrize(("mtu", "good"), [(1279, False), (1280, True), (1281, True)])
def test_an_ipv6_address_needs_its_least_mtu(write: Writer, mtu: int, good: bool) -> None:
    name = write("node.conf", f"{TRUST}iface\niface_address fd00::1/64\niface_mtu {mtu}\n")
    if good:
        assert load_file(name)
    else:
        assert "at least 1280 is needed for iface_address fd00::1/64" in problems(name)[0]


@pytest.mark.parametrize(("text", "good"), [("4999999", False), ("5s", False), ("5000001", True)])
def test_conn_timeout_exceeds_conn_keepalive(write: Writer, text: str, good: bool) -> None:
    write("node.conf", f"conn_timeout {text}\n")
    if good:
        assert load_words(["base.conf", "node.conf"])
    else:
        assert problems("base.conf", "node.conf")[0].startswith("node.conf:1: conn_timeout: conn_timeout must exceed")


@pytest.mark.parametrize("name", ["key", "cert", "ca", "crl", "dh", "key_pass_file"])
def test_a_file_that_counts_must_be_readable(write: Writer, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert of_line(write, f"\n{name} no.pem")[0].startswith(f"node.conf:2: {name}: cannot read")
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("pass"))
    assert of_line(write, f"\n{name} pass")[0].endswith('/pass": permission denied')


def test_a_missing_file_that_a_later_word_replaced_does_not_count(write: Writer) -> None:
    assert load_words(["-key", "no.pem", "base.conf"]).config.key == Path.cwd() / "k.pem"


@pytest.mark.parametrize(("count", "more"), [(MAX_SHOWN - 1, 0), (MAX_SHOWN, 0), (MAX_SHOWN + 1, 1), (500, 450)])
def test_of_many_problems_the_first_are_shown_and_the_others_counted(write: Writer, count: int, more: int) -> None:
    found = of_line(write, "iface x\n" * count)
    if more:
        assert found.pop() == f"and {more} more"
    assert found == [f'node.conf:{n}: iface: expected yes or no, got "x"' for n in range(1, count - more + 1)]


def test_an_unknown_option_does_not_make_a_file_of_its_value_but_files_are_read(write: Writer) -> None:
    write("bad.conf", "iface x")
    assert problems("base.conf", "-lissten", "::", "1", "bad.conf") == [
        "command line: -lissten: unknown option, the nearest known one is listen",
        'bad.conf:1: iface: expected yes or no, got "x"',
    ]


def test_long_values_are_cut_and_controls_are_visible(write: Writer) -> None:
    sixty = "x" * 60
    assert of_line(write, f"iface {sixty}") == [f'node.conf:1: iface: expected yes or no, got "{sixty}"']
    assert of_line(write, f"iface {sixty}x") == [f'node.conf:1: iface: expected yes or no, got "{sixty}..."']
    assert of_line(write, "iface \x1b\u202e\r\n") == ['node.conf:1: iface: expected yes or no, got "\\x1b\\u202e"']


# Borders of files


@pytest.mark.parametrize(("size", "good"), [(MAX_LINE - 1, True), (MAX_LINE, True), (MAX_LINE + 1, False)])
def test_a_line_has_a_limit(write: Writer, size: int, good: bool) -> None:
    line = "iface_down_command ".ljust(size, "x")
    if good:
        write("node.conf", line + "\niface\n")
        assert load_words(["base.conf", "node.conf"]).config.iface_down_command == line.split()[1]
    else:
        assert of_line(write, "\n" + line) == ["node.conf:2: the line is longer than 65536 bytes"]


@pytest.mark.parametrize(("size", "good"), [(99, True), (100, True), (101, False)])
def test_a_file_has_a_limit(write: Writer, monkeypatch: pytest.MonkeyPatch, size: int, good: bool) -> None:
    monkeypatch.setattr(config, "MAX_FILE", 100)
    write("node.conf", BASE.ljust(size, "\n"))
    if good:
        assert load_file("node.conf")
    else:
        assert problems("node.conf") == ['command line: cannot read "node.conf": it is larger than 100 bytes']


def chain(write: Writer, length: int) -> None:
    """n0 includes n1 includes ... the base file; `length` times @include in all."""
    for n in range(length):
        write(f"n{n}.conf", f"@include {f'n{n + 1}.conf' if n + 1 < length else 'base.conf'}\n")


@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH])
def test_includes_may_be_16_deep(write: Writer, depth: int) -> None:
    chain(write, depth)
    assert load_file("n0.conf").config.listen


def test_includes_may_not_be_17_deep(write: Writer) -> None:
    chain(write, MAX_DEPTH + 1)
    assert problems("n0.conf") == ['n16.conf:1: @include: cannot read "base.conf": @include is more than 16 deep']


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_circle_of_includes_is_a_problem(write: Writer, tmp_path: Path, length: int) -> None:
    chain(write, length)
    (tmp_path / "link.conf").symlink_to("n0.conf")  # a file is known by what it is, not by its name
    write(f"n{length - 1}.conf", "@include link.conf\n")
    reason = "it includes itself, directly or through others"
    assert problems("n0.conf") == [f'n{length - 1}.conf:1: @include: cannot read "link.conf": {reason}']


def test_a_file_may_be_included_twice_beside_each_other(write: Writer) -> None:
    write("node.conf", "@include base.conf\n@include base.conf\n")
    assert len(load_file("node.conf").config.listen) == 2


@pytest.mark.parametrize(("count", "good"), [(9, True), (10, True), (11, False)])
def test_a_run_reads_a_limited_number_of_files(
    write: Writer, monkeypatch: pytest.MonkeyPatch, count: int, good: bool
) -> None:
    monkeypatch.setattr(config, "MAX_FILES", 10)
    if good:
        assert load_words(["base.conf"] * count)
    else:
        assert problems(*["base.conf"] * count) == ['command line: cannot read "base.conf": more than 10 files']


@pytest.mark.parametrize("kind", ["directory", "pipe", "device", "unreadable"])
def test_what_is_no_readable_file_is_a_problem(write: Writer, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    name = "/dev/zero" if kind == "device" else kind
    if kind == "directory":
        os.mkdir(name)
    elif kind == "pipe":
        os.mkfifo(name)
    elif kind == "unreadable":
        write(name, BASE)

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("builtins.open", refuse)
    reason = "Permission denied" if kind == "unreadable" else "it is no regular file"
    assert problems(name) == [f'command line: cannot read "{name}": {reason}']


def test_a_current_directory_that_is_gone_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert problems("/x") == ["command line: the current directory does not exist any more"]


def test_bytes_that_are_no_text_are_a_problem_of_their_line(write: Writer) -> None:
    assert of_line(write, b"iface\nuser \xff\n\xfe\n") == [
        "node.conf:2: the line is not UTF-8 text",
        "node.conf:3: the line is not UTF-8 text",
    ]


def test_any_bytes_and_any_words_give_a_config_or_a_config_error(write: Writer) -> None:
    rng = random.Random(2009)
    names = [name.encode() for name in (*OPTIONS, "@include", "#", "")]
    values = [b"yes", b"5s", b"\xff", b"\0", b"/", b".", b"fuzz.conf", b":: 1", b"9" * 30, b"\xc2\x85", b"a\r", b""]
    seen: set[type] = set()
    for _ in range(300):
        lines = [rng.choice(names) + rng.choice([b" ", b"\t", b""]) + rng.choice(values) for _ in range(5)]
        lines.append(rng.randbytes(rng.randrange(300)))
        text = b"\n".join(rng.sample(lines, len(lines)))
        write("fuzz.conf", BASE.encode() + text if rng.random() < 0.9 else BASE)
        for words in (["fuzz.conf"], [os.fsdecode(word) for line in lines for word in ((b"-" + line).split(b" "))]):
            try:
                seen.add(type(load_words(words)))
            except ConfigError as error:
                assert error.problems and all(problem.isprintable() for problem in error.problems)
                seen.add(ConfigError)
    assert seen == {Loaded, ConfigError}


# Warnings and options without effect


def test_warnings_have_their_place(write: Writer) -> None:
    write("node.conf", "ssl_method ssl\niface_mtu 1400\nmac 02:00:00:00:00:01\niface no\n")
    assert load_words(["base.conf", "-key_pass", "x", "node.conf"]).warnings == (
        "command line: -key_pass: shows in `ps` to every user of this machine, use key_pass_file",
        "node.conf:1: ssl_method: ssl means the same as tls here: TLS 1.2 or newer",
        "node.conf:2: iface_mtu: without effect, because iface is not set to yes",
        "node.conf:3: mac: without effect, because iface is not set to yes",
    )
    assert load_words(["base.conf", "node.conf", "-iface", "-ssl_method", "tls"]).warnings == ()


def test_a_password_in_a_file_gives_no_warning(write: Writer) -> None:
    assert load_words([write("node.conf", BASE + "key_pass x y\n")]).config.key_pass == "x y"
    assert load_words(["node.conf"]).warnings == ()


def test_options_that_were_set_and_have_no_effect_are_named_once(write: Writer) -> None:
    text = "multipath_ratio 3\nmulti_ratio 4\npoll-interval 4ms\npoll_interval 5ms\nmac_age 7s\nheartbeat 5ms\n"
    write("node.conf", text)
    loaded = load_words(["node.conf", "base.conf"])
    assert loaded.unused == ("poll_interval",)
    assert (loaded.config.multi_ratio, loaded.config.mac_age) == (4, 7_000_000)


def test_who_finds_fault_with_a_value_later_can_say_where_it_was_written(write: Writer, tmp_path: Path) -> None:
    write("other.conf", "listen :: 1\nca ca2.pem\nkey_pass secret\n")
    loaded = load_words(["base.conf", "-@include", "other.conf", "-listen", "::", "2"]).config
    places = [loaded.place("listen", Endpoint("::", port)) for port in "123"]
    assert places == ["other.conf:1: listen", "command line: -listen", "listen"]
    assert loaded.place("ca", tmp_path / "ca2.pem") == "other.conf:2: ca"
    assert "secret" not in repr(loaded)


# Local security


def test_a_chroot_must_be_a_directory_that_is_there(write: Writer, tmp_path: Path) -> None:
    write("node.conf", "chroot none\n")
    assert problems("base.conf", "node.conf") == [
        f'node.conf:1: chroot: cannot use "{tmp_path}/none": No such file or directory'
    ]
    write("node.conf", "chroot base.conf\n")
    assert problems("base.conf", "node.conf") == [
        f'node.conf:1: chroot: cannot use "{tmp_path}/base.conf": it is no directory'
    ]


def test_the_status_file_lies_in_the_chroot(write: Writer, tmp_path: Path) -> None:
    (tmp_path / "jail/run").mkdir(parents=True)
    (tmp_path / "way").symlink_to("jail/run")
    for good in ("jail/s", "jail/run/../s", "way/s", "jail/none/s"):
        write("node.conf", f"chroot jail\nstatus-file {good}\n")
        load_words(["base.conf", "node.conf"])
    (tmp_path / "jail/out").symlink_to("..")
    for bad in ("s", "jail", "jail/../s", "jail/out/s", "/s"):
        write("node.conf", f"chroot jail\nstatus-file {bad}\n")
        assert problems("base.conf", "node.conf") == [
            f'node.conf:2: status-file: must lie in the chroot, such as "{tmp_path}/jail/{Path(bad).name}"'
        ]
    assert inside(tmp_path / "jail", tmp_path / "way/s") == Path("/run/s")


def test_what_binds_nobody_is_warned_of(write: Writer) -> None:
    write("node.conf", "chroot .\ngroup root\n")
    assert load_words(["base.conf", "node.conf"]).warnings == (
        "node.conf:2: group: without user the node stays root, whom a group does not bind: set user, too",
        "node.conf:1: chroot: without user the node stays root, who can leave a chroot: set user, too",
    )
    write("node.conf", "user root\n")
    assert load_words(["base.conf", "node.conf"]).warnings == (
        "node.conf:1: user: this is root, who keeps all rights: name another user",
    )
