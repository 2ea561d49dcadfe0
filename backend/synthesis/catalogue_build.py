"""The child that asks Data-Juicer for its operators: `python -m ... OUT.json`."""

from __future__ import annotations

import inspect
import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from docstring_parser import parse

from backend.files import write_json
from backend.synthesis.catalogue import catalogue_version
from backend.synthesis.guard import guarded_operators
from backend.synthesis.recipes import SYNTHESIS_OPERATORS

_TYPES = ("mapper", "filter", "deduplicator", "selector", "grouper", "aggregator", "pipeline")
_LAZY = re.compile(r"""LazyLoader\(\s*["']([\w.]+)["']""")
_OURS = "backend.synthesis.operators"


def main(path: Path) -> None:
    """Write the catalogue."""
    operators = guarded_operators(path.parent)
    from data_juicer.ops.base_op import Filter

    entries = [_entry(name, kind) for name, kind in sorted(operators.items())]
    common = sorted(Filter._BASE_PARAMS)
    values = {"version": catalogue_version(), "common_parameters": common, "operators": entries}
    write_json(path, values)


def _entry(name: str, kind: type[Any]) -> dict[str, Any]:
    from data_juicer.tools.op_search import analyze_tag_from_cls

    documentation = inspect.cleandoc(kind.__doc__ or "")
    summary = " ".join(documentation.split("\n\n")[0].split())
    ours = kind.__module__.startswith(_OURS)
    return {
        "name": name,
        "type": _type_of(kind),
        "tags": sorted(set(analyze_tag_from_cls(kind, name))),
        "summary": summary,
        "documentation": documentation,
        "parameters": _parameters(kind),
        "missing": _missing(kind),
        "origin": "synthloop" if ours else "data-juicer",
        "synthesizes": name in SYNTHESIS_OPERATORS,
    }


def _type_of(kind: type[Any]) -> str:
    names = [base.__name__.lower() for base in kind.__mro__]
    return next(name for name in names if name in _TYPES)


def _parameters(kind: type[Any]) -> list[dict[str, Any]]:
    described = {
        item.arg_name: " ".join((item.description or "").split())
        for item in parse(kind.__init__.__doc__ or "").params
    }
    found = []
    for parameter in inspect.signature(kind.__init__).parameters.values():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if parameter.name == "self" or not named:
            continue
        required = parameter.default is parameter.empty
        found.append(
            {
                "name": parameter.name,
                "type": _type_text(parameter.annotation),
                "default": None if required else _json(parameter.default),
                "required": required,
                "help": described.get(parameter.name, ""),
            }
        )
    return found


def _type_text(annotation: Any) -> str:
    """An annotation as a person would write it; empty where there is none."""
    if annotation in (inspect.Parameter.empty, Any):
        return ""
    if annotation in (None, type(None)):
        return "None"
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_text(inner[0])
    if origin in (Union, UnionType):
        return " | ".join(_type_text(item) for item in inner)
    if origin is Literal:
        return f"Literal[{', '.join(repr(item) for item in inner)}]"
    if isinstance(annotation, type) and not inner:
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def _json(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value


def _missing(kind: type[Any]) -> list[str]:
    """Packages that the operator's file loads when it needs them, and that are not here."""
    source = Path(inspect.getfile(kind)).read_text(encoding="utf-8")
    names = {name.partition(".")[0] for name in _LAZY.findall(source)}
    return sorted(name for name in names if find_spec(name) is None)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
