"""The starter workspace: sizes, faults, real file formats, repeatable drawing."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from backend.errors import UsageError
from backend.formats import mmbench, textvqa
from backend.formats.convert import read_originals
from backend.formats.data_juicer import caption_of, read_pairs
from backend.formats.images import inspect_file
from backend.formats.llava import read_conversations
from backend.starter.create import N_INSTRUCTIONS, N_MMBENCH, N_SEED, N_TEXTVQA, ZOO, create_starter
from backend.starter.instructions import write_instructions
from backend.starter.language import VAGUE, any_question, choices
from backend.starter.mmbench import write_mmbench
from backend.starter.scenes import CELLS, GROUNDS, random_scene
from backend.starter.seed import QUESTIONS, SHARES, UNREADABLE
from backend.starter.textvqa import N_OCR_TOKENS, write_textvqa
from backend.synthesis.captions import vagueness
from backend.synthesis.datasets import describe
from backend.synthesis.pictures import sharpness
from backend.synthesis.recipes import recipe_names
from backend.workspace import ASSET_PATHS, Workspace
from tests.starter.small import small_starter, truth

ZOO_LIMIT = 12 * 10**6
SECONDS = 60


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, float, list[str]]:
    """A starter workspace, the processor's seconds it took, and the parts told."""
    told: list[str] = []
    start = time.process_time() + _children()
    root = tmp_path_factory.mktemp("starter") / "workspace"
    workspace = create_starter(root, language="zh", report=told.append)
    return workspace, time.process_time() + _children() - start, told


def _children() -> float:
    times = os.times()
    return times.children_user + times.children_system


@pytest.fixture(scope="module")
def space(created) -> Workspace:
    return created[0]


def test_it_is_made_in_well_under_a_minute_of_two_cores(created) -> None:
    _, seconds, told = created
    assert told == ["zoo", "seed", "instructions", "benchmarks", "import"]
    assert seconds < 2 * SECONDS / 2


def test_every_asset_lies_where_the_kit_keeps_it(space: Workspace) -> None:
    assert [name for name in ASSET_PATHS if not space.asset(name).exists()] == []
    assert all(space.asset(name).is_relative_to(space.root) for name in ASSET_PATHS)
    assert (space.settings.profile, space.settings.language) == ("starter", "zh")
    assert {"clean", "synthesis"} <= set(recipe_names(space))
    assert list(space.recipes.glob("*.yaml"))


def test_the_seed_is_a_version_already(space: Workspace) -> None:
    info = describe(space, "seed/v1")
    assert info.counts.kept == info.counts.samples == N_SEED == 4000
    assert info.image_root == str(space.asset("seed_images"))


def test_a_workspace_is_not_made_over_another(space: Workspace) -> None:
    before = (space.root / "workspace.toml").read_bytes()
    with pytest.raises(UsageError):
        create_starter(space.root)
    assert (space.root / "workspace.toml").read_bytes() == before
    assert [path.name for path in space.root.parent.iterdir()] == [space.root.name]


def test_the_seed_has_the_kits_form(space: Workspace) -> None:
    pairs = list(read_pairs(space.asset("seed_pairs"), space.asset("seed_images")))
    originals = read_originals(space.asset("seed_originals"))
    assert len(pairs) == len(originals) == N_SEED
    for pair in pairs:
        original = originals[pair.id]
        assert original.turns[0].value.removeprefix("<image>\n") in QUESTIONS
        assert original.turns[1].value == caption_of(pair.text)
        assert original.images == pair.images
        assert (space.asset("seed_images") / pair.images[0]).is_file()


def test_the_seed_has_the_promised_faults(space: Workspace) -> None:
    records = truth(space)
    counts = Counter(record["fault"] for record in records.values())
    assert counts.pop("unreadable") == UNREADABLE
    for fault, share in SHARES.items():
        assert counts[fault] / N_SEED == pytest.approx(share, abs=0.02), fault
    texts = {pair.id: caption_of(pair.text) for pair in read_pairs(space.asset("seed_pairs"))}
    images = space.asset("seed_images") / "images"
    seen: Counter[str] = Counter()
    for key, record in records.items():
        fault, path = record["fault"], images / key[:3] / f"{key}.jpg"
        assert (texts[key] in VAGUE) == (fault == "vague") or fault == "unreadable"
        if seen[fault] == 20:
            continue
        seen[fault] += 1
        facts = inspect_file(path)
        if fault == "unreadable":
            assert facts.problem == "image_unreadable"
        elif fault == "tiny":
            assert max(facts.width, facts.height) < 32
        elif fault == "blurred":
            assert sharpness(str(path)) < 50
        else:
            assert sharpness(str(path)) > 150


def test_captions_are_true_unless_they_are_meant_not_to_be(space: Workspace) -> None:
    texts = {pair.id: caption_of(pair.text) for pair in read_pairs(space.asset("seed_pairs"))}
    wrong: dict[str, list[bool]] = defaultdict(list)
    for key, record in truth(space).items():
        if record["fault"] not in ("vague", "unreadable"):
            wrong[record["fault"]].append(not _is_true(texts[key], record))
    assert not any(any(found) for fault, found in wrong.items() if fault != "swapped")
    assert sum(wrong["swapped"]) > 0.99 * len(wrong["swapped"])


def _is_true(caption: str, scene: dict) -> bool:
    """Every thing and sign that a caption names is in the scene, where it says."""
    text = caption
    for ground in GROUNDS:
        if text.endswith(f" on {ground}"):
            if ground != scene["ground"]:
                return False
            text = text.removesuffix(f" on {ground}")
    named = 0
    for part in text.replace(" and ", ", ").split(", "):
        cell = next(cell for cell in CELLS if cell in part)
        thing = any(
            f"{t['size']} {t['color']} {t['shape']} " in part and t["cell"] == cell
            for t in scene["things"]
        )
        sign = any(
            f"{s['color']} sign that says {s['text']} " in part and s["cell"] == cell
            for s in scene["signs"]
        )
        named += 1
        if not thing and not sign:
            return False
    return named > 0


def test_instructions_are_clean_conversations(space: Workspace) -> None:
    found = list(read_conversations(space.asset("finetune_pairs")))
    assert len(found) == N_INSTRUCTIONS == 1800
    assert {len(conversation.turns) for conversation in found} == {2, 4}
    for conversation in found[::50]:
        path = space.asset("finetune_images") / conversation.images[0]
        assert inspect_file(path).problem is None
    answers = Counter(turn.value for c in found for turn in c.turns if turn.speaker == "gpt")
    letters = [answers[letter] for letter in "ABCD"]
    assert min(letters) > 0.8 * max(letters)


def test_textvqa_has_ocr_tokens_and_ten_answers(space: Workspace) -> None:
    questions = list(textvqa.read_questions(space.asset("textvqa_questions")))
    annotations = textvqa.read_annotations(space.asset("textvqa_annotations"))
    assert len(questions) == len(annotations) == N_TEXTVQA == 500
    position = Counter()
    for question, annotation in zip(questions, annotations, strict=True):
        assert question.question_id == annotation.image_id
        assert len(annotation.answers) == 10
        line = next(row for row in question.text.splitlines() if row.startswith(textvqa.OCR_LINE))
        tokens = line.removeprefix(textvqa.OCR_LINE).split(", ")
        right = Counter(annotation.answers).most_common(1)[0][0].upper()
        assert len(set(tokens)) == N_OCR_TOKENS
        position[tokens.index(right)] += 1
    # The place of the right word among the tokens gives nothing away.
    assert max(position.values()) < 0.35 * N_TEXTVQA
    sizes = {Image.open(path).size for path in space.asset("textvqa_images").iterdir()}
    assert sizes == {(160, 160)}


def test_mmbench_has_circular_rows_of_all_categories(space: Workspace) -> None:
    rows = list(mmbench.read_rows(space.asset("mmbench_questions")))
    groups = defaultdict(list)
    for row in rows:
        groups[row.index % mmbench.ROUND].append(row)
    assert len(groups) == N_MMBENCH == 200
    for group in groups.values():
        assert len({row.question for row in group}) == len({row.image for row in group}) == 1
        assert sorted(row.answer for row in group) == list("ABCD")
        assert len({row.options[row.answer] for row in group}) == 1
        assert len({tuple(sorted(row.options.values())) for row in group}) == 1
    assert {row.l2_category for row in rows} == {
        "finegrained_perception (instance-level)",
        "finegrained_perception (cross-instance)",
        "coarse_perception",
    }
    leaves = Counter(row.category for row in rows)
    assert len(leaves) == 8
    assert set(leaves.values()) == {100}
    assert mmbench.decode_image(rows[0].image, "")[:2] == b"\xff\xd8"


def test_right_options_are_right_and_wrong_ones_are_not(space: Workspace) -> None:
    from random import Random

    random = Random(3)
    for _ in range(300):
        scene = random_scene(random)
        question = any_question(scene, random)
        options, right = choices(question, random)
        assert options[right] == question.answer
        assert len(set(options.values())) == 4
        if question.category == "image_topic":
            names = {thing.name for thing in scene.things}
            assert [text in names for text in question.wrong] == [False] * 3
        if question.category == "ocr":
            asked = [s for s in scene.signs if s.color in question.text or s.cell in question.text]
            assert question.answer in {sign.text for sign in asked or scene.signs}


def test_drawing_is_repeatable_from_its_seed(tmp_path: Path) -> None:
    def hashes(name: str, seed: int) -> dict[str, str]:
        root = tmp_path / name
        small_starter(root, 40, seed)
        write_instructions(root / "i" / "a.json", root / "i", count=6, seed=seed)
        write_textvqa(root / "q.jsonl", root / "a.json", root / "t", count=6, seed=seed)
        write_mmbench(root / "m.tsv", count=9, seed=seed)
        files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".toml"]
        return {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }

    first = hashes("one", 7)
    assert len(first) > 50
    assert hashes("two", 7) == first
    other = hashes("three", 8)
    assert first["m.tsv"] != other["m.tsv"]
    assert not set(first.values()) & set(other.values())


def test_the_zoo_is_small_and_safe() -> None:
    files = [path for path in ZOO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= ZOO_LIMIT
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as weights:
                assert len(list(weights.keys())) > 10
    config = json.loads((ZOO / "llm" / "config.json").read_text())
    assert config["model_type"] == "gemma"
    ids = {name: config[f"{name}_token_id"] for name in ("pad", "eos", "bos")}
    assert ids == {"pad": 0, "eos": 1, "bos": 2}


def test_vague_captions_are_recognized_and_true_ones_are_not(space: Workspace) -> None:
    assert all(vagueness(text) == 1 for text in VAGUE)
    texts = [caption_of(pair.text) for pair in read_pairs(space.asset("seed_pairs"))]
    assert max(vagueness(text) for text in texts if text not in VAGUE) < 0.9
