# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmarks make of their figures, and that the documentation shows those that are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.lab.command import DOCS, DOCUMENT
from bench.lab.results import Figures, Results, Row
from bench.lab.rounds import Subject, apt_line, measure_in_turn
from bench.lab.table import put_table
from bench.mesh.__main__ import show as show_mesh
from bench.peers.report import show as show_peers
from bench.profile.groups import COPIED_KERNEL, COPIED_USER, GROUPS, KERNEL_REST, LIBRARY, group_of
from bench.profile.samples import read_samples

FIGURES = Figures(
    tcp_mbit=1000, cpu_s_per_gb=1.5, loaded_rtt_us=2000, loaded_lost=0, tcp_streams_mbit=900, udp_kpps=50, rtt_us=100
)
SCRIPT = """\
cloudvpn    71
\t          242031 [unknown] (/usr/lib/x86_64-linux-gnu/libcrypto.so.3)

cloudvpn    71
\tffffffff81b6a460 _copy_from_iter ([kernel.kallsyms])
\tffffffff8200ec5b tcp_sendmsg ([kernel.kallsyms])
\t           f8350 __GI___libc_write (/usr/lib/x86_64-linux-gnu/libc.so.6)

cloudvpn    71
\tffffffff82034750 tcp_v4_rcv ([kernel.kallsyms])
\tffffffff81e66000 net_rx_action ([kernel.kallsyms])
\tffffffff8200ec5b tcp_sendmsg ([kernel.kallsyms])

cloudvpn    72
\tffffffff82034750 tcp_v4_rcv ([kernel.kallsyms])
\tffffffff81db5f37 tun_chr_write_iter ([kernel.kallsyms])

cloudvpn    72
\tffffffff81db5f37 do_syscall_64 ([kernel.kallsyms])

a name with spaces    73
\t           12877 __memmove_avx512_unaligned_erms (/usr/lib/x86_64-linux-gnu/libc.so.6)
\t              10 [unknown] ([unknown])

cloudvpn    72
\t           12877 operator new(unsigned long) (/venv/site-packages/uvloop/loop.so)

cloudvpn    72
\t           12877 malloc (/usr/lib/x86_64-linux-gnu/libc.so.6)

swapper     0
\tffffffff821f2c2b pv_native_safe_halt ([kernel.kallsyms])

"""


def test_each_sample_of_perf_falls_into_the_group_of_what_ran() -> None:
    samples = list(read_samples(SCRIPT))
    assert [(sample.command, sample.process) for sample in samples[4:7]] == [
        ("cloudvpn", 72), ("a name with spaces", 73), ("cloudvpn", 72)
    ]  # fmt: skip
    assert [group_of(sample) for sample in samples] == [
        "AES-GCM (libcrypto)", COPIED_KERNEL, "TCP: write, in it the receive of the other side",
        "TAP: write, with the TCP of the inner side", KERNEL_REST, COPIED_USER, "uvloop", LIBRARY, KERNEL_REST,
    ]  # fmt: skip
    assert {group_of(sample) for sample in samples} <= set(GROUPS)


def test_the_median_is_that_of_each_figure_by_itself() -> None:
    row = Row("", [FIGURES, replace(FIGURES, tcp_mbit=3, rtt_us=300), replace(FIGURES, tcp_mbit=2, rtt_us=200)])
    assert row.median == replace(FIGURES, tcp_mbit=3, rtt_us=200)


def test_a_kept_run_is_read_as_it_was(tmp_path: Path) -> None:
    row = Row("title", [FIGURES, replace(FIGURES, loaded_rtt_us=float("nan"))], ["failed once"])
    results = Results({"cpu": "x", "cpus": 2}, 3, 4, {"name": row}, {"other": ["package"]})
    results.save(tmp_path / "run.json")
    assert repr(Results.load(tmp_path / "run.json")) == repr(results)


def test_what_is_not_installed_is_left_out_and_the_packages_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    def build(lab: object) -> list[object]:
        raise AssertionError("it is not there")

    lacking = {"no-such-command-1": "package-b", "no-such-command-2": "package-a", "sh": "dash"}
    results = measure_in_turn({"one": Subject("", build, lacking)}, rounds=1, seconds=1)  # type: ignore[arg-type]
    assert results.rows == {} and results.missing == {"one": ["package-a", "package-b"]}
    assert apt_line(["package-a", "package-b"]) in capsys.readouterr().err
    assert "Not installed, not measured: one." in show_peers(results)


def test_a_table_replaces_the_one_between_its_marks_only(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text("before\n<!-- a -->\nold\n<!-- /a -->\nbetween\n<!-- b -->\nstays\n<!-- /b -->\n")
    put_table(document, "a", "new")
    assert document.read_text() == (
        "before\n<!-- a -->\n\nnew\n\n<!-- /a -->\nbetween\n<!-- b -->\nstays\n<!-- /b -->\n"
    )
    with pytest.raises(ValueError, match="no place for the table c"):
        put_table(document, "c", "new")


@pytest.mark.skipif(not DOCUMENT.exists(), reason="needs a checkout")
@pytest.mark.parametrize(("name", "show"), [("bench-peers", show_peers), ("bench-mesh", show_mesh)])
def test_the_documentation_shows_the_figures_that_are_kept(name: str, show: object) -> None:
    assert callable(show)
    table = show(Results.load(DOCS / f"{name}.json"))
    command = f"python -m {name.replace('-', '.')} --report"
    assert f"<!-- {name} -->\n\n{table}\n\n<!-- /{name} -->" in DOCUMENT.read_text(), f"run {command}"
