"""From a LLaVA file to micro-batches: ids, labels, padding, pictures, and those that are broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from backend.errors import InputError
from backend.mgm.checkpoints import MGM
from backend.mgm.multimodal import IGNORE, IMAGE_TOKEN
from backend.training.data import Collator, find_image, prefetch, read_samples
from backend.workspace import Workspace
from tests.mgm import tiny


@pytest.fixture(scope="module")
def mgm(space: Workspace) -> MGM:
    return tiny.assemble(
        tuple(space.asset(name) for name in ("llm", "vision_tower", "vision_tower_aux"))
    )


@pytest.fixture
def collator(space: Workspace, mgm: MGM) -> Collator:
    samples = read_samples(space.asset("finetune_pairs"))
    return Collator(samples, space.asset("finetune_images"), mgm.processor, "pad")


def test_ids_are_the_studios_own_where_they_are_known(space: Workspace, tmp_path: Path) -> None:
    assert read_samples(space.asset("finetune_pairs"))[3].id == "sample-3"
    record = json.loads(space.asset("finetune_pairs").read_text())[3]
    del record["sample_id"]
    (tmp_path / "plain.json").write_text(json.dumps([record]))
    assert read_samples(tmp_path / "plain.json")[0].id == "seed-3"


def test_records_that_share_an_id_are_samples_of_their_own(space: Workspace, tmp_path: Path):
    records = json.loads(space.asset("finetune_pairs").read_text())[:2]
    (tmp_path / "again.json").write_text(json.dumps([*records, *records, records[0]]))
    samples = read_samples(tmp_path / "again.json")
    wanted = ["sample-0", "sample-1", "sample-0#2", "sample-1#2", "sample-0#3"]
    assert [sample.id for sample in samples] == wanted
    assert samples[4].conversation == samples[0].conversation


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text("[]")
    with pytest.raises(InputError, match="no sample"):
        read_samples(tmp_path / "empty.json")


def test_answers_alone_are_trained_and_padding_never(collator: Collator) -> None:
    batch = collator([0, 2])
    ids, labels, mask = (batch.tensors[n] for n in ("input_ids", "labels", "attention_mask"))
    assert batch.ids == ["sample-0", "sample-2"]
    assert ids.shape == labels.shape == mask.shape
    assert (labels[~mask] == IGNORE).all()
    assert not mask[0, -1]  # "red" is shorter than "blue blue blue"
    tokenizer = collator.processor.tokenizer
    for row, answer in enumerate(("red", "blue blue blue")):
        trained = labels[row][labels[row] != IGNORE]
        assert tokenizer.decode(trained.tolist()).startswith(answer)
        assert torch.equal(trained, ids[row][labels[row] != IGNORE])
        assert int((ids[row] == IMAGE_TOKEN).sum()) == 1


def test_pictures_come_with_their_rows_and_blanks_with_the_others(collator: Collator) -> None:
    both = collator([5, 6]).tensors
    assert both["images"].shape[0] == both["images_aux"].shape[0] == 2
    assert not both["images_aux"][0].any()
    assert both["images_aux"][1].any()
    assert "images" not in collator([5, 11]).tensors


def test_a_broken_picture_takes_its_labels_along(
    space: Workspace, mgm: MGM, tmp_path: Path
) -> None:
    samples = read_samples(space.asset("finetune_pairs"))
    Image.new("RGB", (20, 24)).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    batch = Collator(samples, tmp_path, mgm.processor, "pad")([0, 1, 2])
    named = {item.sample_id: item.problem for item in batch.unreadable}
    assert named.keys() == {"sample-1", "sample-2"}
    assert "UnidentifiedImageError" in named["sample-1"]
    assert "FileNotFoundError" in named["sample-2"]
    labeled = (batch.tensors["labels"] != IGNORE).any(dim=1).tolist()
    assert labeled == [True, False, False]


def test_a_picture_outside_its_folder_is_not_opened(space: Workspace, mgm: MGM) -> None:
    root = space.asset("finetune_images")
    (root.parent / "secret.png").write_bytes((root / "0.png").read_bytes())
    with pytest.raises(InputError, match="outside"):
        find_image(root, "../secret.png")


def test_names_that_the_kits_data_has_otherwise(tmp_path: Path) -> None:
    (tmp_path / "vg/images").mkdir(parents=True)
    (tmp_path / "ocr").mkdir()
    for name in ("vg/images/1.jpg", "ocr/2.png"):
        (tmp_path / name).touch()
    assert find_image(tmp_path, "vg/VG_100K_2/1.jpg") == tmp_path / "vg/images/1.jpg"
    assert find_image(tmp_path, "ocr/2.jpg") == tmp_path / "ocr/2.png"
    assert find_image(tmp_path, "nowhere.jpg") == tmp_path / "nowhere.jpg"


@pytest.mark.parametrize("workers", [0, 3])
def test_micro_batches_keep_their_order_however_many_threads(
    collator: Collator, workers: int
) -> None:
    wanted = [[i, (7 * i) % 24] for i in range(24)]
    batches = list(prefetch(collator, wanted, workers))
    assert [batch.ids for batch in batches] == [[f"sample-{i}" for i in pair] for pair in wanted]
    alone = collator(wanted[9]).tensors
    assert all(torch.equal(alone[name], batches[9].tensors[name]) for name in alone)


def test_a_stream_that_is_given_up_leaves_no_thread(collator: Collator) -> None:
    import threading

    stream = prefetch(collator, [[0]] * 50, 2)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "pictures"]
