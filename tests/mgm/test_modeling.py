"""What the model does beyond the reference's answers: levers, samples without pictures, bounds."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from backend.errors import InputError
from backend.mgm.checkpoints import MGM
from backend.mgm.mining import cells, mine
from backend.mgm.multimodal import IGNORE, IMAGE_TOKEN
from backend.mgm.projector import is_projector, is_tower
from tests.mgm import tiny


def direct_mining(query, joined, of_query, of_key, of_value) -> torch.Tensor:
    """The paper's form: keys and values of every vector, then attention."""
    vectors = cells(joined, int(query.shape[1] ** 0.5))

    def project(part) -> torch.Tensor:
        norm, linear = part[0], part[1]
        normed = functional.layer_norm(vectors, norm.weight.shape, norm.weight, norm.bias)
        return functional.linear(normed, linear.weight, linear.bias)

    asked = of_query(query).unsqueeze(2)
    keys, values = project(of_key), project(of_value)
    weights = (asked @ keys.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
    return (weights @ values).squeeze(2)


def test_folded_mining_is_the_direct_form(mgm: MGM) -> None:
    decoder = mgm.model.model.double()
    parts = (
        decoder.vlm_uni_query_projector,
        decoder.vlm_uni_aux_projector,
        decoder.vlm_uni_val_projector,
    )
    reference = tiny.tensors("forward")
    query, joined = reference["clip_feat"].double(), reference["aux_feat"].double()
    folded = mine(query, joined, *parts)
    assert_close(folded, direct_mining(query, joined, *parts), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_tower_chunks_change_nothing(mgm: MGM, chunk: int) -> None:
    inputs, decoder = tiny.forward_inputs(), mgm.model.model
    with torch.no_grad():
        whole = decoder.encode_images(inputs["images"], inputs["images_aux"])
        decoder.tower_chunk = chunk
        parts = decoder.encode_images(inputs["images"], inputs["images_aux"])
    assert_close(parts, whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("chunk", [0, 1])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_high_definition_levers_change_nothing(zoo, chunk: int, checkpointing: bool) -> None:
    reference = tiny.tensors("hd_grid2_global")
    side = reference["images_aux"].shape[-1]
    model = tiny.assemble(zoo, image_grid=2, image_global=True, image_size_aux=side).model
    model.select_trainable("pretrain")
    low, high = (torch.cat([reference[name]] * 2) for name in ("images", "images_aux"))
    model.model.encode_images(low, high).square().mean().backward()
    wanted = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.model.tower_chunk, model.model.mining_checkpointing = chunk, checkpointing
    model.model.encode_images(low, high).square().mean().backward()
    assert len(wanted) == len(tiny.tensors("grads_stage1"))
    for name, gradient in wanted.items():
        assert_close(model.get_parameter(name).grad, gradient, rtol=1e-4, atol=1e-6)


def test_batch_of_texts_trains_and_leaves_zero_gradients_at_the_projector(mgm: MGM) -> None:
    mgm.model.select_trainable("finetune")
    turns = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "a red bus"}]
    encoded = mgm.processor.encode(turns, False)
    batch = mgm.processor.collate([(encoded.input_ids, encoded.labels)] * 2)
    with_blanks = mgm.model(**batch, **mgm.processor.images([None, None]))
    without = mgm.model(**batch)
    assert torch.equal(with_blanks.loss, without.loss)
    with_blanks.loss.backward()
    for name, parameter in mgm.model.named_parameters():
        if is_projector(name):
            assert parameter.grad is not None and not parameter.grad.any()


def test_sequence_is_cut_after_pictures_are_in(mgm: MGM) -> None:
    inputs = tiny.forward_inputs()
    mgm.model.config.tokenizer_model_max_length = 9
    batch = mgm.model.model.embed_batch(**inputs)
    assert batch.inputs_embeds.shape[:2] == (len(inputs["input_ids"]), 9)
    assert batch.labels.shape == batch.attention_mask.shape == batch.inputs_embeds.shape[:2]


def test_hidden_states_and_labels_make_the_same_loss(mgm: MGM) -> None:
    inputs = tiny.forward_inputs()
    with torch.no_grad():
        hidden, labels = mgm.model(**inputs, return_hidden=True)
        loss = functional.cross_entropy(
            mgm.model.lm_head(hidden[:, :-1]).flatten(0, 1),
            labels[:, 1:].flatten(),
            ignore_index=IGNORE,
        )
    assert_close(loss.reshape(1), tiny.tensors("forward")["loss"], rtol=0, atol=1e-5)


def test_last_logits_alone(mgm: MGM) -> None:
    inputs = {name: t for name, t in tiny.forward_inputs().items() if name != "labels"}
    with torch.no_grad():
        everything = mgm.model(**inputs).logits
        last = mgm.model(**inputs, logits_to_keep=1).logits
    assert_close(last, everything[:, -1:], rtol=0, atol=1e-5)


def test_pictures_and_placeholders_must_match(mgm: MGM) -> None:
    inputs = tiny.forward_inputs()
    assert (inputs["input_ids"] == IMAGE_TOKEN).any()
    with pytest.raises(InputError, match="pictures"):
        mgm.model(**{**inputs, "images": inputs["images"][:1]})
    with pytest.raises(InputError, match="no picture"):
        mgm.model(**{**inputs, "images": None, "images_aux": None})
    with pytest.raises(InputError, match="high-resolution"):
        mgm.model(**{**inputs, "images_aux": None})


@pytest.mark.parametrize("flag", ["optimize_vision_tower", "optimize_vision_tower_aux"])
def test_flags_train_a_part_of_a_tower(mgm: MGM, flag: str) -> None:
    setattr(mgm.model.config, flag, True)
    mgm.model.select_trainable("pretrain")
    mgm.model(**tiny.forward_inputs()).loss.backward()
    trained = {n for n, p in mgm.model.named_parameters() if p.requires_grad and is_tower(n)}
    tower = "vision_tower." if flag == "optimize_vision_tower" else "vision_tower_aux."
    assert trained and all(tower in name for name in trained)
    assert any(mgm.model.get_parameter(name).grad is not None for name in trained)


def test_drop_path_acts_in_training_only(mgm: MGM) -> None:
    tower, pictures = mgm.model.model.vision_tower_aux, tiny.forward_inputs()["images_aux"]
    tower.set_drop_path(0.5)
    with torch.no_grad():
        still = [tower(pictures)[-1] for _ in range(2)]
        tower.train()
        moving = [tower(pictures)[-1] for _ in range(8)]
    assert torch.equal(*still)
    assert any(not torch.equal(moving[0], other) for other in moving[1:])
