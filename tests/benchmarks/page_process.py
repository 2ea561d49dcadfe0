"""The studio's pages in a fresh process: prints seconds, MB and the heavy modules as JSON.

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

HEAVY = (
    "torch", "transformers", "data_juicer", "deepspeed", "ray", "datasets", "pandas",
    "pyarrow.dataset",
)  # fmt: skip


def main(workspace: str, modules: list[str]) -> None:
    """Draw the overview and measure, then every page once."""
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
    seconds, first = time.time() - started, psutil.Process().memory_info().rss / 1e6
    errors = [error.value for error in app.exception]
    from pages.widgets.shell import GROUPS

    for name in (name for group in GROUPS.values() for name in group):
        app.switch_page(f"pages/{name}.py").run()
        errors += [f"{name}: {error.value}" for error in app.exception]
    print(
        json.dumps(
            {
                "seconds": seconds,
                "megabytes": first,
                "megabytes_of_all": psutil.Process().memory_info().rss / 1e6,
                "heavy": [name for name in HEAVY if name in sys.modules],
                "errors": errors,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
