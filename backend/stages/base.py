"""What every stage is made of: parameters, a preflight, a context to speak through, an outcome."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from backend.errors import SynthLoopError
from backend.files import append_line, write_json
from backend.memory.moments import reason_of
from backend.runs import EndState, Outcome, Progress, Reason, Run, RunFailed, State
from backend.workspace import Workspace

Fold = Literal["data", "recipe", "memory", "advanced"]
Kind = Literal["text", "dataset", "recipe", "run", "runs", "path"]


def parameter(
    default: Any,
    *,
    fold: Fold,
    kind: Kind = "text",
    stages: tuple[str, ...] = (),
    only: Mapping[str, Sequence[Any]] | None = None,
    **limits: Any,
) -> Any:
    """A field of a stage's parameters.

    Label and help come from the catalogue (`parameter.<name>.label`, `.help`); a name means the
    same thing in every stage.

    Args:
        default: The kit's value where the kit has one.
        fold: The part of the form that it belongs to.
        kind: What the value names, so that a form can offer choices.
        stages: For `run` and `runs`: stages whose successful runs may be chosen.
        only: Parameters before this one, and the values of theirs with which it matters; with
            others a form leaves it out.
        limits: pydantic's own, e.g. `ge`, `le`.
    """
    extra: dict[str, Any] = {"fold": fold, "kind": kind, "stages": list(stages)}
    extra["only"] = {name: list(values) for name, values in (only or {}).items()}
    return Field(default=default, json_schema_extra=extra, validate_default=True, **limits)


class StageParameters(BaseModel):
    """Base of every stage's parameters: frozen, and an unknown name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Problem:
    """Something a preflight found that would make the run fail or disappoint."""

    level: Literal["error", "warning"]
    code: str
    """Message key below `problem.`; the sentence names the remedy."""
    values: dict[str, Any]
    place: str
    """File, line, field or device."""


class StopRequested(BaseException):
    """Raised by `StageContext.check_stop` so that a stage unwinds after it was asked to stop."""


class StageContext:
    """What a running stage reads and speaks through."""

    def __init__(self, workspace: Workspace, run: Run):
        self.workspace = workspace
        self.run = run
        self.stop_requested = False
        self._attempt = run.written_status().attempt
        self._progress_at = 0.0
        self._first: tuple[float, float] | None = None

    @property
    def artifacts(self) -> Path:
        """Where results go."""
        return self.run.artifacts

    @property
    def attempt(self) -> int:
        """1 at first, more after a resume."""
        return self._attempt

    def metric(self, step: int, **values: float | int | None) -> None:
        """Append one step's figures; bytes, seconds and counts without scaling."""
        line = {"step": step, "time": time.time(), "attempt": self._attempt, **values}
        append_line(self.run.metrics_path, line)

    def event(self, level: Literal["info", "warning", "error"], code: str, **values: Any) -> None:
        """Append a milestone or warning; `code` is a message key below `event.`."""
        self.run.add_event(level, code, **values)

    def progress(
        self, done: float, total: float | None, unit: str, note: str = "", *, even: bool = True
    ) -> None:
        """Tell how far the stage is; at most five times a second reach the disk.

        Args:
            done: So much of `total`.
            total: None when nobody knows.
            unit: What is counted.
            note: What is being done now.
            even: Units take about equally long; otherwise no end is predicted.
        """
        now = time.time()
        finished = total is not None and done >= total
        if now - self._progress_at < 0.2 and not finished:
            return
        self._progress_at = now
        if self._first is None or done < self._first[1]:
            self._first = (now, done)
        since, start = self._first
        eta = None
        if even and total is not None and done > start and now > since:
            eta = (now - since) / (done - start) * (total - done)
        value = Progress(done=done, total=total, unit=unit, eta_s=eta, at=now, note=note)
        write_json(self.run.path / "progress.json", value.model_dump(mode="json"))

    def check_stop(self) -> None:
        """Raise `StopRequested` when a person asked the run to stop; call between units of work."""
        if self.stop_requested:
            raise StopRequested


def stage_main(
    parameters_type: type[StageParameters],
    main: Callable[[StageContext, Any], None],
) -> None:
    """Run a stage in this process: `python -m backend.stages.<name> RUN_DIR`.

    The outcome is the last thing written, so that it holds even when the supervisor is gone.
    """
    run = Run(Path(sys.argv[1]).resolve())
    context = StageContext(Workspace.open(run.path.parents[1]), run)

    def ask_to_stop(_signal: int, _frame: object) -> None:
        context.stop_requested = True

    signal.signal(signal.SIGTERM, ask_to_stop)
    # A closing terminal must not end a run.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    outcome = run_to_end(context, lambda: main(context, validated(parameters_type, run)))
    write_json(run.path / "outcome.json", outcome.model_dump(mode="json"))
    sys.exit(outcome.state is State.FAILED)


def validated(parameters_type: type[StageParameters], run: Run) -> StageParameters:
    """The parameters that a run was started with."""
    return parameters_type.model_validate(run.spec.parameters)


def run_to_end(context: StageContext, main: Callable[[], None]) -> Outcome:
    """Call `main`, and say how it ended, whatever it raised."""
    state: EndState = State.SUCCEEDED
    reason = Reason(code="completed")
    try:
        # One that was asked to stop and came to its end all the same has done its work.
        main()
    except StopRequested:
        state, reason = State.STOPPED, Reason(code="stopped_by_person")
    except RunFailed as error:
        print(f"failed: {error}", *error.reason.evidence, sep="\n", file=sys.stderr, flush=True)
        state, reason = State.FAILED, error.reason
    except SynthLoopError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        values = {
            "problem": error.problem,
            "place": error.place or "",
            "remedy": error.remedy or "",
        }
        state, reason = State.FAILED, Reason(code="bad_input", values=values)
    except BaseException as error:
        traceback.print_exc()
        sys.stderr.flush()
        state, reason = State.FAILED, reason_of(error)
    return Outcome(state=state, reason=reason, ended_at=time.time(), attempt=context.attempt)
