# SPDX-License-Identifier: GPL-3.0-or-later
"""The example configurations are good, and stay so."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cloudvpn.keygen.cli import run as keygen
from cloudvpn.options import find

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIGS = sorted(EXAMPLES.glob("*/*.conf"))
NEED_AN_ACCOUNT = {"user", "group"}  # which this system may not have

pytestmark = pytest.mark.skipif(not EXAMPLES.exists(), reason="needs a checkout")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like /etc/cloudvpn of all nodes: their configurations, and keys of one CA."""
    folder = tmp_path_factory.mktemp("mesh")
    assert keygen(["ca", "--dir", str(folder)]) == 0
    for config in CONFIGS:
        shutil.copy(config, folder)
        (folder / config.name).chmod(0o644)
        assert keygen(["node", config.stem, "--dir", str(folder)]) == 0
    return folder


def test_every_kind_of_mesh_that_was_promised_is_there() -> None:
    assert {config.parent.name for config in CONFIGS} == {"two-sites", "star", "full-mesh", "multihomed", "relay"}
    listed = re.findall(r"^\| `([\w-]+)` \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted({config.parent.name for config in CONFIGS})


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_cloudvpn_finds_no_mistake_in_an_example(mesh: Path, config: Path) -> None:
    command = [sys.executable, "-m", "cloudvpn", "--check", str(mesh / config.name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "cloudvpn: the configuration is good\n"), done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_is_commented_out_would_be_good_too(config: Path) -> None:
    for name, value in re.findall(r"^#([a-z][\w-]*)(?: (.*))?$", config.read_text(), re.MULTILINE):
        option = find(name)
        assert option is not None, name
        if name not in NEED_AN_ACCOUNT:
            option.parse(value)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_each_node_uses_its_own_keys_and_its_own_place_for_the_status(config: Path) -> None:
    text, name = config.read_text(), config.stem
    assert f"\nkey {name}.key\ncert {name}.crt\nca ca.crt\ncrl crl.pem\n" in text
    assert f"\nstatus-file /run/cloudvpn/{name}/status\n" in text
