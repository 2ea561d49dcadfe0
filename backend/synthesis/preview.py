"""What a recipe does to a handful of samples, before it runs over all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backend.files import write_json
from backend.synthesis.driver import Driver
from backend.synthesis.samples import Sample, number


def write_preview(path: Path, before: list[Sample], after: list[Sample], driver: Driver) -> None:
    """Write one entry a sample: text before and after, its fate, and every operator's word.

    Args:
        path: A JSON file: `{"image_root", "samples": [{"sample_id", "source_id", "images",
            "before" (null for a created sample), "after", "kept", "state" (kept, dropped,
            rewritten or created), "operator" (that decided; null for kept), "reason", "stats",
            "events": [{"step", "operator", "action", "before", "after", "reason"}]}]}`.
        before: The samples as they were.
        after: All samples after the recipe.
        driver: What ran it.
    """
    texts = {sample.sample_id: sample.text for sample in before}
    events: dict[str, list[dict[str, Any]]] = {}
    for table in driver.lineage():
        for row in table.to_pylist():
            events.setdefault(row.pop("sample_id"), []).append(row)
    entries = [
        _entry(sample, texts.get(sample.sample_id), events.get(sample.sample_id, []))
        for sample in after
    ]
    write_json(path, {"image_root": str(driver.image_root), "samples": entries})


def _entry(sample: Sample, before: str | None, events: list[dict[str, Any]]) -> dict[str, Any]:
    telling = [event for event in events if event["action"] != "kept"]
    last = telling[-1] if telling else None
    return {
        "sample_id": sample.sample_id,
        "source_id": sample.source_id,
        "images": sample.images,
        "before": before,
        "after": sample.text,
        "kept": sample.kept,
        "state": last["action"] if last else "kept",
        "operator": last["operator"] if last else None,
        "reason": last["reason"] if last else "",
        "stats": {name: number(value) for name, value in sample.stats.items()},
        "events": events,
    }
