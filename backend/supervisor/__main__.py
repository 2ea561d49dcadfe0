"""The process that looks after one run: `python -m backend.supervisor RUN_DIR`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from backend.runs import Run
from backend.supervisor.control import writing
from backend.supervisor.watch import Supervisor


def main() -> None:
    """Supervise the run unless another supervisor does."""
    # Neither a closing terminal nor a TERM meant for others may leave the run unwatched;
    # a person who wants the run to end asks through its stop file.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run = Run(Path(sys.argv[1]).resolve())
    # Whoever writes briefly (a resume) is waited for; another supervisor is left alone.
    with writing(run, patience_s=1.0) as mine:
        if mine:
            Supervisor(run).supervise()


main()
