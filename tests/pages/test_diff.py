"""Differences are marked, hostile text stays text."""

from __future__ import annotations

import re
from html import unescape

import pytest

from pages.widgets.diff import marked


def test_words_that_differ_are_marked():
    assert marked("a red dog", "a big dog") == (
        "a <del>red</del> dog",
        "a <ins>big</ins> dog",
    )


def test_equal_texts_have_no_marks():
    assert marked("same", "same") == ("same", "same")


def test_chinese_is_compared_sign_by_sign():
    assert marked("红色的狗", "红色的猫") == ("红色的<del>狗</del>", "红色的<ins>猫</ins>")


@pytest.mark.parametrize("hostile", ["<script>x</script>", "a & b <img onerror=1>", "</del>"])
def test_markup_in_a_text_is_shown_and_nothing_is_lost(hostile: str):
    pair = marked(hostile, "other " + hostile)
    for text, html in zip((hostile, "other " + hostile), pair, strict=True):
        without = re.sub(r"</?(?:ins|del)>", "", html)
        assert "<" not in without
        assert unescape(without) == text


def test_very_long_texts_come_back_at_once_unmarked():
    assert marked("a " * 5000, "b") == ("a " * 5000, "b")
