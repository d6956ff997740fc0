"""croissant.json: what is published, for search engines and for programs that read datasets.

Croissant 1.1 (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html) with members of its
vocabulary for responsible AI (https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html), which are
filled from the public rights records and from nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from ...schemas import LICENCES, Json
from .card import title_of
from .index import INDEX, Overview, columns, credit
from .tree import MANIFEST, Published

CROISSANT = "croissant.json"

_CONTEXT: dict[str, Json] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_TYPES = {"string": "sc:Text", "float64": "sc:Float", "int64": "sc:Integer", "image": "sc:ImageObject"}
_PII = {
    "none": "None, as those who hold the rights state.",
    "removed": "It was removed, and the result was checked; see the rights records in the public log.",
    "consented": "People can be recognised, and agreed to publication.",
}


def croissant(published: Published, told: Overview, index: bytes) -> bytes:
    """Return the document. The same bytes for the same episodes.

    Parameters
    ----------
    index
        The bytes of the index, of which the hash is told.
    """
    works = {credit(c): c for one in published.episodes.values() for c in one.attribution}
    names = sorted({name for c in works.values() for name in c.get("creators", ())})
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [
            "http://mlcommons.org/croissant/1.1",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "name": title_of(published),
        "description": (
            f"{len(told.rows):,} episodes of robot demonstrations with cameras, states and commands, "
            "each with its licence; a Zarr store that can be streamed."
        ),
        "url": _page(published.target),
        "license": _licences(published.licence),
        "creator": [{"@type": "sc:Organization", "name": name} for name in names or ["not named"]],
        "citeAs": "; ".join(sorted(c.get("cite") or name for name, c in works.items())),
        "datePublished": published.changed,
        "version": f"{published.version}.0.0",
        "keywords": ["robotics", "robot demonstrations", "teleoperation", "zarr"],
        **_responsible(published),
        "distribution": _files(index),
        "recordSet": [_records()],
    }
    return json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n"


def _page(target: str) -> str:
    return target.replace("hf://", "https://huggingface.co/", 1).partition("@")[0]


def _licences(licence: str) -> list[str]:
    rows = ((id, LICENCES.get(id)) for id in licence.split(" AND "))
    return [f"https://spdx.org/licenses/{id}" if row else id for id, row in rows]


def _responsible(published: Published) -> dict[str, Json]:
    """Return what the rights records say of people, personal data and origin."""
    records = list({one.record: one.rights for one in published.episodes.values()}.values())
    pii = _values(records, "pii", "status")
    steps = sorted({step["op"] for r in records for step in r.get("deid", {}).get("steps", ())})
    people = {
        (r.get("people", {}).get("present", "unknown"), r.get("people", {}).get("consent", "unknown"))
        for r in records
    }
    return {
        "rai:dataCollection": "Robot demonstrations; recorded as: "
        + ", ".join(_values(records, "acquisition", "channel")),
        "rai:dataCollectionType": ["Others"],
        "rai:personalSensitiveInformation": [_PII.get(status, status) for status in pii],
        "rai:dataManipulationProtocol": "; ".join(
            ["No sample was changed by publishing.", *(f"Before that: {step}." for step in steps)]
        ),
        "rai:dataUseCases": ["Training and testing of robot policies"],
        "rai:dataSocialImpact": "People in the recordings and their consent: "
        + "; ".join(f"{who}, consent {consent}" for who, consent in sorted(people)),
        "rai:dataReleaseMaintenancePlan": (
            f"What is withdrawn leaves with the next publication, with a tombstone in {MANIFEST}. "
            "Each publication is a version of the public log."
        ),
    }


def _values(records: Iterable[Mapping[str, Any]], part: str, member: str) -> list[str]:
    return sorted({record.get(part, {}).get(member, "unknown") for record in records})


def _files(index: bytes) -> list[Json]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": "index",
            "name": "index",
            "description": "A row for each episode, with a thumbnail.",
            "contentUrl": INDEX,
            "contentSize": f"{len(index)} B",
            "encodingFormat": "application/x-parquet",
            "sha256": sha256(index).hexdigest(),
        },
    ]


def _records() -> dict[str, Json]:
    fields = []
    for name, (kind, description) in columns().items():
        field: dict[str, Json] = {
            "@type": "cr:Field",
            "@id": f"episodes/{name}",
            "name": name,
            "description": description,
            "dataType": _TYPES[kind],
            "source": {"fileObject": {"@id": "index"}, "extract": {"column": name}},
        }
        if kind == "image":
            field["source"]["transform"] = {"jsonPath": "bytes"}
        if name == "cameras":
            field |= {"isArray": True, "arrayShape": "-1"}
        fields.append(field)
    return {
        "@type": "cr:RecordSet",
        "@id": "episodes",
        "name": "episodes",
        "description": "The episodes of the store.",
        "key": {"@id": "episodes/id"},
        "field": fields,
    }
