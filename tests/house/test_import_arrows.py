"""Who may import whom: the arrows of the architecture, drawn from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "peft", "deepspeed", "data_juicer", "datasets", "ray"}
PAGE_FORBIDDEN = ("backend.mgm", "backend.training", "backend.evaluation.generation")
STORE_ALLOWED = (
    "backend.workspace",
    "backend.files",
    "backend.runs",
    "backend.errors",
    "backend.formats",
    "backend.reducing",
    "backend.trails",
)


def imports(path: Path, *, top_level_only: bool = False) -> list[str]:
    """Names of the modules that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = _outside_functions(tree) if top_level_only else list(ast.walk(tree))
    found: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append(node.module)
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def _outside_functions(node: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        is_type_checking = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking:
            continue
        found.append(child)
        found += _outside_functions(child)
    return found


def sources(*folders: str) -> list[Path]:
    """Every Python file of the folders, or the files named."""
    paths: list[Path] = []
    for folder in folders:
        path = ROOT / folder
        paths += [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))
    return paths


def starts_with(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def offences(paths: list[Path], wrong) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in imports(path)
        if wrong(name)
    ]


def test_backend_and_store_do_not_know_the_browser():
    wrong = offences(
        sources("backend", "store"), lambda name: starts_with(name, ("streamlit", "pages", "app"))
    )
    assert wrong == []


def test_backend_does_not_import_store():
    assert offences(sources("backend"), lambda name: starts_with(name, ("store",))) == []


def test_store_reads_only_the_light_part_of_the_backend():
    def wrong(name: str) -> bool:
        return starts_with(name, ("backend",)) and not (
            starts_with(name, STORE_ALLOWED) or name == "backend"
        )

    assert offences(sources("store"), wrong) == []


def test_pages_stay_away_from_the_model():
    paths = sources("pages", "app.py")
    forbidden = (*PAGE_FORBIDDEN, *HEAVY)
    assert offences(paths, lambda name: starts_with(name, forbidden)) == []


def test_only_stages_and_the_command_line_import_stages():
    paths = [
        path
        for path in sources("backend")
        if not path.is_relative_to(ROOT / "backend" / "stages")
        and not path.is_relative_to(ROOT / "backend" / "supervisor")
        and not path.is_relative_to(ROOT / "backend" / "cli")
        and path != ROOT / "backend" / "__main__.py"
    ]

    def wrong(name: str) -> bool:
        return starts_with(name, ("backend.stages",)) and not starts_with(
            name, ("backend.stages.base",)
        )

    assert offences(paths, wrong) == []


@pytest.mark.parametrize("path", sources("backend/stages"), ids=lambda path: path.stem)
def test_a_stage_module_imports_nothing_heavy_at_its_top(path: Path):
    heavy = [name for name in imports(path, top_level_only=True) if starts_with(name, tuple(HEAVY))]
    assert heavy == []


def test_only_the_gateway_talks_to_the_driver():
    paths = [p for p in sources("backend", "store", "pages", "app.py") if p.parent.name != "gpu"]
    assert offences(paths, lambda name: starts_with(name, ("pynvml",))) == []


def test_an_arrow_that_is_wrong_would_be_seen(tmp_path: Path):
    path = tmp_path / "bad.py"
    path.write_text("def f():\n    from backend.mgm import modeling\n")
    assert any(starts_with(name, PAGE_FORBIDDEN) for name in imports(path))
    assert imports(path, top_level_only=True) == []
