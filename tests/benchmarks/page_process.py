"""One page of the studio in a fresh process: prints seconds, MB and the heavy modules as JSON.

`python -m tests.benchmarks.page_process WORKSPACE [MODULE …]`: the modules are imported first, as a
studio would that does its work in the page's process.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path

HEAVY = ("torch", "transformers", "data_juicer", "deepspeed", "ray", "datasets")


def main(workspace: str, modules: list[str]) -> None:
    """Draw the overview and measure."""
    import psutil

    started = psutil.Process().create_time()
    for module in modules:
        importlib.import_module(module)
    os.environ["SYNTHLOOP_WORKSPACE"] = workspace
    # AppTest takes the folder `pages/` for Streamlit's old kind of pages.
    import runpy

    from streamlit.runtime.scriptrunner import script_runner
    from streamlit.testing.v1 import AppTest

    script_runner._mpa_v1 = lambda path: runpy.run_path(path, run_name="__main__")
    app = AppTest.from_file(str(Path("app.py").resolve()), default_timeout=60).run()
    print(
        json.dumps(
            {
                "seconds": time.time() - started,
                "megabytes": psutil.Process().memory_info().rss / 1e6,
                "heavy": [name for name in HEAVY if name in sys.modules],
                "errors": [error.value for error in app.exception],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
