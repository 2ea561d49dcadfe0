"""`init`, `check` and `import`: a workspace and what is in it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backend.assets import ASSETS
from backend.cli.output import add_json, opened, print_json, print_table, say
from backend.environment import checks, concerns, not_ready, readiness
from backend.environment.checking import Check, Remedy, gib
from backend.errors import UsageError
from backend.messages import LANGUAGES, message
from backend.supervisor import command
from backend.synthesis.importing import import_directory
from backend.synthesis.recipes import ship_recipes
from backend.workspace import Settings, Workspace


def add_commands(commands: Any) -> None:
    """Add this module's commands to the parser."""
    init = commands.add_parser("init", help="create a workspace")
    init.add_argument("--profile", choices=("starter", "mgm-2b"), default="starter")
    init.add_argument("--kit", type=Path, help="the challenge kit's folder (profile mgm-2b)")
    init.add_argument("--language", choices=LANGUAGES, default="en")
    init.set_defaults(command=_init)

    check = commands.add_parser("check", help="is this machine ready, and what is missing?")
    add_json(check)
    check.set_defaults(command=_check)

    bring = commands.add_parser("import", help="make a dataset version from a folder of pairs")
    bring.add_argument("directory", type=Path, metavar="DIR")
    bring.add_argument("--name", default="", help="the dataset's name (default: the folder's)")
    add_json(bring)
    bring.set_defaults(command=_import)


def _init(arguments: argparse.Namespace) -> int:
    root: Path = arguments.workspace
    if (root / "workspace.toml").exists():
        raise UsageError("there is a workspace here already.", place=str(root))
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UsageError(
            "the folder is not empty.", place=str(root), remedy="Name a folder that is new."
        )
    if arguments.profile == "starter":
        if arguments.kit is not None:
            raise UsageError("the starter brings its own kit.", place="--kit")
        from backend.starter.create import create_starter

        create_starter(
            root, language=arguments.language, report=lambda key: say(message(f"starter.{key}"))
        )
    else:
        kit = arguments.kit.resolve() if arguments.kit else Path("kit")
        if arguments.kit and not kit.is_dir():
            raise UsageError("the folder does not exist.", place=str(arguments.kit))
        settings = Settings(
            name=root.resolve().name,
            profile="mgm-2b",
            language=arguments.language,
            kit=str(kit),
        )
        ship_recipes(Workspace.create(root, settings))
    print(root.resolve())
    return 0


def _check(arguments: argparse.Namespace) -> int:
    workspace = opened(arguments)
    profile = workspace.settings.profile
    found = checks(workspace)
    ready = readiness(found, profile)
    if arguments.json:
        listed = [asdict(check) | _asset_facts(workspace, check) for check in found]
        print_json({"readiness": asdict(ready), "checks": listed})
        return 0 if ready.ready else 1
    rows = [
        [check.state, message(f"check.{check.name}.title"), check.found or "-", check.needed or "-"]
        for check in found
        if concerns(check, profile)
    ]
    print_table(["state", "what", "found", "needed"], rows)
    for check in not_ready(found, profile):
        say(f"{check.state}: {message(f'check.{check.name}.title')}")
        if facts := _asset_facts(workspace, check):
            size = gib(facts["full_size"]) if facts["full_size"] else "-"
            say(f"  {facts['path']}  ({facts['source']}, {size})")
        say(f"  {message(f'check.{check.name}.remedy')}")
        if check.remedy is not None:
            say(f"  {_remedy_line(workspace, check.remedy)}")
    say(f"{'ready' if ready.ready else 'not ready'} for {profile}")
    return 0 if ready.ready else 1


def _remedy_line(workspace: Workspace, remedy: Remedy) -> str:
    """A command that works as it stands; of an asset the name is known, and not the address."""
    if remedy.kind == "install":
        return command("install", {"package": remedy.value}, root=workspace.root)
    if remedy.kind == "command":
        return remedy.value
    start = command("fetch", {"asset": remedy.value}, root=workspace.root)
    path = str(workspace.asset(remedy.value))
    return message("check.fetch_address", path=path, command=start)


def _asset_facts(workspace: Workspace, check: Check) -> dict[str, Any]:
    """Of an asset's check, where the asset belongs, its official name, and its bytes when known."""
    asset = ASSETS.get(check.name.removeprefix("asset_"))
    if check.group != "assets" or asset is None:
        return {}
    path = str(workspace.asset(asset.name))
    return {"path": path, "source": asset.source, "full_size": asset.size}


def _import(arguments: argparse.Namespace) -> int:
    workspace = opened(arguments)
    if not arguments.directory.is_dir():
        raise UsageError("the folder does not exist.", place=str(arguments.directory))
    reference = import_directory(workspace, arguments.directory, arguments.name)
    if arguments.json:
        print_json({"dataset": reference})
    else:
        print(reference)
    return 0
