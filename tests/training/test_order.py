"""Which samples meet in which batch, and that a resume needs no memory of it."""

from __future__ import annotations

from itertools import islice

import pytest

from backend.training.order import Batch, DataOrder


def lengths() -> list[int]:
    """A hundred samples: every fourth without a picture, of 1 to 37 words."""
    return [(-1 if i % 4 == 3 else 1) * (1 + (i * 17) % 37) for i in range(100)]


def steps(order: DataOrder, count: int, start: int = 0) -> list[Batch]:
    return list(islice(order.batches(start), count))


def flat(batch: Batch) -> list[int]:
    return [index for micro in batch for index in micro]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("start", [1, 5, 6, 7, 20])
def test_any_step_can_be_begun_at(grouped: bool, start: int) -> None:
    order = DataOrder(100, 4, 4, 1024, lengths() if grouped else None)
    whole = steps(order, 30)
    again = DataOrder(100, 4, 4, 1024, lengths() if grouped else None)
    assert steps(again, 10, start) == whole[start : start + 10]


@pytest.mark.parametrize("grouped", [False, True])
def test_an_epoch_shows_each_sample_at_most_once_and_the_next_in_another_order(
    grouped: bool,
) -> None:
    order = DataOrder(100, 4, 4, 1024, lengths() if grouped else None)
    assert order.steps_per_epoch == 6
    assert order.left_out == 4
    first, second = steps(order, 6), steps(order, 6, 6)
    shown = [index for batch in first for index in flat(batch)]
    assert len(shown) == len(set(shown)) == 96
    assert first != second
    other = DataOrder(100, 4, 4, 7, lengths() if grouped else None)
    assert steps(other, 6) != first


def test_a_group_holds_either_pictures_or_plain_text() -> None:
    kinds = lengths()
    order = DataOrder(100, 4, 4, 1024, kinds)
    mixed = 0
    for batch in steps(order, 6):
        mixed += len({kinds[index] > 0 for index in flat(batch)}) - 1
    # 75 with a picture and 25 without fill four batches and one; the rest share the last.
    assert mixed == 1


def test_micro_batches_of_a_group_are_of_similar_length() -> None:
    kinds = [1 + i for i in range(64)]
    order = DataOrder(64, 4, 4, 1024, kinds)
    for batch in steps(order, 4):
        sums = [sum(kinds[index] for index in micro) for micro in batch]
        assert [len(micro) for micro in batch] == [4, 4, 4, 4]
        # By chance they would lie up to a hundred words apart.
        assert max(sums) - min(sums) <= 0.15 * sum(sums) / 4


def test_data_smaller_than_a_global_batch_is_one_batch() -> None:
    order = DataOrder(5, 2, 8, 1024)
    assert order.steps_per_epoch == 1
    assert order.left_out == 0
    assert sorted(flat(steps(order, 1)[0])) == [0, 1, 2, 3, 4]
