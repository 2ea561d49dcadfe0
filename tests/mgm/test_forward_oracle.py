"""The model against the reference: features, sequence, logits, loss, gradients, answers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from backend.mgm.checkpoints import MGM
from backend.mgm.mining import join_maps
from tests.mgm import tiny

FEATURES = {"rtol": 1.5e-6, "atol": 1.5e-6}
LOGITS = {"rtol": 0, "atol": 1e-5}


def gradients_are(mgm: MGM, stage: str, wanted: dict[str, Tensor]) -> None:
    mgm.model.select_trainable(stage)
    mgm.model(**tiny.forward_inputs()).loss.backward()
    found = {name: p.grad for name, p in mgm.model.named_parameters() if p.grad is not None}
    wanted = {name: grad for name, grad in wanted.items() if name != "lm_head.weight"}
    assert set(found) == set(wanted)
    for name, gradient in wanted.items():
        assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_mgm_oracle_tower_and_mining_features(mgm: MGM) -> None:
    reference, decoder = tiny.tensors("forward"), mgm.model.model
    with torch.no_grad():
        query, maps = decoder.tower_features(reference["images"], reference["images_aux"])
        joined = join_maps(maps)
        mixed = decoder.mined_features(query, joined)
        tokens = decoder.mm_projector(mixed)
    assert_close(query, reference["clip_feat"], **FEATURES)
    assert_close(joined, reference["aux_feat"], **FEATURES)
    assert_close(mixed - query, reference["mined"], **FEATURES)
    assert_close(mixed, reference["pre_projector"], **FEATURES)
    assert_close(tokens, reference["image_features"], **FEATURES)


def test_mgm_oracle_sequence_with_pictures_in_place(mgm: MGM) -> None:
    reference = tiny.tensors("forward")
    batch = mgm.model.model.embed_batch(**tiny.forward_inputs())
    assert torch.equal(batch.labels, reference["new_labels"])
    assert torch.equal(batch.attention_mask, reference["new_attention_mask"])
    # 4.38 scales embeddings inside Gemma, so the reference's are not scaled yet.
    scale = mgm.model.config.hidden_size**0.5
    assert_close(batch.inputs_embeds / scale, reference["inputs_embeds"], **FEATURES)


def test_mgm_oracle_logits_and_loss(mgm: MGM) -> None:
    reference = tiny.tensors("forward")
    with torch.no_grad():
        output = mgm.model(**tiny.forward_inputs())
    assert_close(output.logits, reference["logits"], **LOGITS)
    assert_close(output.loss.reshape(1), reference["loss"], **LOGITS)


def test_mgm_oracle_gradients_of_pretraining(mgm: MGM) -> None:
    gradients_are(mgm, "pretrain", tiny.tensors("grads_stage1"))


def test_mgm_oracle_gradients_of_finetuning(mgm: MGM) -> None:
    gradients_are(mgm, "finetune", tiny.tensors("grads_stage2"))


@pytest.mark.parametrize("chunk", [0, 1, 2])
@pytest.mark.parametrize(("stage", "file"), [("pretrain", 1), ("finetune", 2)])
def test_mgm_oracle_gradients_with_memory_levers(
    mgm: MGM, stage: str, file: int, chunk: int
) -> None:
    mgm.model.model.mining_checkpointing = True
    mgm.model.model.tower_chunk = chunk
    mgm.model.set_activation_checkpointing()
    mgm.model.train()
    mgm.model.model.vision_tower_aux.set_drop_path(0)
    gradients_are(mgm, stage, tiny.tensors(f"grads_stage{file}"))


@pytest.mark.parametrize("number", [0, 1])
def test_mgm_oracle_greedy_tokens(mgm: MGM, number: int) -> None:
    reference, inputs = tiny.answers("generate"), tiny.forward_inputs()
    wanted = reference[f"gen{number}"]
    found = mgm.model.generate(
        torch.tensor([reference[f"prompt{number}"]]),
        images=inputs["images"][number : number + 1],
        images_aux=inputs["images_aux"][number : number + 1],
        max_new_tokens=len(wanted),
    )
    assert found.tolist() == [wanted]


def test_mgm_oracle_high_definition_tokens(zoo) -> None:
    reference = tiny.tensors("hd_grid2_global")
    side = reference["images_aux"].shape[-1]
    model, processor = tiny.assemble(zoo, image_grid=2, image_global=True, image_size_aux=side)
    with torch.no_grad():
        tokens = model.model.encode_images(reference["images"], reference["images_aux"])
    assert_close(tokens, reference["image_features"], **FEATURES)
    assert tokens.shape[1] == model.config.tokens_per_image
    picture = processor.images([None])["images"]
    assert picture.shape == reference["images"].shape


def test_mgm_oracle_lora_forward_of_the_kit(lora: MGM) -> None:
    reference = tiny.tensors("lora_forward")
    with torch.no_grad():
        output = lora.model(**tiny.forward_inputs())
    assert_close(output.logits, reference["logits"], **LOGITS)
    assert_close(output.loss.reshape(1), reference["loss"], **LOGITS)


def test_mgm_oracle_lora_merged_is_the_same_model(zoo) -> None:
    merged = tiny.load_lora(zoo, merge=True)
    assert not any("lora_" in name for name, _ in merged.model.named_parameters())
    with torch.no_grad():
        output = merged.model(**tiny.forward_inputs())
    assert_close(output.logits, tiny.tensors("lora_forward")["logits"], **LOGITS)


def test_mgm_oracle_lora_trains_adapter_and_projector_only(lora: MGM) -> None:
    lora.model.select_trainable("adapter")
    trained = [f"base_model.model.{n}" for n, p in lora.model.named_parameters() if p.requires_grad]
    assert sorted(trained) == sorted(tiny.answers("lora_keys")["trainable"])
