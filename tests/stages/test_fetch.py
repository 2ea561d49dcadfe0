"""Fetching from a server that breaks off, ignores ranges, changes its mind or is not there."""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path
from typing import get_args

import pytest

from backend.assets import ASSETS
from backend.downloads import part_of, part_size
from backend.errors import InputError
from backend.files import read_json
from backend.runs import Run, RunFailed, RunSpec, State, new_run_id
from backend.stages.base import StageContext, StopRequested
from backend.stages.fetch import Parameters, Target, main, preflight
from backend.workspace import Settings, Workspace
from tests.stages.web import Site, serving

CONTENT = random.Random(7).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "space", Settings(name="fetching"))


@pytest.fixture
def site():
    with serving(Site(files={"/file.bin": CONTENT})) as one:
        yield one


def context_of(workspace: Workspace, **parameters) -> StageContext:
    spec = RunSpec(
        run_id=new_run_id("fetch"),
        stage="fetch",
        parameters=parameters,
        argv=[],
        created_at=time.time(),
        device=None,
    )
    return StageContext(workspace, Run.create(workspace, spec))


def run(workspace: Workspace, **changes) -> tuple[Path, StageContext]:
    """Fetch to <kit>/file.bin; returns its place and the context."""
    values = {"path": "file.bin", "retry_wait_s": 0.01, **changes}
    context = context_of(workspace, **values)
    main(context, Parameters(**values))
    return workspace.kit / "file.bin", context


def ranges(site: Site) -> list[str | None]:
    return [headers.get("Range") for _, headers in site.asked]


def test_a_file_gets_its_name_only_when_it_is_whole_and_right(workspace, site):
    path, context = run(workspace, url=f"{site.url}/file.bin", sha256=SHA256, size=len(CONTENT))
    assert path.read_bytes() == CONTENT
    assert [one.name for one in path.parent.iterdir()] == ["file.bin"]
    [entry] = read_json(context.artifacts / "fetched.json")
    assert (entry["sha256"], entry["size"], entry["verified"]) == (SHA256, len(CONTENT), True)
    progress = context.run.progress()
    assert (progress.done, progress.total, progress.unit) == (len(CONTENT), len(CONTENT), "bytes")


def test_a_transfer_that_breaks_goes_on_where_it_broke(workspace, site):
    site.breaks = [1_000_000, 500_000]
    path, context = run(workspace, url=f"{site.url}/file.bin", sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert ranges(site) == [None, "bytes=1000000-", "bytes=1500000-"]
    assert [headers.get("If-Range") for _, headers in site.asked] == [None, '"one"', '"one"']
    assert [event["code"] for event in context.run.events()] == ["fetch_broke"] * 2 + ["fetched"]


def test_a_server_that_ignores_ranges_is_fetched_from_anew(workspace, site):
    site.ranges, site.breaks = False, [1_000_000]
    path, _ = run(workspace, url=f"{site.url}/file.bin", sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert len(site.asked) == 2


def test_a_file_that_changed_meanwhile_is_not_mixed_with_what_it_was(workspace, site):
    target = workspace.kit / "file.bin"
    site.breaks = [1_000_000, 0]
    with pytest.raises(RunFailed):
        run(workspace, url=f"{site.url}/file.bin", sha256="0" * 64, retries=0)
    assert part_size(target) == 1_000_000
    other = CONTENT[::-1]
    site.files["/file.bin"], site.tags["/file.bin"] = other, '"two"'
    path, _ = run(workspace, url=f"{site.url}/file.bin", sha256=hashlib.sha256(other).hexdigest())
    assert path.read_bytes() == other
    assert ranges(site)[-1] == "bytes=1000000-"


def test_without_a_validator_a_part_is_continued_only_if_a_checksum_will_tell(workspace, site):
    site.tags["/file.bin"] = 'W/"weak"'
    for checksum, asked in (("", None), (SHA256, "bytes=1000000-")):
        site.breaks, site.asked = [1_000_000], []
        path, _ = run(workspace, url=f"{site.url}/file.bin", sha256=checksum)
        assert path.read_bytes() == CONTENT
        assert ranges(site)[-1] == asked
        path.unlink()


def test_a_wrong_checksum_leaves_nothing_behind(workspace, site):
    with pytest.raises(RunFailed) as failed:
        run(workspace, url=f"{site.url}/file.bin", sha256="0" * 64)
    assert failed.value.reason.code == "checksum_mismatch"
    assert failed.value.reason.values["found"] == SHA256
    assert list(workspace.kit.iterdir()) == []


def test_passing_faults_of_the_server_are_sat_out(workspace, site):
    site.statuses = [503, 429, 500]
    path, _ = run(workspace, url=f"{site.url}/file.bin", sha256=SHA256)
    assert path.exists()
    assert len(site.asked) == 4


def test_giving_up_says_what_broke_and_keeps_the_part(workspace, site):
    site.breaks = [1_000_000, 0, 0, 0]
    with pytest.raises(RunFailed) as failed:
        run(workspace, url=f"{site.url}/file.bin", sha256=SHA256, retries=2)
    assert failed.value.reason.code == "fetch_broke"
    assert part_size(workspace.kit / "file.bin") == 1_000_000


def test_nobody_there_is_said_after_the_retries(workspace):
    with serving(Site()) as site:
        url = f"{site.url}/file.bin"
    with pytest.raises(RunFailed) as failed:
        run(workspace, url=url, retries=1)
    assert failed.value.reason.code == "fetch_broke"
    assert "refused" in failed.value.reason.values["error"]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_tried_again(workspace, site, status):
    site.statuses = [status]
    with pytest.raises(InputError, match=str(status)):
        run(workspace, url=f"{site.url}/file.bin")
    assert len(site.asked) == 1


def test_redirects_are_followed_but_not_to_files(workspace, site):
    site.redirects = {"/old": "/file.bin", "/evil": "file:///etc/passwd"}
    path, _ = run(workspace, url=f"{site.url}/old", sha256=SHA256)
    assert path.read_bytes() == CONTENT
    with pytest.raises(InputError):
        run(workspace, url=f"{site.url}/evil", path="evil.bin")


def test_room_on_the_disk_is_looked_for_before_anything_is_asked(workspace, site):
    with pytest.raises(InputError, match="GiB free"):
        run(workspace, url=f"{site.url}/file.bin", size=3 * 10**18)
    assert site.asked == []
    found = preflight(
        workspace, Parameters(url=f"{site.url}/file.bin", path="file.bin", size=3 * 10**18)
    )
    assert [problem.code for problem in found] == ["fetch_refused"]


def test_a_size_that_the_server_contradicts_is_refused(workspace, site):
    with pytest.raises(InputError, match="3,000,000 bytes, not 5"):
        run(workspace, url=f"{site.url}/file.bin", size=5)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"url": "file:///etc/passwd"}, "file:///etc/passwd"),
        ({"url": "ftp://somewhere/file"}, "ftp://somewhere/file"),
        ({"url": "http://me:secret@somewhere/file"}, "http://somewhere"),
        ({"path": "../../outside"}, "../../outside"),
        ({"path": "/etc/outside"}, "/etc/outside"),
        ({"path": ""}, "asset"),
        ({"url": "http://somewhere/base", "files": ["a"]}, "url"),
        ({"url": "http://somewhere/base/", "files": ["../a"]}, "files, ../a"),
        ({"url": "http://somewhere/base/", "files": ["http://elsewhere/a"]}, "files, "),
        ({"token_variable": "SYNTHLOOP_NO_SUCH_VARIABLE"}, "token_variable"),
    ],
)
def test_addresses_and_places_that_are_not_acceptable(workspace, changes, place):
    values = {"url": "http://somewhere/file", "path": "file.bin"} | changes
    [problem] = preflight(workspace, Parameters(**values))
    assert problem.code == "fetch_refused"
    assert problem.place.startswith(place)
    assert "secret" not in str(problem)


def test_an_asset_set_outside_the_workspace_is_left_alone(workspace, tmp_path):
    workspace.settings.assets["llm"] = str(tmp_path / "elsewhere")
    [problem] = preflight(workspace, Parameters(url="http://somewhere/x", asset="llm"))
    assert problem.place == str(tmp_path / "elsewhere")


def test_a_file_that_is_there_is_kept_unless_replacing_is_asked_for(workspace, site):
    path = workspace.kit / "file.bin"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    url = f"{site.url}/file.bin"
    problems = preflight(workspace, Parameters(url=url, path="file.bin"))
    assert [problem.code for problem in problems] == ["fetch_unverified", "fetch_exists"]
    with pytest.raises(InputError, match="already"):
        run(workspace, url=url)
    assert path.read_bytes() == b"mine"
    run(workspace, url=url, replace_existing=True)
    assert path.read_bytes() == CONTENT
    site.asked = []
    run(workspace, url=url, sha256=SHA256)
    assert site.asked == []


def test_several_files_of_an_asset_in_the_form_of_sha256sum(workspace, site):
    site.files |= {"/model/config.json": b"{}", "/model/sub/weights.bin": b"xyz"}
    digest = hashlib.sha256(b"xyz").hexdigest()
    context = context_of(workspace)
    files = ["config.json", f"{digest}  sub/weights.bin"]
    main(context, Parameters(url=f"{site.url}/model/", asset="llm", files=files))
    folder = workspace.asset("llm")
    assert (folder / "config.json").read_bytes() == b"{}"
    assert (folder / "sub" / "weights.bin").read_bytes() == b"xyz"
    verified = [entry["verified"] for entry in read_json(context.artifacts / "fetched.json")]
    assert verified == [False, True]
    assert context.run.events()[-1]["code"] == "asset_incomplete"


def test_a_token_goes_to_the_named_host_and_into_no_file(workspace, site, monkeypatch):
    monkeypatch.setenv("SYNTHLOOP_TEST_TOKEN", "s3cret")
    with serving(Site(files={"/file.bin": CONTENT})) as other:
        # The same machine by another name is another host.
        site.redirects = {"/gate": other.url.replace("127.0.0.1", "localhost") + "/file.bin"}
        _, context = run(
            workspace, url=f"{site.url}/gate", token_variable="SYNTHLOOP_TEST_TOKEN", sha256=SHA256
        )
        assert site.asked[0][1]["Authorization"] == "Bearer s3cret"
        assert "Authorization" not in other.asked[0][1]
    written = [path.read_text() for path in context.run.path.rglob("*") if path.is_file()]
    assert not any("s3cret" in text for text in written)


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_an_archive_is_unpacked_beside_itself_and_cannot_leave_its_folder(workspace, site):
    site.files["/good.tar.gz"] = archive({"images/a.jpg": b"a"})
    site.files["/evil.tar.gz"] = archive({"../../evil": b"e"})
    site.files["/torn.tar.gz"] = site.files["/good.tar.gz"][:-20]
    for name in ("good", "evil", "torn"):
        values = {"url": f"{site.url}/{name}.tar.gz", "asset": "seed_images", "unpack": True}
        if name == "good":
            main(context_of(workspace), Parameters(**values))
        else:
            with pytest.raises(InputError, match="unpacked"):
                main(context_of(workspace), Parameters(**values))
    assert (workspace.asset("seed_images") / "images" / "a.jpg").read_bytes() == b"a"
    assert not list(workspace.root.rglob("evil"))


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"x")
    return buffer.getvalue()


def test_a_zip_archive_is_unpacked_as_well(workspace, site):
    site.files |= {"/good.zip": zipped("sub/a.jpg"), "/evil.zip": zipped("../../evil")}
    run(workspace, url=f"{site.url}/good.zip", path="images/good.zip", unpack=True)
    assert (workspace.kit / "images" / "sub" / "a.jpg").read_bytes() == b"x"
    with pytest.raises(InputError, match="outside"):
        run(workspace, url=f"{site.url}/evil.zip", path="images/evil.zip", unpack=True)
    with pytest.raises(InputError, match="not a tar or zip"):
        run(workspace, url=f"{site.url}/file.bin", unpack=True)


def test_two_fetches_of_one_file_do_not_meet(workspace, site):
    site.pause = threading.Event()
    first = threading.Thread(target=run, args=(workspace,), kwargs={"url": f"{site.url}/file.bin"})
    first.start()
    target = workspace.kit / "file.bin"
    while not part_size(target):
        time.sleep(0.01)
    with pytest.raises(InputError, match="another run"):
        run(workspace, url=f"{site.url}/file.bin")
    site.pause.set()
    first.join()
    assert target.read_bytes() == CONTENT


def test_stopping_keeps_what_came_and_a_later_attempt_goes_on(workspace, site):
    site.pause = threading.Event()
    values = {"path": "file.bin", "url": f"{site.url}/file.bin", "sha256": SHA256}
    context = context_of(workspace, **values)
    command = [sys.executable, "-m", "backend.stages.fetch", str(context.run.path)]
    target = workspace.kit / "file.bin"
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": "."}) as process:
        while part_size(target) < len(CONTENT) // 2:
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        site.pause.set()
        assert process.wait(20) == 0
    assert context.run.outcome().state is State.STOPPED
    assert not target.exists()
    have = part_size(target)
    assert len(CONTENT) // 2 <= have < len(CONTENT)
    site.pause = None
    main(context, Parameters(**values))
    assert target.read_bytes() == CONTENT
    assert ranges(site)[-1] == f"bytes={have}-"


def test_waiting_for_another_attempt_can_be_stopped(workspace):
    with serving(Site()) as site:
        url = f"{site.url}/file.bin"
    context = context_of(workspace)
    timer = threading.Timer(0.3, lambda: setattr(context, "stop_requested", True))
    timer.start()
    with pytest.raises(StopRequested):
        main(context, Parameters(url=url, path="file.bin", retry_wait_s=30))
    assert part_of(workspace.kit / "file.bin").exists()


def test_every_asset_can_be_chosen():
    assert list(get_args(Target)) == ["other", *ASSETS]
