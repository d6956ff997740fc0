"""Records to decide on: one that is open, and what each of its statements could be instead."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

Document = dict[str, Any]

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HASH = "a" * 64
OTHER_HASH = "b" * 64
DELETE = object()

GOOD: Document = {
    "rights_version": "1.0",
    "licence": {"expression": "CC-BY-4.0", "state": "stated-by-holder"},
    "tier": "open",
    "holder": [{"name": "Lab", "kind": "org"}],
    "attribution": [{"title": "Kitchen", "creators": ["A. Author"]}],
    "acquisition": {"channel": "own-recording", "basis": "holder"},
    "people": {"present": "none", "consent": "not-needed", "minors": "none"},
    "jurisdiction": {"collected_in": ["CN"]},
    "pii": {"status": "none"},
    "source": [{"uri": "a.hdf5", "sha256": HASH}],
    "quality": {"gate": "pass"},
    "signoff": [{"by": "A. Author", "at": "2026-05-01T09:00:00Z"}],
}
"""Open under the default policy."""

SIGNATURE = {"alg": "ed25519", "key_id": "k1", "signed_at": "2026-05-01T09:00:00Z", "value": "A" * 86 + "=="}
CHECK = {
    "method": "second detector",
    "by": "C. Checker",
    "at": "2026-05-01T09:00:00Z",
    "residual_detections": 0,
    "sample_frames": 100,
    "human_checked": True,
}

FULL: Document = {
    **GOOD,
    "licence": {
        **GOOD["licence"],
        "text_sha256": HASH,
        "statements": [
            {
                "url": "https://example.org",
                "revision": "3",
                "seen_at": "2026-05-01T09:00:00Z",
                "text_sha256": HASH,
                "quoted": "CC BY 4.0",
                "expression": "CC-BY-4.0",
                "by": "holder",
            }
        ],
    },
    "holder": [{"name": "Lab", "kind": "org", "id": "https://ror.org/000000000"}],
    "attribution": [
        {"title": "Kitchen", "creators": ["B", "A"], "year": 2026, "cite": "doi", "suppressed": False}
    ],
    "acquisition": {
        **GOOD["acquisition"],
        "agreement": [{"id": "7", "sha256": HASH, "expires": "2030-01-01T00:00:00Z"}],
    },
    "people": {
        "present": "operator",
        "consent": "recorded-publication",
        "minors": "none",
        "form": [{"sha256": HASH, "scope": "publication", "date": "2026-01-31"}],
    },
    "purpose": {"limits": ["cite", "region:CN", "time-limit:2030-01-01"]},
    "embargo_until": "2026-05-01T00:00:00+08:00",
    "jurisdiction": {"collected_in": ["CN"], "export_block": ["US-CA"], "law": ["PIPL"]},
    "pii": {"status": "removed", "kinds": ["face", "voice"]},
    "deid": {
        "steps": [
            {
                "op": "mask",
                "tool": "t",
                "version": "1",
                "model_sha256": HASH,
                "params": "threshold=0.4",
                "streams": ["observation.images.top"],
                "frames_affected": 7,
                "report_sha256": HASH,
            }
        ],
        "verification": [CHECK],
    },
    "source": [
        {"uri": "a", "revision": "1", "sha256": HASH, "bytes": 9, "media_type": "x/y", "role": "recording"}
    ],
    "derived_from": [{"record": HASH, "operation": "adapted"}],
    "quality": {"gate": "pass", "report_sha256": HASH},
    "signoff": [{"by": "A. Author", "at": "2026-05-01T09:00:00Z", "terms": "DCO-1.1"}],
    "signature": SIGNATURE,
    "withdrawal": {
        "state": "requested",
        "scope": "all",
        "ground": "error",
        "requested_at": "2026-05-01T09:00:00Z",
        "effective_at": "2026-05-02T09:00:00Z",
    },
    "review": [{"who": "R", "at": "2026-05-01T09:00:00Z", "verdict": "agree", "note": "fine"}],
}
"""Every member is stated."""

LEVELS: dict[str, list[Any]] = {
    "licence.expression": [
        "CC-BY-4.0",
        "cc0-1.0",
        "ODbL-1.0",
        "MIT",
        "CC-BY-NC-4.0",
        "MIT OR CC-BY-4.0",
        "CC0-1.0 OR CC-BY-ND-4.0",
        "CC-BY-4.0 AND CC-BY-NC-4.0",
        "NOASSERTION",
        "other",
        "",
        "CC BY 4.0",
        "LicenseRef-own",
        "CC-BY-4.0+",
        DELETE,
    ],
    "licence.state": ["stated-by-holder", "stated-by-distributor", "inferred", "not-stated", DELETE],
    "licence.text_sha256": [DELETE, HASH, None],
    "licence.statements": [
        DELETE,
        [{"url": "u", "expression": "CC0-1.0"}],
        [{"url": "u", "expression": "CC-BY-NC-4.0", "by": "distributor"}],
        [{"url": "u", "expression": "CC-BY-NC-4.0", "by": "holder"}],
    ],
    "tier": ["open", "gated", "restricted", "closed", DELETE],
    "holder": [[{"name": "Lab"}], [], [{"name": "Lab"}, {"name": "Other"}], DELETE],
    "attribution": [
        [{"title": "T", "creators": ["A"]}],
        [{"title": "T", "suppressed": True}],
        [{"title": "T"}],
        [{"title": "T", "creators": ["A"]}, {"creators": ["B"]}],
        [],
        DELETE,
    ],
    "acquisition.channel": [
        "own-recording",
        "synthetic",
        "commissioned",
        "crowd",
        "purchased",
        "public-dataset",
        "unknown",
        DELETE,
    ],
    "acquisition.basis": [
        "holder",
        "public-domain",
        "employment",
        "contract",
        "consent",
        "licence",
        "unknown",
        DELETE,
    ],
    "acquisition.agreement": [
        DELETE,
        [{"id": "1", "expires": "2026-06-01T12:00:01Z"}],
        [{"id": "2"}, {"id": "1", "expires": "2026-06-01T12:00:00Z"}],
    ],
    "people.present": ["none", "operator", "participants", "bystanders", "unknown", DELETE],
    "people.consent": ["not-needed", "recorded-publication", "recorded-research", "unknown", "none", DELETE],
    "people.minors": ["none", "unknown", "present", DELETE],
    "people.form": [DELETE, [{"sha256": HASH}], []],
    "purpose.limits": [DELETE, [], ["cite"], ["non-commercial"]],
    "embargo_until": [
        DELETE,
        None,
        "2026-06-01T12:00:00Z",
        "2026-06-01T12:00:01Z",
        "2026-06-01T21:00:00+08:00",
    ],
    "jurisdiction.collected_in": [["CN"], ["US-CA", "CN"], [], DELETE],
    "jurisdiction.export_block": [DELETE, [], ["US"]],
    "pii.status": ["none", "removed", "consented", "present", "unknown", DELETE],
    "pii.kinds": [DELETE, [], ["face"]],
    "deid.verification": [
        DELETE,
        [],
        [CHECK],
        [{**CHECK, "human_checked": False}],
        [CHECK, {**CHECK, "residual_detections": 1}],
        [{**CHECK, "sample_frames": 0}],
    ],
    "source": [
        [{"uri": "a", "sha256": HASH}],
        [{"uri": "a", "sha256": HASH}, {"uri": "b"}],
        [],
        [{"uri": "b", "sha256": OTHER_HASH}],
        DELETE,
    ],
    "quality.gate": ["pass", "risk", "not-run", "defect", DELETE],
    "signoff": [[{"by": "A", "at": "2026-05-01T09:00:00Z"}], [], DELETE],
    "signature": [DELETE, SIGNATURE],
    "withdrawal.state": [DELETE, "none", "requested", "effective"],
}
"""What each statement that decides something can be; the first keeps `GOOD` open."""


def but(edits: dict[str, Any], document: Document = GOOD) -> Document:
    """Return a document with members at dotted paths replaced, or removed where the value is DELETE."""
    changed = copy.deepcopy(document)
    for path, value in edits.items():
        *above, last = path.split(".")
        at = changed
        for step in above:
            at = at.setdefault(step, {})
        if value is DELETE:
            at.pop(last, None)
        else:
            at[last] = value
    return changed


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of a document and of everything in it."""
    yield path
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, entry in entries:
        yield from paths(entry, (*path, key))


def put(document: Any, path: tuple[Any, ...], value: object) -> Any:
    """Return a copy with the entry at a path replaced, or removed where the value is DELETE."""
    if not path:
        return value
    changed = copy.copy(document)
    if len(path) > 1:
        changed[path[0]] = put(changed[path[0]], path[1:], value)
    elif value is DELETE:
        del changed[path[0]]
    else:
        changed[path[0]] = value
    return changed
