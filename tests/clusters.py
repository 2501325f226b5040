"""Machines to start clusters on, all of them this one: a folder each, with an sshd of its own on loopback."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

PROJECT = Path(__file__).resolve().parent.parent
MARK = "GRIDLAW_TEST_CLUSTER"
"""Set in the environment of whatever a test starts: its processes are found by it, and no others."""
SSHD = shutil.which("sshd", path=os.defpath + ":/usr/sbin:/sbin")
TOOLS = {"openssh-server": SSHD, "rsync": shutil.which("rsync"), "netcat-openbsd": shutil.which("nc")}


def need_ssh() -> None:
    """Skip where a package is missing that the tests cannot do without."""
    missing = [package for package, path in TOOLS.items() if path is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (`make cluster-tools` installs them, as root on Debian)")


def free_port() -> int:
    """A port of loopback on which nobody listens at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A home folder with the environment in it, and where its sshd listens."""

    address: str
    home: Path
    key: Path
    """Private, of the user whom sshd lets in."""


def environment(home: Path, mark: str, **more: str) -> dict[str, str]:
    """Of a process that is to believe it is on a machine of its own."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "USER", "LOGNAME") if name in os.environ}
    hidden = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(home / "t"), "OMP_NUM_THREADS": "1"}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "WANDB_MODE": "offline"}
    return kept | hidden | offline | {"HOME": str(home), MARK: mark} | more


def make_home(home: Path) -> None:
    """What `setup_commands` would install: an environment that has every package but the project itself.

    The project is where `pip install --editable ~/gridlaw` would put it: on the path, in ~/gridlaw.
    """
    (home / "t").mkdir(parents=True)
    folder = home / "gridlaw-env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(f"{packages}\n{home / 'gridlaw'}\n")
    (folder / "bin" / "ray").write_text(
        f"#!{folder / 'bin' / 'python'}\nimport sys\nfrom ray.scripts.scripts import main\nsys.exit(main())\n"
    )
    (folder / "bin" / "ray").chmod(0o755)
    (folder / ".installed").touch()


@contextmanager
def machines(root: Path, mark: str, addresses: list[str], port: int) -> Iterator[list[Machine]]:
    """Machines that answer ssh at `address`:`port`; every process with the mark is gone afterwards."""
    key = root / "key"
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f"]
    subprocess.run([*keygen, str(key)], check=True)
    subprocess.run([*keygen, str(root / "host")], check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd locks its unprivileged half in
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        found = []
        for address in addresses:
            machine, daemon = _start(root, mark, address, port, key)
            daemons.append(daemon)
            found.append(machine)
        for machine in found:
            _wait(machine.address, port)
        yield found
    finally:
        for daemon in daemons:  # not found by the mark: sshd writes over its own environment
            sessions = psutil.Process(daemon.pid).children(recursive=True)
            daemon.terminate()
            daemon.wait(10)
            for session in sessions:
                with suppress(psutil.NoSuchProcess):
                    session.kill()
        end(mark)


def _start(root: Path, mark: str, address: str, port: int, key: Path) -> tuple[Machine, "subprocess.Popen[bytes]"]:
    home = root / f"m{address.rpartition('.')[2]}"
    make_home(home)
    # The shell that sshd starts has the user's real home as its working folder; Ray's next file is this one.
    (home / ".bashrc").write_text('cd "$HOME"\n')
    # On a real machine sshd listens on port 22, and ssh takes `~` for the same folder as the shell.
    wrapper = home / "gridlaw-env" / "bin" / "ssh"
    wrapper.write_text(
        f"#!/bin/sh\nexec {shutil.which('ssh')} -o 'ProxyCommand=nc %h {port}' -i ~/ray_bootstrap_key.pem \"$@\"\n"
    )
    wrapper.chmod(0o755)
    variables = " ".join(f'"{name}={value}"' for name, value in environment(home, mark).items() if name != "PATH")
    config = home / "sshd_config"
    config.write_text(
        f"ListenAddress {address}:{port}\nHostKey {root / 'host'}\nAuthorizedKeysFile {key}.pub\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nSetEnv {variables}\n"
    )
    assert SSHD
    log = home / "sshd.log"
    daemon = subprocess.Popen([SSHD, "-D", "-f", str(config), "-E", str(log)], env=environment(home, mark))
    return Machine(address=address, home=home, key=key), daemon


def _wait(address: str, port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection((address, port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def end(mark: str) -> None:
    """End every process that has the mark in its environment, and wait until they are gone."""
    for _ in range(10):
        ours = running(mark)
        if not ours:
            return
        for process in ours:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(ours, timeout=5)
    raise AssertionError(f"still there: {ours}")


def running(mark: str) -> list[psutil.Process]:
    """The processes that have the mark."""
    return [process for process in psutil.process_iter() if _has(process, mark)]


def _has(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False
