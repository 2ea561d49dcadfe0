"""GPU: what each device does now and did lately, and whose run its processes are."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import plotly.graph_objects as go
import psutil
import streamlit as st
from plotly.subplots import make_subplots

from backend.environment.hardware import host_memory
from backend.environment.processes import process_tree
from backend.gpu import Device, DeviceReadings, read_devices
from backend.runs import Run
from pages.widgets.cards import Figure, figures
from pages.widgets.charts import CONFIG
from pages.widgets.colors import OKABE_ITO, icon, run_color
from pages.widgets.inputs import run_label
from pages.widgets.live import live
from pages.widgets.states import switch_link
from pages.widgets.text import UNKNOWN, escape, gib, html, number, t, workspace
from store.devices import Recent, Series, recent
from store.runs import RunRow, at_work, run_rows

_GRID = "rgba(128,128,128,0.2)"
_GIB = 1 << 30
_SPAN_S = 600
STYLE = """<style>
.sl-use { height: 12px; border-radius: 6px; overflow: hidden; margin: 0 0 8px;
  background: color-mix(in srgb, currentColor 12%, transparent); }
.sl-use > div { height: 100%; background: #0072B2; }
.sl-procs { border-collapse: collapse; width: 100%; font-size: 0.8125rem; }
.sl-procs th { text-align: left; font-weight: 600; }
.sl-procs td, .sl-procs th { padding: 4px 12px 4px 0; border: 0; overflow-wrap: anywhere;
  border-bottom: 1px solid color-mix(in srgb, currentColor 12%, transparent); }
.sl-procs .sl-number { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
.sl-wide { overflow-x: auto; }
</style>"""


def show() -> None:
    """The page."""
    st.title(t("gpu.title"))
    st.html(STYLE)
    live(_now, every=2)
    live(_lately, every=10)


def _now() -> None:
    space, readings = workspace(), read_devices()
    trees = [(row, process_tree(Run(space.runs / row.id))) for row in at_work(run_rows(space))]
    owners = {pid: row for row, pids in trees for pid in pids}
    for device in readings.devices:
        _device(device, owners)
    if not readings.devices:
        _without(readings)
    _host(trees)


def _device(device: Device, owners: dict[int, RunRow]) -> None:
    name = f"GPU {device.index} · {device.name or UNKNOWN}"
    with st.container(border=True, key=f"device-{device.index}"):
        st.subheader(escape(name), anchor=False)
        if device.error is not None:
            key = "gpu.lost" if device.error == "lost" else "gpu.error"
            st.error(t(key, error=escape(device.error)), icon=icon("error"))
            return
        memory = t("gpu.of", part=gib(device.used), whole=gib(device.total))
        power = number(device.power_w, "W")
        if device.power_limit_w is not None:
            power = t("gpu.of", part=power, whole=number(device.power_limit_w, "W"))
        figures(
            [
                Figure(t("gpu.memory"), memory),
                Figure(t("gpu.utilization"), number(device.utilization, "%")),
                Figure(t("gpu.power"), power),
                Figure(t("gpu.temperature"), number(device.temperature_c, "°C")),
            ]
        )
        if device.used is not None and device.total:
            st.html(_use(device.used / device.total, memory))
        _processes(device, owners)


def _use(share: float, words: str) -> str:
    return (
        f'<div class="sl-use" role="img" aria-label="{html(words)}" title="{html(words)}">'
        f'<div style="width:{100 * min(1.0, share):.1f}%"></div></div>'
    )


def _processes(device: Device, owners: dict[int, RunRow]) -> None:
    if device.processes is None:
        st.caption(t("gpu.processes.unknown"))
        return
    if not device.processes:
        st.caption(t("gpu.processes.none"))
        return
    lines = [
        (str(one.pid), process_name(one.pid), gib(one.memory), _owner(owners.get(one.pid)))
        for one in device.processes
    ]
    heads = (t("gpu.pid"), t("gpu.process"), t("gpu.memory"), t("gpu.run"))
    st.html(process_table(heads, lines, right=(2,)))
    _links({row.id: row for one in device.processes if (row := owners.get(one.pid))}, "device")


def process_name(pid: int) -> str:
    """What the operating system calls a process; a dash where it may not or cannot tell."""
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return UNKNOWN


def process_table(
    heads: Sequence[str], lines: Sequence[Sequence[str]], right: tuple[int, ...]
) -> str:
    """Processes as an HTML table; columns `right` hold figures."""

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=sl-number' if place in right else ''}>{html(value)}</{tag}>"
            for place, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', line)}</tr>" for line in lines)
    return (
        f'<div class="sl-wide"><table class="sl-procs"><thead><tr>{cells("th", heads)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _owner(row: RunRow | None) -> str:
    return t("gpu.other") if row is None else run_label(row)


def _links(rows: dict[str, RunRow], place: str) -> None:
    with st.container(horizontal=True, key=f"links-{place}-{'-'.join(rows)}"):
        for row in rows.values():
            label = escape(run_label(row))
            switch_link("pages/runs.py", label, icon("open_in_new"), {"run": row.id})


def _without(readings: DeviceReadings) -> None:
    if readings.error in (None, "no_driver"):
        st.info(t("gpu.none"), icon=icon("info"))
    else:
        st.warning(t("gpu.error", error=escape(readings.error)), icon=icon("warning"))


def _host(trees: list[tuple[RunRow, list[int]]]) -> None:
    """Main memory, and the processes of the runs that go on."""
    with st.container(border=True, key="host"):
        st.subheader(t("gpu.host"), anchor=False)
        memory, total = psutil.virtual_memory(), host_memory()
        used = total - min(memory.available, total)
        words = t("gpu.of", part=gib(used), whole=gib(total))
        load = os.getloadavg()[0]
        cores = t("gpu.cores", n=os.cpu_count() or UNKNOWN)
        figures(
            [
                Figure(t("gpu.host.memory"), words),
                Figure(t("gpu.host.load"), number(float(load)), cores),
            ]
        )
        st.html(_use(used / total, words))
        if not trees:
            st.caption(t("gpu.host.none"))
            return
        for row, pids in trees:
            st.markdown(f"**{escape(run_label(row))}**")
            _tree_table(pids)
        _links({row.id: row for row, _ in trees}, "host")


def _tree_table(pids: list[int]) -> None:
    lines = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                name, rss = process.name(), process.memory_info().rss
                cpu = sum(process.cpu_times()[:2])
        except psutil.Error:
            continue
        lines.append((str(pid), name, gib(rss), number(cpu, "s")))
    heads = (t("gpu.pid"), t("gpu.process"), t("gpu.host.resident"), t("gpu.cpu_time"))
    st.html(process_table(heads, lines, right=(2, 3)))


def _lately() -> None:
    """The last ten minutes, as the supervisors of runs saw them."""
    now = time.time()
    space = workspace()
    found = recent(space, now, _SPAN_S)
    st.subheader(t("gpu.lately"), anchor=False)
    if not found.host:
        st.caption(t("gpu.lately.none"))
        return
    # A loop's own line would repeat those of its steps, which are its processes.
    rows = {row.id: row for row in run_rows(space) if row.stage != "loop"}
    host = {run_id: one for run_id, one in found.host.items() if run_id in rows}
    found = replace(found, host=host)
    names = {run_id: run_label(rows[run_id]) for run_id in host}
    st.plotly_chart(
        lately_figure(found, names, now), key="lately", config=CONFIG, alt=t("gpu.lately")
    )
    st.caption(t("gpu.lately.help"))


def lately_figure(found: Recent, names: Mapping[str, str], now: float) -> go.Figure:
    """Memory and utilization of devices, and the runs' main memory, over minutes before now."""
    with_devices = bool(found.used)
    titles = [t("gpu.chart.memory"), t("gpu.chart.utilization")] if with_devices else []
    titles.append(t("gpu.chart.host"))
    figure = make_subplots(rows=len(titles), shared_xaxes=True, vertical_spacing=0.12)
    if with_devices:
        for row, (series, unit) in enumerate(((found.used, _GIB), (found.utilization, 1)), 1):
            for index, one in series.items():
                color = OKABE_ITO[index % len(OKABE_ITO)]
                figure.add_trace(
                    _line(one, now, f"GPU {index}", color, unit, legend=row == 1), row=row, col=1
                )
    for run_id, one in found.host.items():
        figure.add_trace(
            _line(one, now, html(names[run_id]), run_color(run_id), _GIB, legend=True),
            row=len(titles),
            col=1,
        )
    for row, title in enumerate(titles, 1):
        figure.add_annotation(
            text=title,
            x=0,
            y=figure.get_subplot(row, 1).yaxis.domain[1],
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
            font={"size": 13},
        )
    figure.update_xaxes(range=[-_SPAN_S / 60, 0], showgrid=False, zeroline=False)
    figure.update_xaxes(title_text=t("gpu.chart.minutes"), row=len(titles), col=1)
    figure.update_yaxes(gridcolor=_GRID, rangemode="tozero", zeroline=False, nticks=4)
    figure.update_layout(
        height=104 + 160 * len(titles),
        margin={"l": 8, "r": 8, "t": 32, "b": 8},
        hovermode="x unified",
        uirevision="lately",
        legend={"orientation": "h", "x": 0, "y": -0.36 / len(titles), "yanchor": "top"},
    )
    return figure


def _line(
    series: Series, now: float, name: str, color: str, unit: float, *, legend: bool
) -> go.Scatter:
    return go.Scatter(
        x=[(moment - now) / 60 for moment in series.times],
        y=[None if value is None else value / unit for value in series.values],
        name=name,
        mode="lines",
        line={"color": color, "width": 1.5},
        showlegend=legend,
        hovertemplate="%{y:.3g}",
    )


show()
