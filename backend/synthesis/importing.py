"""Making dataset versions from files: the profile's seed, or a folder in the kit's form."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock

from backend.errors import InputError, UsageError
from backend.formats.convert import (
    answer_of,
    checked_caption,
    dialogue_to_conversation,
    is_dialogue,
    read_originals,
    restore_question,
    single_image,
)
from backend.formats.data_juicer import END_TOKEN, Pair, read_pairs
from backend.formats.images import ImageFacts, ImageInspector
from backend.formats.llava import Conversation
from backend.synthesis.datasets import (
    ROWS_PER_GROUP,
    count_words,
    describe,
    samples_schema,
    write_dataset,
)
from backend.workspace import Workspace

SEED = "seed"
SEED_REFERENCE = "seed/v1"
Report = Callable[[int, int], None]
"""Told how many of how many samples were read."""


def ensure_dataset(workspace: Workspace, reference: str, report: Report | None = None) -> str:
    """The reference, after the seed was imported if it is the seed that is asked for.

    Raises:
        UsageError: There is no such version.
        InputError: The seed's files are missing or malformed.
    """
    if reference == SEED_REFERENCE and reference not in workspace.dataset_references():
        return import_seed(workspace, report)
    workspace.dataset(reference)
    return reference


def import_seed(workspace: Workspace, report: Report | None = None) -> str:
    """Make a version of `seed` from the profile's assets; the images stay where they are.

    Files that were imported before are not imported again.

    Args:
        workspace: Its assets `seed_pairs`, `seed_originals` and `seed_images` are read.
        report: Told of progress.

    Returns:
        The version's reference, `seed/v1` the first time.

    Raises:
        InputError: A file is missing or a row is malformed; names file, line, field and remedy.
    """
    pairs = workspace.asset("seed_pairs")
    originals = workspace.asset("seed_originals")
    for path in (pairs, originals):
        if not path.is_file():
            raise InputError(
                "the file does not exist.",
                place=str(path),
                remedy="Fetch the assets on the Environment page.",
            )
    lock = workspace.root / ".cache" / "seed.lock"
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):
        known = (ref for ref in workspace.dataset_references() if ref.startswith(f"{SEED}/"))
        source_hash = _hash_of(pairs, originals)
        for reference in known:
            if describe(workspace, reference).source_hash == source_hash:
                return reference
        return _import(
            workspace, SEED, pairs, originals, workspace.asset("seed_images"), source_hash, report
        )


def import_directory(
    workspace: Workspace, directory: Path, name: str = "", report: Report | None = None
) -> str:
    """Make a dataset version from a folder in the kit's form.

    The folder holds one `.jsonl` file of pairs. Questions come from its `stage_1.json`, or from
    the seed's where it has none. Images lie below the folder, or below the seed's image folder
    where the first image is not in this one.

    Args:
        workspace: Where the version goes.
        directory: The folder.
        name: The dataset's name; empty takes the folder's.
        report: Told of progress.

    Returns:
        The version's reference.

    Raises:
        UsageError: The folder does not exist, or does not hold one `.jsonl` file.
        InputError: A row is malformed; names file, line, field and remedy.
    """
    directory = directory.resolve()
    files = sorted(directory.glob("*.jsonl"))
    if len(files) != 1:
        raise UsageError(
            f"there are {len(files)} .jsonl files in the folder.",
            place=str(directory),
            remedy="Name a folder with one file of pairs in Data-Juicer's form.",
        )
    own = directory / "stage_1.json"
    originals = own if own.is_file() else workspace.asset("seed_originals")
    root = _image_root(files[0], directory, workspace.asset("seed_images"))
    name = name or re.sub(r"[^\w.-]+", "-", directory.name).strip("-.")
    source_hash = _hash_of(files[0], originals)
    return _import(workspace, name, files[0], originals, root, source_hash, report)


def _image_root(pairs: Path, directory: Path, seed_images: Path) -> Path:
    first = next(read_pairs(pairs, seed_images), None)
    if first is None or (directory / first.images[0]).exists():
        return directory
    return seed_images if (seed_images / first.images[0]).exists() else directory


def _import(
    workspace: Workspace,
    name: str,
    pairs: Path,
    originals: Path,
    image_root: Path,
    source_hash: str,
    report: Report | None,
) -> str:
    with ImageInspector(image_root) as inspector:
        return write_dataset(
            workspace,
            name,
            _tables(pairs, originals, inspector, report),
            image_root=image_root,
            source=str(pairs),
            source_hash=source_hash,
        )


def _tables(
    pairs: Path, originals: Path, inspector: ImageInspector, report: Report | None
) -> Iterator[pa.Table]:
    with pairs.open("rb") as file:
        total = sum(1 for line in file if line.strip())
    known = read_originals(originals) if originals.is_file() else {}
    pending = read_pairs(pairs, inspector.root)
    seen: Counter[str] = Counter()
    done = 0
    while chunk := list(islice(pending, ROWS_PER_GROUP)):
        facts = inspector.facts([single_image(pair) for pair in chunk])
        rows = []
        for pair, fact in zip(chunk, facts, strict=True):
            seen[pair.id] += 1
            rows.append(_row(pair, known, fact, seen[pair.id]))
        yield pa.Table.from_pylist(rows, schema=samples_schema())
        done += len(chunk)
        if report is not None:
            report(done, total)


def _row(
    pair: Pair, originals: Mapping[str, Conversation], facts: ImageFacts, occurrence: int
) -> dict[str, Any]:
    if is_dialogue(pair.text):
        turns = dialogue_to_conversation(pair).turns
        text = pair.text.strip().removesuffix(END_TOKEN).rstrip()
    else:
        turns = restore_question(pair, originals).turns
        text = checked_caption(pair)
    answer = answer_of(text)
    return {
        "sample_id": pair.id if occurrence == 1 else f"{pair.id}~{occurrence}",
        "source_id": pair.id,
        "origin": "seed",
        "images": [single_image(pair)],
        "text": text,
        "question": turns[0].value,
        "answer": answer,
        "kept": True,
        "width": facts.width,
        "height": facts.height,
        "n_words": count_words(answer),
        "image_sha256": facts.sha256,
        "image_problem": facts.problem,
    }


def _hash_of(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
