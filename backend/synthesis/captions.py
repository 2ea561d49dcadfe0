"""What a caption says by its words alone."""

from __future__ import annotations

import re

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|[0-9]+")
_FUNCTION_WORDS = """
a an the this that these those it its he she they them his her their there here
of in on at by with from to into onto over under for and or but as is are was were be been being
has have had do does did can could may might will would
"""
_GENERIC_WORDS = """
picture pictures photo photos photograph photographs image images pic scene view shot background
illustration graphic drawing snapshot
thing things something someone somebody object objects item items stuff kind type sort
some several many few various different other another more one ones
nice beautiful good great pretty lovely interesting colorful cool amazing simple
showing shows shown show depicting see seen looking
"""
_SAYS_NOTHING = frozenset(_FUNCTION_WORDS.split()) | frozenset(_GENERIC_WORDS.split())


def vagueness(caption: str) -> float | None:
    """The share of an English caption's words that would fit any picture, 0 to 1.

    Such words are function words and words like "photo", "thing" or "nice".

    Returns:
        None for a caption without English words, which this cannot judge.
    """
    words = _WORD.findall(caption.lower())
    if not words:
        return None
    return sum(word in _SAYS_NOTHING for word in words) / len(words)
