"""The one in-memory DuckDB of this process. Text from people or data only enters as parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Parameters = Sequence[Any] | Mapping[str, Any]
JSON_LINES = "read_json($path, format='newline_delimited', ignore_errors=true, columns=$columns)"
"""SQL that reads a file of JSON lines, torn ones left out."""

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 2,
    "memory_limit": "1GB",
    # Offline, and nothing of this workspace is anybody else's business.
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


class Fingerprint(NamedTuple):
    """A file as it is now: a key for caches that must notice a change."""

    path: str
    size: int
    changed: int
    """Nanoseconds."""

    @property
    def file(self) -> Path:
        """The file itself."""
        return Path(self.path)


@lru_cache(maxsize=1)
def _database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(":memory:", config=_CONFIG)


def cursor() -> duckdb.DuckDBPyConnection:
    """A cursor of its own for one caller: pages run in several threads."""
    return _database().cursor()


def table(sql: str, parameters: Parameters = ()) -> pa.Table:
    """The result as an Arrow table."""
    found: pa.Table = cursor().sql(sql, params=parameters).to_arrow_table()
    return found


def rows(sql: str, parameters: Parameters = ()) -> list[dict[str, Any]]:
    """The result as one dict a row."""
    found: list[dict[str, Any]] = table(sql, parameters).to_pylist()
    return found


def value(sql: str, parameters: Parameters = ()) -> Any:
    """The first column of the first row; None without rows."""
    found = cursor().execute(sql, parameters).fetchone()
    return None if found is None else found[0]


def as_table(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Columns of equally many values as an Arrow table; None is null.

    Arrow itself turns no Python value into its own without importing pandas, which is larger than
    all that the pages keep in memory; DuckDB does.
    """
    listed = ", ".join(
        f"unnest($v{place}) AS {identifier(name)}" for place, name in enumerate(columns)
    )
    parameters = {f"v{place}": list(values) for place, values in enumerate(columns.values())}
    return table(f"SELECT {listed}", parameters)


def columns(sql: str, parameters: Parameters = ()) -> dict[str, NDArray[Any]]:
    """The result as numpy arrays by column, masked where a value is null."""
    found: dict[str, NDArray[Any]] = cursor().execute(sql, parameters).fetchnumpy()
    return found


def fingerprint(path: Path) -> Fingerprint | None:
    """The file as it is now; None when there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Fingerprint(str(path), status.st_size, status.st_mtime_ns)


def identifier(name: str) -> str:
    """A column's name quoted for SQL; callers check first that the column exists."""
    return '"' + name.replace('"', '""') + '"'


def known(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a column that `columns` returned is not null."""
    return ~np.ma.getmaskarray(array)
