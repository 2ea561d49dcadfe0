"""Making it fit: what is found, in which order, and what is never offered."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from backend.memory.bindings import settings_of
from backend.memory.cards import CARDS, usable
from backend.memory.fit import differences, fit, remedies, verdict
from backend.memory.parts import GIB
from backend.memory.plan import plan_settings
from backend.memory.predict import predict
from backend.memory.settings import MemorySettings
from backend.memory.shapes import MGM_2B
from backend.memory.speed import seconds_per_sample

KIT = MemorySettings(
    precision="fp32_master",
    zero_stage=2,
    offload="optimizer",
    positions=2048,
    gradient_accumulation=32,
)
KIT_LORA = replace(KIT, method="lora", offload="none")


def test_the_kits_recipe_does_not_fit_24_gb_and_its_logits_are_to_blame():
    prediction = predict(MGM_2B, KIT)
    assert verdict(prediction, 24 * GIB) == "no"
    assert prediction.largest == "logits"
    first = remedies(MGM_2B, KIT)[0]
    assert first.lever == "loss_chunk"
    assert first.saved > 9 * GIB
    fixed = predict(MGM_2B, replace(KIT, **first.changes))
    assert verdict(fixed, 24 * GIB) == "fits"


def test_the_lora_recipe_has_the_same_cure():
    assert verdict(predict(MGM_2B, KIT_LORA), 24 * GIB) == "no"
    assert predict(MGM_2B, KIT_LORA).largest == "logits"
    assert remedies(MGM_2B, KIT_LORA)[0].lever == "loss_chunk"


def test_full_fine_tuning_in_24_gb_is_found_and_comes_first():
    options = fit(MGM_2B, KIT, 24 * GIB)
    assert options[0].settings.method == "full"
    assert options[0].settings.offload == "none"
    assert options[0].prediction.host < 24 * GIB


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_option_fits_and_is_ranked(card):
    options = fit(MGM_2B, KIT, card.total)
    assert options
    for option in options:
        assert option.prediction == predict(MGM_2B, option.settings)
        assert option.prediction.peak_reserved <= usable(card.total)
        assert option.headroom >= 0
        assert 0 < option.speed <= 1
        assert differences(KIT, option.settings) or option.levers == ()
    ranks = [option.rank for option in options]
    assert ranks == sorted(ranks, reverse=True)


def test_only_allowed_levers_are_pulled():
    options = fit(MGM_2B, KIT, 24 * GIB, ["loss_chunk", "micro_batch"])
    assert options
    assert {lever for option in options for lever in option.levers} <= {"loss_chunk", "micro_batch"}


def test_what_fits_as_it_is_is_offered_as_it_is():
    lean = replace(KIT, loss_chunk=512)
    assert () in [option.levers for option in fit(MGM_2B, lean, 80 * GIB)]


def test_nothing_is_offered_when_nothing_fits():
    assert fit(MGM_2B, KIT, 4 * GIB) == []


def test_a_small_host_rules_offload_out():
    options = fit(MGM_2B, KIT, 24 * GIB, host_budget=24 * GIB)
    assert options
    assert all(option.settings.offload == "none" for option in options)


def test_the_global_batch_stays_what_it_was():
    for option in fit(MGM_2B, KIT, 12 * GIB):
        settings = option.settings
        assert settings.micro_batch_size * settings.gradient_accumulation == 128


@pytest.mark.parametrize("lever", ["activation_checkpointing", "mining_checkpointing"])
def test_recomputing_is_slower(lever: str):
    without = replace(KIT, **{lever: False})
    assert seconds_per_sample(replace(KIT, **{lever: True})) > seconds_per_sample(without)


def test_the_whole_answer_takes_less_than_a_slider_notices():
    times = []
    for positions in (2048, 1984, 1920, 1856):
        started = time.perf_counter()
        plan_settings(MGM_2B, "finetune", replace(KIT, positions=positions), 24 * GIB)
        times.append(time.perf_counter() - started)
    assert times[0] < 5
    assert min(times[1:]) < 0.1


@pytest.mark.parametrize("changes", [{}, {"method": "lora"}])
def test_the_kits_preset_is_planned_as_what_it_is(changes: dict):
    settings = settings_of("finetune", {"preset": "kit", **changes})
    found = plan_settings(MGM_2B, "finetune", settings, 24 * GIB)
    assert found.grade == "no"
    assert found.verdict.say().startswith("Does not fit")
    assert "Logits" in found.advice.say()
    assert "logits only where there is a label" in found.advice.say()
    assert found.parameters(found.options[0])["loss_chunk"] > 0


@pytest.mark.parametrize(
    ("preset", "card"),
    [("fit-24gb-full", 24), ("fit-16gb-full", 16), ("fit-12gb-lora", 12), ("fit-8gb-qlora", 8)],
)
def test_each_preset_fits_the_card_in_its_name(preset: str, card: int):
    settings = replace(settings_of("finetune", {"preset": preset}), positions=1024)
    assert verdict(predict(MGM_2B, settings), card * GIB) == "fits"
