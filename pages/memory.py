"""Memory: what a training run needs, which card has it, and how to make it fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from backend.errors import SynthLoopError
from backend.memory.bindings import parameters_of, settings_of
from backend.memory.cards import CARDS, Card
from backend.memory.explain import MEMORY
from backend.memory.fit import LEVERS, Lever, Option
from backend.memory.parts import PARTS
from backend.memory.plan import Plan, gib, option_title, plan_settings
from backend.memory.probes import Correction, correction
from backend.memory.settings import LINEARS, MemorySettings
from backend.memory.shapes import MGM_2B, ModelShape
from backend.runs import Reason, Run, State
from backend.workspace import Workspace
from pages.widgets.colors import icon
from pages.widgets.death_view import death_view, into_training_form
from pages.widgets.gallery import style
from pages.widgets.inputs import run_label
from pages.widgets.memory_bar import COLORS, memory_bar
from pages.widgets.probe_view import probe_view
from pages.widgets.states import failed, switch_link
from pages.widgets.text import clock, escape, html, language, t, workspace
from store.runs import RunRow, run_rows

# Ways to update weights that a person chooses between.
UPDATES: dict[str, dict[str, Any]] = {
    "kit": {
        "precision": "fp32_master",
        "optimizer": "adamw",
        "zero_stage": 2,
        "offload": "optimizer",
    },
    "exact": {"precision": "fp32_master", "optimizer": "adamw"},
    "half": {"precision": "bf16_stochastic", "optimizer": "adamw_bf16"},
    "eight": {"precision": "bf16_stochastic", "optimizer": "adamw_8bit"},
    "paged": {"precision": "bf16_stochastic", "optimizer": "paged_adamw_8bit"},
    "fp32": {"precision": "fp32", "optimizer": "adamw"},
    "bf16": {"precision": "bf16", "optimizer": "adamw"},
}
# How DeepSpeed divides what a device holds, and what it keeps in main memory.
SHARING: dict[str, dict[str, Any]] = {
    "none": {"zero_stage": 0, "offload": "none"},
    "zero1": {"zero_stage": 1, "offload": "none"},
    "zero2": {"zero_stage": 2, "offload": "none"},
    "zero3": {"zero_stage": 3, "offload": "none"},
    "zero2_optimizer": {"zero_stage": 2, "offload": "optimizer"},
    "zero3_optimizer": {"zero_stage": 3, "offload": "optimizer"},
    "zero3_everything": {"zero_stage": 3, "offload": "optimizer_parameters"},
}
SHARED = ("exact", "fp32")
"""Updates that DeepSpeed supports."""
_SHOWN_DEATHS = 5
_GRADES = {"fits": "check_circle", "tight": "warning", "no": "cancel"}
_KEPT = {"persist_state": "session"}
_STYLE = """<style>
[class*="st-key-memory-wrap"] [data-testid="stHorizontalBlock"] { flex-wrap: wrap; }
.st-key-memory-wrap-sides > [data-testid="stLayoutWrapper"] > [data-testid="stHorizontalBlock"]
  > [data-testid="stColumn"] { min-width: min(100%, 360px); }
[class*="st-key-memory-wrap-option"] [data-testid="stColumn"] { min-width: min(100%, 240px); }
[class*="st-key-memory-wrap-option"] [data-testid="stColumn"]:last-child { min-width: 112px; }
</style>"""


def show() -> None:
    """The page."""
    style()
    st.html(_STYLE)
    st.title(t("memory.title"))
    st.caption(t("memory.intro"))
    space = workspace()
    left, right = st.container(key="memory-wrap-sides").columns([2, 3], gap="large")
    with left:
        stage, settings, shape = choices(space)
    with right:
        card = choose_card()
        allowed = st.session_state.get("memory-allowed") or list(LEVERS)
        corrected = correction(space, card.name if card.found else None)
        found = _plan(shape, stage, settings, card.total, tuple(allowed), corrected.factor)
        answer(found, corrected)
    make_it_fit(found)
    explanations(found)
    shown = probe_view(space, stage, settings)
    deaths(space, shown)


@st.cache_data(max_entries=256, show_spinner=False)
def _plan(
    shape: ModelShape,
    stage: str,
    settings: MemorySettings,
    budget: int,
    allowed: tuple[Lever, ...],
    factor: float,
) -> Plan:
    return plan_settings(shape, stage, settings, budget, levers=allowed, factor=factor)


def choices(space: Workspace) -> tuple[str, MemorySettings, ModelShape]:
    """What is trained, and how."""
    shape = _model(space)
    stage = str(_pick("stage", ("finetune", "pretrain")))
    method = "projector"
    if stage == "finetune":
        method = str(_pick("method", ("full", "lora", "qlora")))
    update = st.selectbox(
        t("memory.update"),
        list(UPDATES),
        format_func=lambda name: t(f"memory.update.{name}"),
        help=t("memory.update.help"),
        key="memory-update",
        **_KEPT,
    )
    micro = st.select_slider(
        t("memory.micro_batch"),
        [1, 2, 4, 8, 16, 32],
        value=4,
        help=t("memory.micro_batch.help"),
        key="memory-micro",
        **_KEPT,
    )
    positions = st.slider(
        t("memory.positions"),
        640,
        4096,
        2048,
        64,
        help=t("memory.positions.help"),
        key="memory-positions",
        **_KEPT,
    )
    parameters = {
        "zero_stage": 0,
        "offload": "none",
        **UPDATES[update],
        "method": method,
        "micro_batch_size": micro,
        "model_max_length": positions,
        **_savers(),
        **_more(method, update),
    }
    labels = st.session_state["memory-labels"] / 100
    return stage, replace(settings_of(stage, parameters), label_fraction=labels), shape


def _model(space: Workspace) -> ModelShape:
    real = space.settings.profile == "mgm-2b"
    if _pick("model", ("workspace", "mgm") if real else ("mgm", "workspace")) == "mgm":
        return MGM_2B
    try:
        return ModelShape.of_workspace(space)
    except SynthLoopError as error:
        failed(error)
        return MGM_2B


def _pick(name: str, options: tuple[str, ...]) -> str:
    return st.segmented_control(
        t(f"memory.{name}"),
        options,
        default=options[0],
        required=True,
        format_func=lambda one: t(f"memory.{name}.{one}"),
        help=t(f"memory.{name}.help"),
        key=f"memory-{name}",
        **_KEPT,
        wrap=True,
    )


def _savers() -> dict[str, Any]:
    st.caption(t("memory.savers"))

    def switch(name: str, on: bool = False) -> bool:
        return st.toggle(
            t(f"memory.switch.{name}"),
            value=on,
            help=t(f"memory.lever.{name}.cost"),
            key=f"memory-{name}",
            **_KEPT,
        )

    return {
        "loss_chunk": 256 if switch("loss_chunk") else 0,
        "activation_checkpointing": switch("activation_checkpointing", on=True),
        "mining_checkpointing": switch("mining_checkpointing"),
        "tower_chunk": 1 if switch("tower_chunk") else 0,
        "mlp_chunk": 1024 if switch("mlp_chunk") else 0,
    }


def _more(method: str, update: str) -> dict[str, Any]:
    with st.expander(t("memory.more")):
        st.slider(
            t("memory.labels"),
            5,
            100,
            20,
            5,
            help=t("memory.labels.help"),
            key="memory-labels",
            **_KEPT,
        )
        values: dict[str, Any] = {
            "image_grid": st.select_slider(
                t("memory.image_grid"), [1, 2], value=1, key="memory-grid", **_KEPT
            ),
            "devices": st.select_slider(
                t("memory.devices"), [1, 2, 4, 8], value=1, key="memory-devices", **_KEPT
            ),
            "attention": st.selectbox(
                t("memory.attention"),
                ["sdpa", "flash_attention_2", "eager"],
                key="memory-attention",
                **_KEPT,
            ),
        }
        if values["image_grid"] == 2:
            values["image_global"] = st.toggle(
                t("memory.image_global"), value=True, key="memory-global", **_KEPT
            )
        values["image_size_aux"] = st.selectbox(
            t("memory.image_size"),
            [0, 384, 768, 1024, 1536],
            format_func=lambda side: f"{side} px" if side else t("memory.image_size.own"),
            key="memory-side",
            **_KEPT,
        )
        values["compile"] = st.toggle(
            t("memory.compile"), help=t("memory.compile.help"), key="memory-compile", **_KEPT
        )
        if update in SHARED and method != "qlora":
            chosen = st.selectbox(
                t("memory.sharing"),
                list(SHARING),
                format_func=lambda name: t(f"memory.sharing.{name}"),
                help=t("memory.sharing.help"),
                key="memory-sharing",
                **_KEPT,
            )
            values |= SHARING[chosen]
        if method in ("lora", "qlora"):
            values |= _adapter()
    return values


def _adapter() -> dict[str, Any]:
    rank = st.select_slider(
        t("memory.lora_rank"), [8, 16, 32, 64, 128], value=64, key="memory-rank", **_KEPT
    )
    dropout = st.toggle(
        t("memory.lora_dropout"),
        value=True,
        help=t("memory.lora_dropout.help"),
        key="memory-dropout",
        **_KEPT,
    )
    targets = st.pills(
        t("memory.lora_targets"),
        LINEARS,
        selection_mode="multi",
        default=list(LINEARS),
        key="memory-targets",
        **_KEPT,
        wrap=True,
    )
    return {
        "lora_rank": rank,
        "lora_dropout": 0.05 if dropout else 0.0,
        "lora_targets": [name for name in LINEARS if name in targets] or list(LINEARS),
    }


def choose_card() -> Card:
    """A card of this machine, or a preset."""
    cards = {card.name: card for card in (*_found_cards(), *CARDS)}
    usual = next((i for i, card in enumerate(cards.values()) if card.found), 3)
    name = st.selectbox(
        t("memory.card"),
        list(cards),
        index=usual,
        format_func=lambda one: t("memory.card.found", name=one) if cards[one].found else str(one),
        help=t("memory.card.help"),
        key="memory-card",
        **_KEPT,
    )
    return cards[name]


def _found_cards() -> list[Card]:
    from backend.gpu import read_devices

    return [
        Card(device.name, device.total, found=True)
        for device in read_devices().devices or ()
        if device.name is not None and device.total is not None
    ]


def answer(found: Plan, corrected: Correction) -> None:
    """Verdict, bar, and the largest part with its cheapest cure."""
    box = {"fits": st.success, "tight": st.warning, "no": st.error}[found.grade]
    box(f"**{escape(found.verdict.say(language()))}**", icon=icon(_GRADES[found.grade]))
    memory_bar(found.prediction, found.budget)
    moment = t(f"memory.moment.{found.prediction.peak_moment}")
    host = t("memory.host", size=gib(found.prediction.host))
    st.caption(f"{t('memory.peak_moment', moment=moment)} {host}")
    part = found.prediction.largest
    if found.advice is not None:
        st.markdown(escape(found.advice.say(language())))
    else:
        size = gib(found.prediction.parts[part])
        st.markdown(t("memory.no_advice", part=t(f"memory.part.{part}"), size=size))
    what = t(f"memory.part.{part}.help").splitlines()[0]
    st.caption(f"{t(f'memory.part.{part}')}: {what}")
    if corrected.count and corrected.device:
        st.caption(
            t(
                "memory.corrected",
                factor=f"{corrected.factor:.3g}",
                n=corrected.count,
                device=escape(corrected.device),
            )
        )


def make_it_fit(found: Plan) -> None:
    """The ranked list of configurations that fit."""
    st.subheader(t("memory.make_it_fit"), anchor=False)
    st.caption(t("memory.make_it_fit.intro"))
    with st.expander(t("memory.allowed"), icon=icon("tune")):
        st.pills(
            t("memory.allowed"),
            LEVERS,
            selection_mode="multi",
            default=list(LEVERS),
            format_func=lambda name: t(f"memory.lever.{name}"),
            key="memory-allowed",
            label_visibility="collapsed",
            **_KEPT,
            wrap=True,
        )
    if not found.options:
        st.info(t("memory.no_option"), icon=icon("info"))
    for number, option in enumerate(found.options):
        _option(found, option, number)


def _option(found: Plan, option: Option, number: int) -> None:
    with st.container(border=True, key=f"memory-wrap-option-{number}"):
        words, figures, button = st.columns([6, 6, 2], vertical_alignment="center")
        words.markdown(f"**{number + 1}. {escape(option_title(option, language()))}**")
        words.caption(t(f"memory.exactness.{option.exactness}"))
        speed = "memory.speed.estimated" if option.estimated else "memory.speed"
        shown = {
            "peak": f"{gib(option.prediction.peak_allocated)} GiB",
            "headroom": f"{gib(option.headroom)} GiB",
            "speed": t(speed, n=round(100 * option.speed)),
            "host": f"{gib(option.prediction.host)} GiB",
        }
        cells = "".join(
            f'<div style="min-width:88px"><div style="font-size:0.75rem;opacity:0.7">'
            f"{html(t(f'memory.column.{name}'))}</div><div>{html(value)}</div></div>"
            for name, value in shown.items()
        )
        figures.html(f'<div style="display:flex;flex-wrap:wrap;gap:8px 16px">{cells}</div>')
        used = button.button(
            t("memory.use"),
            key=f"use-{number}",
            help=t("memory.use.help"),
            type="primary" if number == 0 else "secondary",
            width="stretch",
        )
        if option.levers:
            costs = " ".join(t(f"memory.lever.{lever}.cost") for lever in option.levers)
            st.caption(escape(costs))
    if used:
        into_training_form(found.stage, parameters_of(vars(option.settings)))


def explanations(found: Plan) -> None:
    """Every part in two lines, and how figures come about."""
    with st.expander(t("memory.parts"), icon=icon("help")):
        for name in PARTS:
            size = t("memory.parts.size", size=gib(found.prediction.parts[name]))
            st.html(
                f'<div style="border-left:4px solid {COLORS[name]};padding-left:12px;'
                f'max-width:760px"><strong>{html(t(f"memory.part.{name}"))}</strong> '
                f'<span style="opacity:0.7">{html(size)}</span><br>'
                f"{html(t(f'memory.part.{name}.help')).replace(chr(10), '<br>')}</div>"
            )
    with st.expander(t("memory.how"), icon=icon("calculate")):
        st.markdown(t("memory.how.text"))


def deaths(space: Workspace, shown: str | None) -> None:
    """Runs that ran out of memory, newest first, without the one that is shown already."""
    st.subheader(t("memory.deaths"), anchor=False)
    died = [row for row in run_rows(space) if row.state is State.FAILED and row.id != shown]
    found = [(row, row.reason) for row in died if row.reason and row.reason.code in MEMORY]
    if not found:
        st.caption(t("memory.deaths.none"))
    for row, reason in found[:_SHOWN_DEATHS]:
        _death(space, row, reason)


def _death(space: Workspace, row: RunRow, reason: Reason) -> None:
    with st.container(border=True, key=f"death-{row.id}"):
        st.markdown(f"**{escape(run_label(row))}** · {clock(row.ended_at)}")
        st.markdown(t(f"death.title.{reason.code}"))
        death_view(space, Run(space.runs / row.id))
        if reason.evidence:
            with st.expander(t("memory.deaths.evidence")):
                st.code("\n".join(reason.evidence), language=None, wrap_lines=True)
        switch_link("pages/runs.py", t("memory.deaths.open"), icon("open_in_new"), {"run": row.id})


show()
