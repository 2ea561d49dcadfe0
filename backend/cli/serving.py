"""`serve`: open the studio in a browser."""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import sys
from pathlib import Path
from typing import Any

from backend.cli.output import say
from backend.errors import UsageError
from backend.messages import message
from backend.supervisor import PAGE_ONLY
from backend.workspace import Workspace

ROOT = Path(__file__).parents[2]
SECRETS = ROOT / ".streamlit" / "secrets.toml"
LEAN = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OPENBLAS_NUM_THREADS": "1",
}
"""Variables that keep the page process small (measured: 40 MB less after every page)."""


def add_commands(commands: Any) -> None:
    """Add this module's command to the parser."""
    serve = commands.add_parser(
        "serve", help="serve the studio; a workspace that does not exist yet becomes a starter"
    )
    serve.add_argument("--port", type=int, default=8501)
    serve.add_argument("--address", default="127.0.0.1")
    serve.add_argument(
        "--allow-remote",
        action="store_true",
        help="serve to other machines; needs a login in .streamlit/secrets.toml",
    )
    serve.set_defaults(command=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    check_address(arguments.address, allowed=arguments.allow_remote)
    check_port(arguments.address, arguments.port)
    root: Path = arguments.workspace.resolve()
    if not (root / "workspace.toml").exists():
        from backend.starter.create import create_starter

        say(f"Creating the starter workspace in {root}")
        create_starter(root, report=lambda key: say(f"  {message(f'starter.{key}')}"))
    Workspace.open(root)
    address, port = arguments.address, arguments.port
    shown = f"[{address}]" if ":" in address else address
    print(f"SynthLoop: http://{shown}:{port}", flush=True)
    environment = {**LEAN, **os.environ, "SYNTHLOOP_WORKSPACE": str(root)}
    environment[PAGE_ONLY] = ",".join(name for name in LEAN if name not in os.environ)
    os.chdir(ROOT)
    # The server takes this process's place, so that whoever started it stops it by its pid.
    os.execve(  # noqa: S606
        sys.executable,
        [
            sys.executable, "-m", "pages.widgets.server", "run", "app.py",
            "--server.address", address,
            "--server.port", str(port),
            "--server.headless", "true",
        ],
        environment,
    )  # fmt: skip


def check_address(address: str, *, allowed: bool) -> None:
    """Refuse to serve to other machines without an explicit wish and a login.

    Raises:
        UsageError: The address is not a loopback address, and either is missing.
    """
    if is_loopback(address):
        return
    if not allowed:
        raise UsageError(
            "this address serves the studio to other machines.",
            place=f"--address {address}",
            remedy="Use an SSH tunnel to 127.0.0.1, or add --allow-remote and a login.",
        )
    if not has_login():
        raise UsageError(
            "there is no login, so anybody on the network could start programs here.",
            place=str(SECRETS),
            remedy="Add an [auth] section for Streamlit's OpenID Connect login.",
        )


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def has_login() -> bool:
    """Whether Streamlit's login is configured."""
    import tomllib
    from importlib.util import find_spec

    if not SECRETS.is_file():
        return False
    if find_spec("authlib") is None:
        raise UsageError(
            "the login needs the package Authlib.",
            place=str(SECRETS),
            remedy="Install it beside the others: .venv/bin/pip install Authlib==1.9.10",
        )
    with SECRETS.open("rb") as file:
        try:
            return "auth" in tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"this is not TOML: {error}.", place=str(SECRETS)) from error


def check_port(address: str, port: int) -> None:
    """Refuse a port that is taken: an old server would answer silently in our place.

    Raises:
        UsageError: It is taken, not allowed, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"the port cannot be used: {error}.",
                place=f"{address}:{port}",
                remedy="End the other program, or choose another port: make run PORT=8502",
            ) from error
