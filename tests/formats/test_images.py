from __future__ import annotations

import hashlib

import pytest

from backend.formats.images import ImageInspector, inspect_image
from tests.seeds import picture


def test_a_good_image_tells_size_and_hash(tmp_path):
    picture(3).save(tmp_path / "a.jpg")
    facts = inspect_image(tmp_path, "a.jpg")
    assert (facts.width, facts.height, facts.problem) == (64, 64, None)
    assert facts.sha256 == hashlib.sha256((tmp_path / "a.jpg").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_a_file_cut_short_is_unreadable(tmp_path, name):
    picture(3, 256).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    facts = inspect_image(tmp_path, name)
    assert (facts.problem, facts.width) == ("image_unreadable", None)
    assert facts.sha256 is not None


def test_other_faults_have_their_names(tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "root").mkdir()
    picture(1).save(tmp_path / "secret.png")
    (tmp_path / "root" / "link.png").symlink_to(tmp_path / "secret.png")
    assert inspect_image(tmp_path, "text.jpg").detail == "not an image"
    assert inspect_image(tmp_path, "none.jpg").problem == "image_missing"
    assert inspect_image(tmp_path, "folder").problem == "image_missing"
    assert inspect_image(tmp_path / "root", "link.png").problem == "image_outside"


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    picture(1).save(tmp_path / "big.png")
    assert inspect_image(tmp_path, "big.png").problem == "image_too_large"


def test_many_images_come_in_order_and_each_is_read_once(tmp_path, monkeypatch):
    for number in range(5):
        picture(number).save(tmp_path / f"{number}.png")
    names = [f"{number % 5}.png" for number in range(20)]
    with ImageInspector(tmp_path, workers=2) as inspector:
        facts = inspector.facts(names)
        assert [f.sha256 for f in facts] == [inspect_image(tmp_path, n).sha256 for n in names]
        (tmp_path / "0.png").unlink()
        assert inspector.facts(["0.png"])[0].problem is None
