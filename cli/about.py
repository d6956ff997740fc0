"""What the verbs tell of episodes, in documents that ``--json`` prints as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..schemas import Clock, Episode, Rights
from ..schemas.decision import Code, Reason, published_as, reasons
from ..schemas.policy import OPEN_V1, Policy
from .output import amount, facts

if TYPE_CHECKING:
    from ..hub.store import Store


def clock_seconds(clock: Clock) -> float | None:
    """Return how long a clock runs, by its header: samples over rate. None if it states no rate."""
    rate = clock.measured_hz or clock.declared_hz
    return clock.length / rate if rate else None


def header_seconds(episode: Episode) -> float | None:
    """Return how long an episode lasts, by its header; no times are read."""
    return max((s for c in episode.clocks.values() if (s := clock_seconds(c)) is not None), default=None)


def summary(number: int, episode: Episode) -> dict[str, Any]:
    """Return a line's worth about an episode; no payload is read."""
    return {
        "number": number,
        "id": episode.id,
        "instructions": list(episode.instructions),
        "embodiment": episode.embodiment,
        "outcome": episode.outcome,
        "duration_s": _rounded(header_seconds(episode)),
        "streams": [
            {
                "name": name,
                "kind": stream.spec.kind,
                "dtype": stream.spec.dtype,
                "shape": list(stream.spec.shape),
                "samples": stream.length,
                "encoded": stream.packets.format.codec if stream.packets else None,
            }
            for name, stream in episode.streams.items()
        ],
        "warnings": list(episode.provenance.warnings),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def reason_document(reason: Reason) -> dict[str, str]:
    """Return a reason with what it means and what would change it."""
    return {
        "code": str(reason.code),
        "detail": reason.detail,
        "explanation": reason.code.explanation,
        "remedy": reason.code.remedy,
    }


def decision(found: Sequence[Reason], rights: Rights, policy: Policy = OPEN_V1) -> dict[str, Any]:
    """Return whether a record is open, the licence it would go out under, and each reason if not."""
    return {
        "policy": policy.id,
        "open": not found,
        "published_as": None if found else published_as(rights, policy),
        "reasons": [reason_document(reason) for reason in found],
    }


def decided_now(episode: Episode, policy: Policy = OPEN_V1) -> tuple[Reason, ...]:
    """Return what keeps a recording closed now, by its own header."""
    return reasons(episode.rights, now=datetime.now(UTC), policy=policy)


def standing(store: Store, ids: Iterable[str] | None = None, policy: Policy = OPEN_V1) -> dict[str, Any]:
    """Return how many episodes of a store are open and how many are closed, and by which reasons."""
    counts: Counter[Code] = Counter()
    details: dict[Code, str] = {}
    total = opened = 0
    for id in store.ids if ids is None else ids:
        found = store.why(id, policy=policy)
        total += 1
        opened += not found
        for reason in found:
            counts[reason.code] += 1
            details.setdefault(reason.code, reason.detail)
    return {
        "policy": policy.id,
        "open": opened,
        "closed": total - opened,
        "reasons": [
            {**reason_document(Reason(code, details[code])), "episodes": counts[code]}
            for code in sorted(counts)
        ],
    }


def show_reasons(found: Sequence[Mapping[str, Any]], *, brief: bool = False) -> None:
    """Print reasons: what each means and, unless brief, what is stated now and what would open it."""
    rows: list[tuple[str, str]] = []
    for reason in found:
        count = f" ({amount(reason['episodes'], 'episode')})" if reason.get("episodes", 1) > 1 else ""
        rows.append((reason["code"], reason["explanation"] + count))
        if not brief:
            rows += [("", f"stated: {reason['detail']}"), ("", f"to open: {reason['remedy']}")]
    facts(rows)
