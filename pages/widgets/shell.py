"""What surrounds every page: workspace, pages, the device, what is running, the language."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from backend.errors import SynthLoopError
from backend.gpu import read_devices
from backend.messages import LANGUAGES
from backend.supervisor import adopt_orphans
from backend.workspace import Workspace
from pages.widgets.live import live
from pages.widgets.text import UNKNOWN, clock, escape, gib, html, language, left, t
from pages.widgets.words import known_text
from store.runs import at_work, run_rows

PAGES = Path(__file__).parents[1]
GROUPS: dict[str, dict[str, str]] = {
    "loop": {
        "overview": "dashboard",
        "environment": "checklist",
        "baseline": "flag",
        "memory": "memory",
        "synthesis": "auto_awesome",
        "training": "model_training",
        "evaluation": "quiz",
    },
    "explore": {
        "samples": "photo_library",
        "compare": "compare_arrows",
        "report": "description",
        "runs": "list_alt",
    },
    "system": {"gpu": "developer_board", "settings": "settings"},
}
"""Group to its pages, in order, each with its Material symbol."""
STYLE = """<style>
.stMainBlockContainer { max-width: 1320px; padding-top: 48px; padding-bottom: 64px; }
[data-testid="stSidebarUserContent"] { padding-top: 0; padding-bottom: 24px; }
.sl-wordmark { font-size: 1.25rem; font-weight: 700; letter-spacing: -0.02em; line-height: 24px; }
.sl-wordmark span { opacity: 0.55; font-weight: 500; }
.sl-space { font-size: 0.8125rem; opacity: 0.8; overflow-wrap: anywhere; line-height: 20px; }
.sl-group { font-size: 0.75rem; opacity: 0.65; margin-top: 8px; line-height: 16px; }
.sl-meter { font-size: 0.75rem; line-height: 16px; margin: 16px 0 4px; }
.sl-track { height: 6px; border-radius: 3px; overflow: hidden; margin: 6px 0;
  background: color-mix(in srgb, currentColor 12%, transparent); }
.sl-fill { height: 100%; border-radius: 3px; background: #0072B2; }
[data-testid="stSidebarUserContent"] [data-testid="stVerticalBlock"] { gap: 4px; }
[data-testid="stSidebarUserContent"] [data-testid="stPageLink-NavLink"] { padding: 2px 8px; }
[data-testid="stSidebarUserContent"] [data-testid="stPageLink-NavLink"] * { white-space: normal;
  text-overflow: clip; overflow-wrap: anywhere; }
.st-key-language { margin-top: 16px; }
[class*="st-key-phase-"] [data-testid="stPageLink-NavLink"] { padding-left: 0; }
</style>"""


HOME = "overview"
"""The page at the studio's own address."""


def home_by_name(home: st.Page) -> st.Page:
    """The first page by its name: Streamlit knows it by the empty path alone."""

    def forward() -> None:
        st.switch_page(home, query_params=st.query_params.to_dict())

    return st.Page(forward, title=home.title, url_path=HOME, visibility="hidden")


def pages() -> dict[str, list[st.Page]]:
    """Every page by group, for `st.navigation`."""
    return {
        group: [
            st.Page(
                PAGES / f"{name}.py",
                title=t(f"nav.{name}"),
                icon=f":material/{symbol}:",
                url_path="" if name == HOME else name,
                default=name == HOME,
            )
            for name, symbol in members.items()
        ]
        for group, members in GROUPS.items()
    }


def settle_language(otherwise: str) -> None:
    """Take the session's language from the URL, else `otherwise`, and keep it in the URL."""
    if st.session_state.get("language") not in LANGUAGES:
        asked = st.query_params.get("lang")
        st.session_state["language"] = asked if asked in LANGUAGES else otherwise
    if st.query_params.get("lang") != language():
        st.query_params["lang"] = language()


@st.cache_resource(show_spinner=False)
def look_after_orphans(root: Path) -> int:
    """Once a process: runs that lost their supervisor get a new one; says how many."""
    return len(adopt_orphans(Workspace.open(root)))


def sidebar(space: Workspace | None, known: dict[str, list[st.Page]]) -> None:
    """The sidebar; without a workspace only wordmark and language."""
    with st.sidebar:
        st.html('<div class="sl-wordmark">Synth<span>Loop</span></div>')
        if space is not None:
            profile = t("shell.profile", profile=space.settings.profile)
            st.html(
                f'<div class="sl-space" title="{html(space.root)}"><strong>'
                f"{html(space.settings.name)}</strong> · {html(profile)}</div>"
            )
            for group, members in known.items():
                st.html(f'<div class="sl-group">{html(t(f"nav.{group}"))}</div>')
                for page in members:
                    st.page_link(page, width="stretch")
            live(_going_on, space.root, every=5)
        st.segmented_control(
            t("shell.language"),
            LANGUAGES,
            required=True,
            format_func=lambda name: t(f"language.{name}"),
            key="language",
            label_visibility="collapsed",
        )


def _going_on(root: Path) -> None:
    st.html(_meter())
    active = at_work(run_rows(Workspace.open(root)))
    if not active:
        return
    row = active[0]
    progress = row.progress
    share, eta = "", ""
    if progress is not None and progress.total:
        share = f"{100 * progress.done / progress.total:.0f}\u00a0%"
        eta = left(progress.eta_s)
    stage = known_text(f"stage.{row.stage}", row.stage)
    name = " · ".join(part for part in (escape(row.name), stage) if part)
    st.page_link(
        "pages/runs.py",
        label=" · ".join(part for part in (name, share, eta) if part),
        icon=":material/progress_activity:",
        help=f"{t('shell.open_run')} · {clock(row.started_at)}",
        query_params={"run": row.id},
        width="stretch",
    )
    if len(active) > 1:
        st.caption(t("shell.more_running", n=len(active) - 1))


def _meter() -> str:
    devices = read_devices().devices
    if not devices:
        return f'<div class="sl-meter">{html(t("shell.no_gpu"))}</div>'
    first = devices[0]
    name = first.name or UNKNOWN
    if first.used is None or first.total is None:
        return f'<div class="sl-meter">{html(t("shell.device_unknown", name=name))}</div>'
    words = t("shell.device", name=name, used=gib(first.used), total=gib(first.total))
    share = 100 * first.used / first.total
    return (
        f'<div class="sl-meter">{html(words)}<div class="sl-track" aria-hidden="true">'
        f'<div class="sl-fill" style="width:{share:.1f}%"></div></div></div>'
    )


def no_workspace(error: SynthLoopError) -> None:
    """The page of a studio that was started without a workspace."""
    st.title(t("shell.no_workspace"))
    with st.container(width=640):
        st.markdown(t("shell.no_workspace.text"))
        st.code("python -m backend -w studio serve", language="bash", width="stretch")
        st.caption(t("shell.no_workspace.why", problem=escape(error)))
