"""The log of a training that ran anywhere: why it died, and whether it learned."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import streamlit as st

from backend.errors import InputError, SynthLoopError
from backend.memory.explain import MEMORY, way_words
from backend.memory.verdicts import Verdict, verdict
from pages.widgets.colors import icon
from pages.widgets.death_view import death_facts
from pages.widgets.run_tabs import show_finding
from pages.widgets.states import failed
from pages.widgets.text import escape, language, t, workspace
from pages.widgets.words import known_text

MOST_BYTES = 64 << 20
"""Of a file that is named by its path; an upload has the same limit."""
_FORMS = ["log", "txt", "out", "json", "jsonl"]
_JUDGED = "judged-log"


def judge_box() -> None:
    """A file to judge, chosen here or named by its path, and the verdict on it."""
    with st.expander(t("judge.title"), icon=icon("troubleshoot"), key="judge-box"):
        st.caption(t("judge.intro"))
        with st.form("judge-form", border=False):
            given = st.file_uploader(t("judge.upload"), type=_FORMS, key="judge-file")
            path = st.text_input(t("judge.path"), help=t("judge.path.help"), key="judge-path")
            vocabulary = st.number_input(
                t("judge.vocabulary"),
                min_value=2,
                value=None,
                step=1,
                help=t("judge.vocabulary.help"),
                key="judge-vocabulary",
                width=240,
            )
            asked = st.form_submit_button(t("judge.now"), icon=icon("troubleshoot"))
        if asked:
            st.session_state.pop(_JUDGED, None)
            try:
                st.session_state[_JUDGED] = _judged(given, path.strip(), vocabulary)
            except SynthLoopError as error:
                failed(error)
            except OSError as error:
                failed(InputError("the file cannot be read.", place=f"{path}: {error}"))
        if _JUDGED in st.session_state:
            _tell(*st.session_state[_JUDGED])


def _judged(given: Any, path: str, vocabulary: int | None) -> tuple[str, Verdict]:
    """The file's name, and the verdict on it.

    Raises:
        InputError: Nothing is named, it is too large, or it is no training's log.
    """
    if given is not None:
        with tempfile.TemporaryDirectory() as folder:
            # Its ending alone is taken over: a name may be anything.
            copy = Path(folder) / f"log{Path(given.name).suffix}"
            copy.write_bytes(given.getbuffer())
            return given.name, verdict(copy, vocabulary_size=vocabulary)
    if not path:
        raise InputError(t("judge.none"))
    file = workspace().root / path
    if not file.is_file():
        raise InputError(t("judge.missing"), place=str(file))
    if file.stat().st_size > MOST_BYTES:
        raise InputError(t("judge.large", limit=MOST_BYTES >> 20), place=str(file))
    return file.name, verdict(file, vocabulary_size=vocabulary)


def _tell(name: str, found: Verdict) -> None:
    death = found.death
    st.markdown(f"**{escape(name)}**")
    if death is not None:
        title = known_text(f"death.title.{death.code}", death.reason.say(language()))
        st.error(escape(title), icon=icon("cancel"))
        death_facts(death)
        for way in death.ways:
            st.markdown(f"- {escape(way_words(way, language()))}")
            changes = death.parameters(way).items()
            st.code(" ".join(f"-p {key}={value}" for key, value in changes), language=None)
        if death.code not in MEMORY or not death.ways:
            remedy = known_text(f"reason.{death.code}.remedy", "")
            st.caption(escape(remedy))
        if death.evidence:
            st.code("\n".join(death.evidence), language=None, wrap_lines=True)
    elif found.healthy:
        st.success(t("judge.healthy"), icon=icon("check_circle"))
    for finding in found.findings:
        show_finding(finding)
