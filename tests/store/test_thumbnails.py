"""Small pictures: cached by content, never from outside, never an exception."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from backend.workspace import Settings, Workspace
from store.thumbnails import question_thumbnails, thumbnail, thumbnails
from tests.explored import explored
from tests.seeds import picture


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "space", Settings(name="space"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    picture(1, 800).save(folder / "large.png")
    (tmp_path / "secret.png").write_bytes((folder / "large.png").read_bytes())
    return folder


def size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "WEBP"
        return image.size


def test_a_large_picture_becomes_small(workspace: Workspace, root: Path):
    found = thumbnail(workspace, root, "large.png", None)
    assert size(found.data) == (360, 360)
    assert found.uri.startswith("data:image/webp;base64,")


def test_the_small_picture_is_kept_by_content(workspace: Workspace, root: Path):
    import hashlib

    digest = hashlib.sha256((root / "large.png").read_bytes()).hexdigest()
    first = thumbnail(workspace, root, "large.png", digest, 64)
    (root / "large.png").unlink()
    assert thumbnail(workspace, root, "large.png", digest, 64) == first
    assert thumbnail(workspace, root, "large.png", digest, 32).problem == "image_missing"


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "a/../../secret.png", "\0"])
def test_nothing_outside_the_folder_is_shown(workspace: Workspace, root: Path, path: str):
    found = thumbnail(workspace, root, path, None)
    assert (found.data, found.problem) == (None, "image_outside")


def test_a_link_that_leads_outside_is_not_followed(workspace: Workspace, root: Path):
    (root / "link.png").symlink_to(root.parent / "secret.png")
    assert thumbnail(workspace, root, "link.png", None).problem == "image_outside"


def test_a_hash_that_is_a_path_finds_nothing(workspace: Workspace, root: Path):
    found = thumbnail(workspace, root, "missing.png", "../../../etc/passwd")
    assert found.problem == "image_missing"


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 99])
def test_what_is_no_picture_says_so(workspace: Workspace, root: Path, content: bytes):
    (root / "broken.png").write_bytes(content)
    assert thumbnail(workspace, root, "broken.png", None).problem == "image_unreadable"


def test_several_come_in_order(workspace: Workspace, root: Path):
    found = thumbnails(workspace, root, [("none.png", None), ("large.png", None)])
    assert [item.problem for item in found] == ["image_missing", None]


def test_questions_show_files_and_rows_of_the_tsv(tmp_path: Path):
    space = explored(tmp_path)
    file = f"{0:016x}.jpg"
    found = question_thumbnails(space, [file, "tsv:0", "tsv:77", "tsv:x", "../secret.jpg"])
    assert size(found[file].data) == size(found["tsv:0"].data) == (40, 30)
    problems = [found[name].problem for name in ("tsv:77", "tsv:x", "../secret.jpg")]
    assert problems == ["image_missing", "image_missing", "image_outside"]
