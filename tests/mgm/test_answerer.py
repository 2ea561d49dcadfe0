"""Questions put to a checkpoint: batches answer as single questions do, pictures are read once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backend.evaluation.benchmarks import FilePicture, Task, mmbench_tasks, textvqa_tasks
from backend.evaluation.generation import Answerer, plan_batches
from backend.mgm import checkpoints
from backend.mgm.processing import PAD
from tests.evaluation.samples import make_benchmarks
from tests.mgm import tiny

NEW = 6


@pytest.fixture(scope="module")
def checkpoint(zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("answerer") / "mgm-2b"
    model, processor = tiny.assemble(zoo)
    tiny.liven(model)
    checkpoints.save(path, model, processor)
    return path


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    files = make_benchmarks(tmp_path_factory.mktemp("benchmarks"))
    return [
        *textvqa_tasks(files.questions, files.images),
        *mmbench_tasks(files.tsv),
    ]


def in_numbers(tokens: torch.Tensor) -> list[str]:
    """Answers as ids: most of them have no word in the tiny tokenizer."""
    return [" ".join(str(token) for token in row if token != PAD) for row in tokens.tolist()]


def answers(answerer: Answerer, tasks: list[Task]) -> dict[tuple[str, str], str]:
    answerer.processor.decode = in_numbers
    batches = list(answerer.answers(tasks, NEW))
    assert not [broken for batch in batches for broken in batch.unreadable]
    return {task.key: text for batch in batches for task, text in batch.answered}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_answers_as_single_questions_do(checkpoint, tasks, workers: int) -> None:
    single = answers(Answerer(checkpoint, batch_size=1, image_workers=workers), tasks)
    assert len(single) == len(tasks)
    assert len(set(single.values())) > 1
    for size in (4, 100):
        batched = answers(Answerer(checkpoint, batch_size=size, image_workers=workers), tasks)
        assert batched == single


def test_each_picture_passes_the_towers_once(checkpoint, tasks) -> None:
    answerer, encoded = Answerer(checkpoint, batch_size=4), Counter()
    encode = answerer.model.model.encode_images

    def counted(images: torch.Tensor, images_aux: torch.Tensor) -> torch.Tensor:
        encoded["pictures"] += len(images)
        return encode(images, images_aux)

    answerer.model.model.encode_images = counted
    answers(answerer, tasks)
    assert encoded["pictures"] == len({task.picture.key for task in tasks})


def test_unreadable_picture_is_told_and_the_others_are_answered(checkpoint, tasks, tmp_path):
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff half a picture")
    torn = replace(tasks[0], picture=FilePicture(tmp_path / "torn.jpg"))
    gone = replace(tasks[1], picture=FilePicture(tmp_path / "gone.jpg"))
    batches = list(Answerer(checkpoint, batch_size=8).answers([torn, gone, *tasks[2:]], NEW))
    unreadable = {task.key for batch in batches for task, _ in batch.unreadable}
    assert unreadable == {torn.key, gone.key}
    assert sum(len(batch.answered) for batch in batches) == len(tasks) - 2


def test_batch_that_does_not_fit_is_halved(checkpoint, tasks) -> None:
    answerer = Answerer(checkpoint, batch_size=8)
    wanted, generate = answers(answerer, tasks), answerer.model.generate

    def small(input_ids: torch.Tensor, **settings: object) -> torch.Tensor:
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("no memory left")
        return generate(input_ids, **settings)

    answerer.model.generate = small
    assert answers(answerer, tasks) == wanted


def test_pictures_that_do_not_fit_together_are_halved(checkpoint, tasks) -> None:
    answerer = Answerer(checkpoint, batch_size=8)
    wanted = answers(answerer, tasks)
    answerer._tokens.clear()
    encode, sizes = answerer.model.model.encode_images, []

    def small(images: torch.Tensor, images_aux: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 1:
            raise torch.cuda.OutOfMemoryError("no memory left")
        return encode(images, images_aux)

    answerer.model.model.encode_images = small
    assert answers(answerer, tasks) == wanted
    assert max(sizes) > 2


def test_a_picture_that_does_not_fit_alone_ends_it(checkpoint, tasks) -> None:
    answerer = Answerer(checkpoint, batch_size=8)

    def none(images: torch.Tensor, images_aux: torch.Tensor) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("no memory left")

    answerer.model.model.encode_images = none
    with pytest.raises(torch.cuda.OutOfMemoryError, match="no memory left"):
        list(answerer.answers(tasks, NEW))


def test_picture_tokens_used_longest_ago_are_let_go(checkpoint, tasks, monkeypatch) -> None:
    monkeypatch.setattr("backend.evaluation.generation._CACHE_BYTES", 1)
    answerer = Answerer(checkpoint, batch_size=2)
    answers(answerer, tasks)
    assert len(answerer._tokens) == 1


def test_plan_holds_every_question_once(tasks) -> None:
    plan = plan_batches(tasks, 5)
    assert sorted(id(task) for batch in plan for task in batch) == sorted(map(id, tasks))
    assert all(len(batch) <= 5 for batch in plan)
