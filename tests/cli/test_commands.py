"""The command line: what it prints, and how it ends."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from backend.cli import runs, workspaces
from backend.cli.commands import main, parser
from backend.cli.output import parameters_of
from backend.cli.serving import check_address, check_port
from backend.environment import Check, Remedy
from backend.errors import UsageError
from backend.runs import Run, State
from backend.supervisor import validated
from backend.training import checks
from backend.workspace import Settings, Workspace
from tests.pages.workspaces import add_run
from tests.seeds import make_workspace, write_seed


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("SYNTHLOOP_STATE_DIR", str(tmp_path / "state"))
    return make_workspace(tmp_path)


def call(space: Workspace, *words: str) -> int:
    return main(["-w", str(space.root), *words])


def test_values_are_json_or_text():
    assert parameters_of(["a=1", "b=true", "c=[1, 2]", "d=seed/v1", "e=", "f=null"]) == {
        "a": 1, "b": True, "c": [1, 2], "d": "seed/v1", "e": "", "f": None
    }  # fmt: skip


@pytest.mark.parametrize("words", [["a"], ["=1"], ["a=1", "a=2"]])
def test_a_parameter_that_is_none_is_refused(words: list[str]):
    with pytest.raises(UsageError):
        parameters_of(words)


def test_a_stage_is_run_to_its_end(space: Workspace, capsys: pytest.CaptureFixture[str]):
    assert call(space, "run", "prepare", "-p", "sample_cap=5", "--json", "--name", "few") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["status"]["state"] == "succeeded"
    assert told["parameters"]["sample_cap"] == 5
    run = Run.find(space, told["run_id"])
    assert len(json.loads((run.artifacts / "train.json").read_text())) == 5

    assert call(space, "runs") == 0
    assert "few" in capsys.readouterr().out
    assert call(space, "logs", run.id) == 0
    assert call(space, "show", run.id[-4:]) == 0
    assert run.id in capsys.readouterr().out


def test_an_unknown_parameter_is_wrong_usage(space: Workspace, capsys: pytest.CaptureFixture[str]):
    assert call(space, "run", "prepare", "-p", "sample_cop=5") == 2
    assert "Did you mean: sample_cap?" in capsys.readouterr().err
    assert Run.all(space) == []


def test_an_unknown_stage_is_wrong_usage(space: Workspace, capsys: pytest.CaptureFixture[str]):
    assert call(space, "run", "dance") == 2
    assert "there is no such stage" in capsys.readouterr().err


def test_a_failed_run_says_why(space: Workspace, capsys: pytest.CaptureFixture[str]):
    image = next((space.asset("seed_images") / "images").glob("*.png"))
    image.write_bytes(b"broken")
    assert call(space, "run", "prepare", "-p", "rejected_limit_percent=0") == 1
    out = capsys.readouterr().out
    assert "failed" in out
    assert image.name in out
    assert "rejected_limit_percent" in out


def test_without_a_workspace_the_remedy_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["-w", str(tmp_path), "runs"]) == 2
    assert "init" in capsys.readouterr().err


def test_the_synthesis_loop_asks_for_a_baseline(
    space: Workspace, capsys: pytest.CaptureFixture[str]
):
    assert call(space, "loop", "synthesis") == 1
    assert "Run the baseline loop first" in capsys.readouterr().err


def test_only_what_ended_badly_is_resumed(space: Workspace, capsys: pytest.CaptureFixture[str]):
    run = add_run(space, "20261124-110000-pretrain-1111", State.SUCCEEDED)
    assert call(space, "resume", run.id) == 2
    assert "only a stopped, failed or lost run" in capsys.readouterr().err


def test_a_kit_workspace_keeps_the_kit_where_it_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    kit = tmp_path / "kit"
    kit.mkdir()
    assert main(["-w", str(tmp_path / "ws"), "init", "--profile", "mgm-2b", "--kit", str(kit)]) == 0
    space = Workspace.open(tmp_path / "ws")
    assert space.kit == kit
    assert space.settings.profile == "mgm-2b"
    assert call(space, "check") == 1
    told = capsys.readouterr()
    assert "not ready for mgm-2b" in told.err
    assert f"-w {space.root} run fetch -p asset=llm -p url=ADDRESS" in told.err
    assert f"put it there yourself: {space.asset('llm')}" in told.err


def test_what_check_prints_as_a_command_can_be_run_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    space = Workspace.create(tmp_path / "a b", Settings(name="test", profile="mgm-2b"))
    remedy = Remedy("install", "bitsandbytes")
    needs = Check("bitsandbytes", "packages", "missing", blocks=("mgm-2b",), remedy=remedy)
    monkeypatch.setattr(workspaces, "checks", lambda _: [needs])
    assert call(space, "check") == 1
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "python -m" in one]
    words = parser().parse_args(shlex.split(line)[3:])
    assert (words.workspace, words.stage) == (space.root, "install")
    assert validated("install", parameters_of(words.parameter)).package == "bitsandbytes"


def test_a_folder_with_files_is_no_place_for_a_workspace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["-w", str(tmp_path), "init"]) == 2
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert "not empty" in capsys.readouterr().err


def test_pairs_are_imported_once(
    space: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_seed(tmp_path / "mine", 4)
    assert call(space, "import", str(tmp_path / "mine"), "--name", "own") == 0
    assert capsys.readouterr().out.strip() == "own/v1"


def test_pairs_are_converted_both_ways(
    space: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = space.asset("seed_pairs")
    originals = space.asset("seed_originals")
    llava, back = tmp_path / "llava.json", tmp_path / "back.jsonl"
    words = ["convert", "dj-to-llava", str(source), str(llava), "--originals", str(originals)]
    assert main(words) == 0
    assert main(["convert", "llava-to-dj", str(llava), str(back)]) == 0
    assert back.read_text() == source.read_text()


@pytest.mark.parametrize(
    "asked",
    [["-p", "preset=kit"], ["-p", "preset=custom", "-p", "method=lora", "-p", "loss_chunk=0"]],
)
def test_the_kits_recipes_do_not_fit_24_gb_because_of_the_logits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[str]
):
    main(["-w", str(tmp_path / "ws"), "init", "--profile", "mgm-2b"])
    capsys.readouterr()
    assert main(["-w", str(tmp_path / "ws"), "plan", "--budget", "24", *asked, "--json"]) == 1
    plan = json.loads(capsys.readouterr().out)
    assert plan["verdict"] in ("no", "tight")
    assert plan["prediction"]["largest"] == "logits"
    assert plan["options"]
    assert all(option["headroom"] >= 0 for option in plan["options"])


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["optimizer=paged_adamw_8bit", "zero_stage=2"], "optimizer: DeepSpeed's ZeRO works"),
        (["global_batch_size=100", "micro_batch_size=7"], "global_batch_size: The global batch"),
        (["offload=optimizer", "zero_stage=0"], "offload: "),
        (["image_grid=2"], "model_max_length: A picture takes 2,304 positions"),
    ],
)
def test_a_plan_refuses_what_training_would_refuse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[str], told: str
):
    space = Workspace.create(tmp_path / "ws", Settings(name="test", profile="mgm-2b"))
    words = [word for one in ["preset=custom", *asked] for word in ("-p", one)]
    assert call(space, "plan", "--budget", "24", *words, "--json") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"error: {told}" in err


def test_a_plan_for_another_machine_tells_what_this_one_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    space = Workspace.create(tmp_path / "ws", Settings(name="test", profile="mgm-2b"))
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: None)
    assert call(space, "plan", "--budget", "80", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["verdict"] == "fits"
    assert "warning: optimizer: " in err
    assert "bitsandbytes" in err


@pytest.mark.parametrize(
    ("option", "text", "told"),
    [
        ("--budget", "abc", "'abc' is no number above 0"),
        ("--budget", "-1", "'-1' is no number above 0"),
        ("--budget", "nan", "'nan' is no number above 0"),
        ("--positions", "1.5", "'1.5' is no whole number above 0"),
        ("--positions", "0", "'0' is no whole number above 0"),
    ],
)
def test_a_number_that_is_none_is_named(
    space: Workspace, capsys: pytest.CaptureFixture[str], option: str, text: str, told: str
):
    with pytest.raises(SystemExit) as ended:
        call(space, "plan", f"{option}={text}")
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_folder_is_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["judge", str(tmp_path)]) == 2
    assert f"{tmp_path}: this is a folder." in capsys.readouterr().err


def test_warnings_are_said_before_a_run_begins(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def warned(space: Workspace, stage: str, values: object, name: str) -> Run:
        run = add_run(space, "20261124-080000-pretrain-aaaa", State.QUEUED)
        run.add_event("warning", "preflight", text="It does nothing.", place="launcher")
        return run

    monkeypatch.setattr(runs, "start", warned)
    assert call(space, "run", "pretrain", "--detach") == 0
    assert "warning: launcher: It does nothing." in capsys.readouterr().err


def test_other_machines_are_served_only_by_wish_and_with_a_login():
    check_address("127.0.0.1", allowed=False)
    check_address("::1", allowed=False)
    check_address("localhost", allowed=False)
    with pytest.raises(UsageError, match="--allow-remote"):
        check_address("0.0.0.0", allowed=False)
    with pytest.raises(UsageError, match="no login"):
        check_address("0.0.0.0", allowed=True)


def test_a_port_that_is_taken_is_refused():
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match="another port"):
            check_port("127.0.0.1", port)


def _kit_log(path: Path, scale: float) -> Path:
    lines = []
    for step in range(1, 61):
        loss = scale * (6 - step / 20)
        values = f"'loss': {loss:.4f}, 'learning_rate': 0.001, 'epoch': {step / 60:.2f}"
        lines.append("{" + values + "}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_foreign_log_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["judge", str(_kit_log(tmp_path / "good.log", 1.0))]) == 0
    assert "healthy" in capsys.readouterr().out
    assert main(["judge", str(_kit_log(tmp_path / "sick.log", 1e11)), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["healthy"] is False
    assert told["findings"][0]["level"] == "error"


def test_a_log_without_training_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "x.log").write_text("hello\n")
    assert main(["judge", str(tmp_path / "x.log")]) == 1
    assert "no training step" in capsys.readouterr().err


REAL_LOG = Path(__file__).parents[3] / "shared" / "data" / "kit_run" / "pretrain.log"


@pytest.mark.skipif(not REAL_LOG.is_file(), reason="the kit's real log lies beside the checkout")
def test_the_kits_real_run_is_judged_healthy_and_alive(capsys: pytest.CaptureFixture[str]):
    assert main(["judge", str(REAL_LOG)]) == 0
    assert "healthy" in capsys.readouterr().out
