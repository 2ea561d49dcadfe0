"""Habits that no linter knows."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST = 600


def tracked(*patterns: str) -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [path for line in listing.stdout.splitlines() if (path := ROOT / line).is_file()]


def test_no_file_is_too_long_to_find_ones_way():
    long = [
        f"{path.relative_to(ROOT)}: {count}"
        for path in tracked("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    ]
    assert long == []


def test_the_top_level_holds_only_what_was_agreed():
    allowed = {
        "app.py", "pages", "backend", "store", "tests", "requirements.txt", "README.md",
        "Makefile", "pyproject.toml", "LICENSE", "CHANGELOG.md", ".streamlit", ".ci",
        ".gitignore",
    }  # fmt: skip
    assert {path.relative_to(ROOT).parts[0] for path in tracked(".")} <= allowed


def test_every_pin_is_exact():
    for path in (ROOT / "requirements.txt", ROOT / "tests" / "requirements.txt"):
        for line in path.read_text().splitlines():
            if line and not line.startswith("#"):
                assert re.fullmatch(r"[A-Za-z0-9_.\-]+(\[[a-z]+\])?==[^=\s]+", line), line


def test_errors_are_never_swallowed_in_silence():
    pattern = re.compile(r"except[^\n]*:\s*(?:#[^\n]*)?\n\s*pass\b")
    guilty = [
        str(path.relative_to(ROOT))
        for path in tracked("backend/*.py", "store/*.py", "pages/*.py", "app.py")
        if pattern.search(path.read_text(encoding="utf-8"))
    ]
    assert guilty == []
