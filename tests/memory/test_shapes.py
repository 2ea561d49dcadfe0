"""Parameter counts of the real model, and what a configuration file must tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.errors import InputError
from backend.memory.shapes import MGM_2B, read_shape

CLIP = {
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    }
}
GEMMA = {
    "vocab_size": 256000,
    "hidden_size": 2048,
    "num_hidden_layers": 18,
    "intermediate_size": 16384,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
}
CONVNEXT = {"model_cfg": {"vision_cfg": {"timm_model_name": "convnext_large_d_320"}}}


def write(folder: Path, **configs: object) -> dict[str, Path]:
    paths = {}
    for name, value in configs.items():
        paths[name] = folder / f"{name}.json"
        paths[name].write_text(json.dumps(value))
    return paths


def test_the_parts_of_mgm_2b_have_the_parameters_of_the_real_model():
    assert MGM_2B.language.parameters == 2_506_172_416
    assert MGM_2B.clip.parameters == 303_507_456
    assert MGM_2B.convnext.parameters == 196_227_264
    assert MGM_2B.projector_parameters == 13_259_008
    assert MGM_2B.parameters == 3_019_166_144


@pytest.mark.parametrize(
    ("rank", "count"), [(16, 19_611_648), (64, 78_446_592), (128, 156_893_184)]
)
def test_adapters_have_the_parameters_of_the_real_ones(rank: int, count: int):
    assert MGM_2B.language.adapter_parameters(rank) == count


def test_the_kits_configuration_files_give_mgm_2b(tmp_path: Path):
    paths = write(tmp_path, llm=GEMMA, clip=CLIP, aux=CONVNEXT)
    assert read_shape(paths["llm"], paths["clip"], paths["aux"]) == MGM_2B


def test_a_missing_number_names_the_file_and_the_field(tmp_path: Path):
    gemma = {key: value for key, value in GEMMA.items() if key != "head_dim"}
    paths = write(tmp_path, llm=gemma, clip=CLIP, aux=CONVNEXT)
    with pytest.raises(InputError, match=r"llm\.json, field head_dim"):
        read_shape(paths["llm"], paths["clip"], paths["aux"])


def test_an_unknown_convnext_is_refused_with_a_remedy(tmp_path: Path):
    strange = {"model_cfg": {"vision_cfg": {"timm_model_name": "resnet50"}}}
    paths = write(tmp_path, llm=GEMMA, clip=CLIP, aux=strange)
    with pytest.raises(InputError, match="timm_model_kwargs"):
        read_shape(paths["llm"], paths["clip"], paths["aux"])
