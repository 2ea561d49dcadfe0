"""Greedy generation: a batch answers what each row answers alone, and stops at `<eos>` only."""

from __future__ import annotations

import pytest
import torch

from backend.mgm.checkpoints import MGM
from backend.mgm.modeling import EOS, PAD
from tests.mgm import tiny

QUESTIONS = ["What?", "How many dogs are on the green grass near the house?", "Who is it"]
NEW = 8


@pytest.fixture
def asked(mgm: MGM) -> dict[str, torch.Tensor]:
    """A batch of questions of different lengths, each with its picture."""
    tiny.liven(mgm.model)
    prompts = [mgm.processor.prompt(question, has_image=True) for question in QUESTIONS]
    inputs = tiny.forward_inputs()
    turns = torch.arange(len(QUESTIONS)) % len(inputs["images"])
    pictures = {name: inputs[name][turns] for name in ("images", "images_aux")}
    return {**mgm.processor.collate_prompts(prompts), **pictures}


def alone(mgm: MGM, asked: dict[str, torch.Tensor], row: int, **settings) -> list[int]:
    """What a row answers in a batch of its own, without padding."""
    ids = asked["input_ids"][row][asked["attention_mask"][row]]
    pictures = {name: asked[name][row : row + 1] for name in ("images", "images_aux")}
    settings = {"max_new_tokens": NEW, **settings}
    return mgm.model.generate(ids[None], **pictures, **settings)[0].tolist()


def without_cache(mgm: MGM, asked: dict[str, torch.Tensor], row: int) -> list[int]:
    """Greedy search in the plainest form: the whole sequence again for every token."""
    ids = asked["input_ids"][row][asked["attention_mask"][row]].tolist()
    pictures = {name: asked[name][row : row + 1] for name in ("images", "images_aux")}
    new: list[int] = []
    with torch.no_grad():
        while len(new) < NEW and EOS not in new:
            logits = mgm.model(torch.tensor([ids + new]), **pictures).logits
            new.append(int(logits[0, -1].argmax()))
    return new


def exchange(mgm: MGM, ids: torch.Tensor, one: int, other: int) -> None:
    """Let two tokens trade places in the model and in the question, in place."""
    weight = mgm.model.model.embed_tokens.weight.data
    weight[[one, other]] = weight[[other, one]]
    ones, others = ids == one, ids == other
    ids[ones], ids[others] = other, one


def test_rows_of_a_batch_answer_as_if_alone(mgm: MGM, asked) -> None:
    together = mgm.model.generate(**asked, max_new_tokens=NEW).tolist()
    for row in range(len(QUESTIONS)):
        assert together[row] == alone(mgm, asked, row) == without_cache(mgm, asked, row)


def test_pictures_encoded_before_give_the_same_answers(mgm: MGM, asked) -> None:
    wanted = mgm.model.generate(**asked, max_new_tokens=NEW)
    with torch.no_grad():
        tokens = mgm.model.model.encode_images(asked.pop("images"), asked.pop("images_aux"))
    found = mgm.model.generate(**asked, image_tokens=tokens, max_new_tokens=NEW)
    assert torch.equal(found, wanted)


def test_a_row_ends_at_eos_and_the_others_go_on(mgm: MGM, asked) -> None:
    first = [without_cache(mgm, asked, row)[0] for row in range(len(QUESTIONS))]
    exchange(mgm, asked["input_ids"], EOS, first[0])
    ended = mgm.model.generate(**asked, max_new_tokens=NEW).tolist()
    assert ended[0] == [EOS] + [PAD] * (len(ended[0]) - 1)
    going_on = [row for row, token in zip(ended, first, strict=True) if token != first[0]]
    assert going_on, "all rows begin with the same token"
    assert all(row[0] not in (EOS, PAD) for row in going_on)
    assert mgm.processor.decode(ended)[0] == ""


def test_generation_stops_when_every_row_has_ended(mgm: MGM, asked) -> None:
    exchange(mgm, asked["input_ids"], EOS, without_cache(mgm, asked, 0)[0])
    assert alone(mgm, asked, 0, max_new_tokens=500) == [EOS]


def test_end_of_turn_does_not_end_an_answer(mgm: MGM) -> None:
    reference = tiny.answers("generate")["gen1"]
    assert len(set(reference)) == 1
    end_of_turn = mgm.processor.tokenize("<end_of_turn>")[0]
    pictures = {name: tiny.forward_inputs()[name][1:2] for name in ("images", "images_aux")}
    ids = torch.tensor([tiny.answers("generate")["prompt1"]])
    exchange(mgm, ids, reference[0], end_of_turn)
    found = mgm.model.generate(ids, **pictures, max_new_tokens=3)
    assert found.tolist() == [[end_of_turn] * 3]
    assert mgm.processor.decode(found) == [""]


def test_generation_of_a_question_without_a_picture(mgm: MGM) -> None:
    batch = mgm.processor.collate_prompts([mgm.processor.prompt("Why?", has_image=False)])
    pictures = mgm.processor.images([None])
    found = mgm.model.generate(**batch, **pictures, max_new_tokens=2)
    assert found.shape == (1, 2)
