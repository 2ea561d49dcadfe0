"""What scores.json says: the entry of a metric, and the contract behind its score in words."""

from __future__ import annotations

from typing import Any, Literal

from backend.messages import catalogue, message

Metric = Literal["textvqa", "mmbench", "mmbench_vlmeval"]
METRICS: tuple[Metric, ...] = ("textvqa", "mmbench", "mmbench_vlmeval")
_CONTRACT_FIELDS = ("sha256", "prompt", "ocr_tokens", "scorer", "limit", "max_new_tokens", "dtype")
_UNKNOWN = "–"


def metric_entry(scores: dict[str, Any], metric: Metric) -> dict[str, Any] | None:
    """The part of scores.json that holds a metric: score, interval, n, contract, categories.

    None where the metric was not scored.
    """
    entry = scores.get("mmbench" if metric == "mmbench_vlmeval" else metric)
    if not isinstance(entry, dict) or entry.get("score") is None:
        return None
    if metric != "mmbench_vlmeval":
        return entry
    if entry.get("vlmeval_score") is None:
        return None
    return {
        **entry,
        "score": entry["vlmeval_score"],
        "interval": entry.get("vlmeval_interval"),
        "categories": entry.get("vlmeval_categories") or {},
        "contract": {**(entry.get("contract") or {}), "scorer": "mmbench-vlmeval-circular"},
    }


def contract_differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Fields in which two contracts differ; empty when the scores compare."""
    return [field for field in _CONTRACT_FIELDS if ours.get(field) != theirs.get(field)]


def contract_text(contract: dict[str, Any], language: str = "en") -> str:
    """Under which conditions a score was measured; what is not known is a dash."""
    known = {
        name: _UNKNOWN if contract.get(name) is None else str(contract[name])
        for name in ("scorer", "file", "sha256", "prompt", "dtype", "max_new_tokens")
    }
    known["sha256"] = known["sha256"][:12]
    reads = contract.get("ocr_tokens")
    limit = contract.get("limit", _UNKNOWN)
    if limit is None:
        limit = message("document.all", language)
    elif isinstance(limit, int):
        limit = f"{limit:,}"
    return message(
        "document.contract.text",
        language,
        **known,
        ocr_tokens=_UNKNOWN
        if reads is None
        else message("document.yes" if reads else "document.no", language),
        limit=limit,
    )


def category_name(name: str, language: str = "en") -> str:
    """A benchmark's category as a person reads it; one that nobody named stays as it is."""
    return catalogue(language).get(f"category.{name}", name)
