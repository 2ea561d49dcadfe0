"""English and Chinese say the same things, and everything a person reads is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from string import Formatter

import pytest

from backend.messages import catalogue
from backend.runs import State
from backend.stages import STAGES

ROOT = Path(__file__).parents[2]
HAN = re.compile(r"[\u4e00-\u9fff]")


def placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def test_both_languages_have_the_same_keys():
    assert catalogue("en").keys() == catalogue("zh").keys()


def test_both_languages_fill_the_same_placeholders():
    english, chinese = catalogue("en"), catalogue("zh")
    wrong = [k for k in english if placeholders(english[k]) != placeholders(chinese[k])]
    assert wrong == []


def test_english_holds_no_chinese():
    wrong = [key for key, text in catalogue("en").items() if HAN.search(text)]
    assert [key for key in wrong if key != "language.zh"] == []


def test_no_sentence_is_empty():
    empty = [
        (language, key)
        for language in ("en", "zh")
        for key, text in catalogue(language).items()
        if not text.strip()
    ]
    assert empty == []


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_and_parameter_has_a_label_and_help(name: str):
    english = catalogue("en")
    keys = [f"stage.{name}"]
    for field in STAGES[name].parameters.model_fields:
        keys += [f"parameter.{field}.label", f"parameter.{field}.help"]
    assert [key for key in keys if key not in english] == []


def test_every_state_has_a_word():
    assert [state for state in State if f"state.{state}" not in catalogue("en")] == []


def literal_keys() -> dict[str, str]:
    """Constant keys handed to `message` or `t`, with the file that does it."""
    found: dict[str, str] = {}
    for folder in ("backend", "store", "pages", "app.py"):
        base = ROOT / folder
        for path in [base] if base.suffix else sorted(base.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and node.func.id in ("message", "t")
                    and node.args
                    and isinstance(node.args[0], ast.Constant)
                    and isinstance(node.args[0].value, str)
                ):
                    found[node.args[0].value] = str(path.relative_to(ROOT))
    return found


def test_every_key_that_code_names_exists():
    english = catalogue("en")
    assert {k: path for k, path in literal_keys().items() if k not in english} == {}
