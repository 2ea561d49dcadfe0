"""Two texts with what differs marked, word by word, as HTML that is safe to show."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from html import escape

_TOKENS = re.compile(r"\s+|[\u3400-\u9fff]|[^\W\u3400-\u9fff]+|[^\w\s]")
_LONGEST = 4000
"""Tokens of one text; longer ones are shown unmarked, matching them would take seconds."""


def marked(before: str, after: str) -> tuple[str, str]:
    """Both texts as HTML: what was taken away in `<del>`, what was added in `<ins>`.

    Chinese is compared sign by sign, other scripts word by word.
    """
    old, new = _TOKENS.findall(before), _TOKENS.findall(after)
    if max(len(old), len(new)) > _LONGEST:
        return escape(before), escape(after)
    left: list[str] = []
    right: list[str] = []
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        gone, come = escape("".join(old[a:b])), escape("".join(new[c:d]))
        left.append(f"<del>{gone}</del>" if kind != "equal" and gone else gone)
        right.append(f"<ins>{come}</ins>" if kind != "equal" and come else come)
    return "".join(left), "".join(right)
