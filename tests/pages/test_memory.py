"""The Memory page without a GPU: verdict, bar, options, and runs that died."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from backend.files import write_json
from backend.memory.plan import gib
from backend.memory.predict import predict
from backend.memory.probes import record
from backend.memory.settings import MemorySettings
from backend.memory.shapes import MGM_2B
from backend.messages import LANGUAGES, message
from backend.runs import Reason, State
from backend.workspace import Settings, Workspace
from tests.memory.test_shapes import CLIP, CONVNEXT, GEMMA
from tests.pages.browsing import HOSTILE, ROOT, markup, sound, visit, words
from tests.pages.workspaces import add_run, empty

DEAD = "20261123-154500-finetune-7f3a"


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return empty(tmp_path / "space")


def read(app) -> str:
    return words(app).replace("\\", "")


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_kits_recipe_does_not_fit_24_gb_and_the_page_says_how_it_would(
    space: Workspace, monkeypatch, lang: str
):
    app = visit("memory", space, monkeypatch, lang)
    assert "24" in app.selectbox(key="memory-card").value
    assert "20.9" in app.error[0].value.replace("\\", "")
    assert message("memory.lever.loss_chunk", lang) in read(app)
    assert message("memory.part.logits", lang) + " 11.7 GiB" in markup(app)
    assert app.button(key="use-0").label == message("memory.use", lang)


def test_pulling_the_lever_turns_the_verdict(space: Workspace, monkeypatch):
    app = visit("memory", space, monkeypatch)
    app = sound(app.toggle(key="memory-loss_chunk").set_value(True).run())
    assert "Fits" in app.success[0].value


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_every_method_fits_a_large_card(space: Workspace, monkeypatch, method: str):
    app = visit("memory", space, monkeypatch)
    app.button_group(key="memory-method").set_value(method)
    app.selectbox(key="memory-card").set_value("80 GB (H100, A100)")
    assert sound(app.run()).success


def test_every_axis_of_the_prediction_can_be_chosen(space: Workspace, monkeypatch):
    app = visit("memory", space, monkeypatch)
    app.button_group(key="memory-model").set_value("mgm")
    app.selectbox(key="memory-update").set_value("exact")
    app = sound(app.run())
    app.selectbox(key="memory-sharing").set_value("zero3_everything")
    app.selectbox(key="memory-side").set_value(1536)
    app.select_slider(key="memory-grid").set_value(2)
    app.select_slider(key="memory-devices").set_value(2)
    app.toggle(key="memory-compile").set_value(True)
    app = sound(app.run())
    asked = MemorySettings(
        precision="fp32_master", zero_stage=3, offload="optimizer_parameters", devices=2,
        gradient_accumulation=16, image_size_aux=1536, image_grid=2, image_global=True,
        compile=True,
    )  # fmt: skip
    assert message("memory.host", "en", size=gib(predict(MGM_2B, asked).host)) in read(app)
    app.selectbox(key="memory-update").set_value("half")
    app.button_group(key="memory-method").set_value("lora")
    app = sound(app.run())
    app.toggle(key="memory-dropout").set_value(False)
    app.button_group(key="memory-targets").set_value(["q_proj", "v_proj"])
    app = sound(app.run())
    with pytest.raises(KeyError):
        app.selectbox(key="memory-sharing")
    few = replace(
        asked, method="lora", precision="bf16_stochastic", optimizer="adamw_bf16", zero_stage=0,
        offload="none", lora_dropout=0.0, lora_targets=("q_proj", "v_proj"),
    )  # fmt: skip
    weights = gib(predict(MGM_2B, few).parts["weights"])
    assert f"{message('memory.part.weights', 'en')} {weights} GiB" in markup(app)


def test_levers_that_do_not_help_leave_nothing_to_offer(space: Workspace, monkeypatch):
    app = visit("memory", space, monkeypatch)
    app.button_group(key="memory-allowed").set_value(["mining_checkpointing"])
    app = sound(app.run())
    assert message("memory.no_option") in [box.value for box in app.info]


LOG = (ROOT / "tests" / "data" / "logs" / "kit_logits.log").read_text()
ERROR = next(line for line in LOG.splitlines() if line.startswith("torch.cuda.OutOfMemoryError"))


@pytest.fixture
def died(tmp_path: Path) -> Workspace:
    """A workspace of the real model's sizes, in which the kit's recipe ran out of memory."""
    assets = write(tmp_path / "zoo")
    workspace = Workspace.create(tmp_path / "real", Settings(name="real", assets=assets))
    reason = Reason(code="device_memory", values={"error": ERROR}, evidence=[f"{ERROR} {HOSTILE}"])
    run = add_run(workspace, DEAD, State.FAILED, {"preset": "kit", "seed": 7}, reason=reason)
    run.log_path.write_text(LOG)
    return workspace


def write(folder: Path) -> dict[str, str]:
    configs = {"llm": ("config.json", GEMMA), "vision_tower": ("config.json", CLIP),
               "vision_tower_aux": ("open_clip_config.json", CONVNEXT)}  # fmt: skip
    for name, (file, values) in configs.items():
        (folder / name).mkdir(parents=True)
        (folder / name / file).write_text(json.dumps(values))
    return {name: str(folder / name) for name in configs}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_death_is_explained_with_its_ways_out(died: Workspace, monkeypatch, lang: str):
    app = visit("memory", died, monkeypatch, lang)
    said = read(app)
    assert message("death.title.device_memory", lang) in said
    sizes = {"size": "500 MiB", "positions": "1,024", "vocabulary": "256,000", "bits": 16}
    assert message("death.tensor.logits", lang, **sizes) in said
    assert message("memory.part.logits", lang) in markup(app)
    assert "<script>" not in words(app)
    assert len([button for button in app.button if button.key.startswith("use-way")]) == 3


def test_a_probe_that_died_is_shown_once_with_its_ways_out(died: Workspace, monkeypatch):
    reason = Reason(code="device_memory", values={"error": ERROR}, evidence=[ERROR])
    asked = {"preset": "kit", "trains": "finetune"}
    probe = add_run(died, "20261124-154500-probe-7f3a", State.FAILED, asked, reason=reason)
    probe.log_path.write_text(LOG)
    app = visit("memory", died, monkeypatch)
    keys = [button.key for button in app.button if button.key.startswith("use-way")]
    assert sorted(keys) == [f"use-way-{run}-{n}" for run in (DEAD, probe.id) for n in range(3)]
    assert ERROR not in app.error[-1].value
    assert "The card's memory ran out" in read(app)


def test_a_way_out_fills_the_training_form(died: Workspace, monkeypatch):
    app = visit("memory", died, monkeypatch)
    app = sound(app.button(key=f"use-way-{DEAD}-0").click().run())
    kept = app.session_state["training_defaults"]["finetune"]
    assert (kept["seed"], kept["preset"]) == (7, "kit")
    assert kept["loss_chunk"] > 0
    assert app.session_state["stage"] == "finetune"


def test_an_option_fills_the_training_form(space: Workspace, monkeypatch):
    app = visit("memory", space, monkeypatch)
    app = sound(app.button(key="use-0").click().run())
    kept = app.session_state["training_defaults"]["finetune"]
    assert kept["method"] == "full"
    assert kept["loss_chunk"] == 256


def test_what_a_probe_measured_stands_beside_what_was_predicted(space: Workspace, monkeypatch):
    run = add_run(space, "20261124-100000-probe-1234", State.SUCCEEDED, {"method": "lora"})
    prediction = predict(MGM_2B, MemorySettings(method="lora")).to_dict()
    measured = {"weights": 6 << 30, "peak_allocated": 9 << 30, "moments": {"backward": 9 << 30}}
    found = {"device": "Test card", "predicted": prediction, "measured": measured, "ratio": 1.04}
    write_json(run.artifacts / "probe.json", found)
    record(space, "Test card", {"ratio": 1.04})
    app = visit("memory", space, monkeypatch)
    assert "×1.04" in read(app)
    assert "9.00 GiB" in markup(app)


def test_a_probe_without_a_gpu_says_what_it_could_not_see(space: Workspace, monkeypatch):
    run = add_run(space, "20261124-100000-probe-1234", State.SUCCEEDED, {"method": "lora"})
    measured = {"host_before": 1 << 30, "host_built": 2 << 30, "host_peak": 3 << 30}
    write_json(run.artifacts / "probe.json", {"device": None, "measured": measured})
    app = visit("memory", space, monkeypatch)
    assert message("probe.host_only") in [box.value for box in app.info]
    assert "3.00 GiB" in markup(app)
