"""What of a header and of a rights record leaves: an allow-list, and no text that tells of machines."""

from __future__ import annotations

import copy
import dataclasses
import re
import time
from collections.abc import Iterator
from typing import Any
from unicodedata import normalize

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from teleopen.hub.sync import redact
from teleopen.hub.sync.public_rights import NOT_NAMED, RIGHTS, names_to_remove, public_rights
from teleopen.hub.sync.redact import Redactor
from teleopen.hub.sync.scrub import TABLES, scrub
from teleopen.schemas import Episode, Rights, canonical, from_document, problems_of, reasons, to_document

from tests.hub.sync.publishing import NOW, OPEN, OPEN_DOCUMENT, rights, small
from tests.schemas.rights_cases import FULL, but, put
from tests.strategies import headers

MARKED = {
    "/home/alice/recordings/run7.hdf5": "alice",
    "/mnt/nas42/raw": "nas42",
    "/srv/teleop9/x.bag": "teleop9",
    r"C:\Users\bob7\data": "bob7",
    r"\\fileserver9\share\x": "fileserver9",
    "~carol5/data/x": "carol5",
    "file:///var/lib/frank3/x": "frank3",
    "https://intranet.corp/wiki/grace4/x?y=1": "grace4",
    "gpu17.lab.example.edu": "gpu17",
    "robot-pc-3.local": "robot-pc-3",
    "hostname=wheelie44": "wheelie44",
    "dave6@lab.example.org": "dave6",
    "erin8@workstation": "erin8",
    "10.20.30.41": "10.20.30.41",
    "fe80::1ff:fe23:4567:890a": "fe23:4567",
    "aa:bb:cc:dd:ee:0f": "cc:dd:ee",
    "hf_AbCdEfGhIjKlMnOpQrStUv": "AbCdEfGh",
    "ghp_ABCDEFGHIJKLMNOPQRSTabcd1234": "ABCDEFGHIJ",
    "AKIAIOSFODNN7EXAMPLE": "IOSFODNN7",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-DEF": "hbGciOiJIUzI1",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----": "b3BlbnNza",
    "dGhpcyBpcyBhIHNlY3JldCB0b2tlbiBmb3IgdGVzdHM5OTk5": "dGhpcyBpcyBh",
    "8d969eef6ecad3c29a3a629280e686cf0c3f5d5a": "8d969eef6ecad3c2",
    "token: s3cr3tvalue": "s3cr3tvalue",
    "+49 170 1234567": "1234567",
    "13812345678": "13812345678",
    "555-123-4567": "555-123",
    "Ada Lovelace": "Lovelace",
}
"""What must not leave, and what of it must not be found."""
NAMES = ("Ada Lovelace",)
OWN_FIELDS = {"sha256", "revision", "id"}
"""Where a hash has a place of its own."""

marked = st.sampled_from(sorted(MARKED))
around = st.sampled_from([("", ""), ("see ", " please"), ("路径", "。"), ("(", ")"), ("x, ", ", y")])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every text in a document."""
    if isinstance(value, str):
        yield path
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, entry in entries:
        yield from places(entry, (*path, key))


def keyed(document: Any, path: tuple[Any, ...], key: str) -> Any:
    """Return a copy in which the member that a path leads to has another name."""
    changed = copy.deepcopy(document)
    at = changed
    for step in path[:-1]:
        at = at[step]
    at[key] = at.pop(path[-1])
    return changed


def leaks(document: object) -> list[str]:
    told = canonical(document).decode().replace("\\\\", "\\").replace("\\n", "\n")
    return [secret for secret in MARKED.values() if secret in told]


@settings(max_examples=80)
@given(headers(), st.data())
def test_whatever_text_holds_what_must_not_leave_it_does_not_leave(
    header: Episode, data: st.DataObject
) -> None:
    document = to_document(header)
    for path in data.draw(
        st.lists(st.sampled_from(list(places(document))), min_size=1, max_size=8, unique=True)
    ):
        marker = data.draw(marked)
        if set(marker) <= set("0123456789abcdef") and path[-1] in OWN_FIELDS:
            continue
        before, after = data.draw(around)
        document = put(document, path, before + marker + after)
    assert_clean(document)


def test_a_host_does_not_leave_as_the_name_of_a_field() -> None:
    fates = [
        {"field": f"{name}", "fate": "dropped", "to": [], "how": "x"}
        for name in ("joint.id", "gpu17.Lab.EDU")
    ]
    told = scrub({"provenance": {"ledger": fates}, "streams": {}, "clocks": {}}, NAMES).document
    assert [fate["field"] for fate in told["provenance"]["ledger"]] == ["joint.id", "[host]"]


IN_A_PLACE = {
    "/data/gpu17.lab.example.edu/qpos": "/data/[host]/qpos",
    "gpu17.lab.example.edu/qpos": "[host]/qpos",
    "gpu17.lab.example.edu:/data/qpos": "[host]:/data/qpos",
    "/gpu17.cs.uni-x.de/qpos": "/[host]/qpos",
    "/robot-pc-3.local": "/[host]",
    "/runs/host=gpu17/qpos": "/runs/[host]/qpos",
    "smb://nas.lab/x": "[link]",
    "user@host:/x": "[e-mail]:/x",
    "/data/10.20.30.41/qpos": "/data/[address]/qpos",
}
"""Places in a source that hold a host, and what is told of them."""
PLACES = (
    "/tf",
    "/robot1/joint_states",
    "/camera/color/camera_info",
    "/camera.info",
    "/arm/joint.id",
    "/observations/images/cam_high",
    "/data/demo_0/obs.agentview",
    "/observation.images.top",
    "videos/observation.images.top/episode_000000.mp4",
    "episode_000000.parquet",
    "/data/chunk-000/episode_000000.parquet",
    "data.mcap",
    "/runs/data.mcap",
    "sensor_msgs/msg/JointState",
    "/sensor_msgs/msg/JointState",
    "foxglove.CompressedVideo",
    "/foxglove.CompressedVideo",
)
"""Topics, paths in files, names of files and of types of messages."""


@pytest.mark.parametrize("place", IN_A_PLACE)
def test_a_host_does_not_leave_within_a_place(place: str) -> None:
    redactor = Redactor(NAMES, frozenset({place}))
    assert redactor.place(place) == IN_A_PLACE[place]
    assert redactor.place(IN_A_PLACE[place]) == IN_A_PLACE[place]
    assert not re.search("gpu17|robot-pc-3|nas|user@|10[.]20", redactor.text(f"read from {place}"))


@pytest.mark.parametrize("place", PLACES)
def test_places_within_files_stay_as_they_are(place: str) -> None:
    redactor = Redactor(NAMES, frozenset({place}))
    assert redactor.place(place) == place
    assert redactor.text(place) == place


parts = st.text("abcdefgh0123456789_", min_size=1, max_size=8)
hosts = st.builds(
    lambda labels, end: ".".join([*labels, end]),
    st.lists(parts.filter(lambda part: "_" not in part), min_size=1, max_size=3),
    st.sampled_from(["lab.example.edu", "corp.local", "robots.example.org", "uni-x.de"]),
)


@pytest.mark.parametrize("folders", ["/aaaa/bbbb/cccc/dddd/eeee/ffff", "runs/of/the/second/week/in/may"])
def test_a_host_does_not_leave_behind_a_long_run_of_words(folders: str) -> None:
    redactor = Redactor((), frozenset({folders}))
    for place in (f"{folders}/gpu17.lab.example.edu", f"{folders}/gpu17.lab.example.edu/qpos"):
        assert "gpu17" not in redactor.text(place)
        assert "example" not in redactor.place(place)
    assert redactor.place(f"{folders}/episode_000000.parquet") == f"{folders}/episode_000000.parquet"
    secret = "q8ZxP1" * 7
    for text in (f"{secret}.abc", f"abc.{secret}", f"{folders}.{secret}", f"{secret}.{secret}.{secret}"):
        assert secret not in redactor.text(text)


@given(st.lists(parts, max_size=5), hosts, st.lists(parts, max_size=3))
@example(["0000_", "0000000", "00000000"], "00000000.lab.example.edu", [])
def test_no_part_of_a_place_is_a_host(before: list[str], host: str, after: list[str]) -> None:
    place = "/".join(["", *before, host, *after])
    assert host not in Redactor((), frozenset({place})).place(place)


@given(
    st.lists(
        st.sampled_from([*MARKED, *PLACES, *"/.:@-_ =ab1~$%\\\n", "http://", "host", "serial"]), max_size=12
    ).map("".join)
)
def test_kinds_that_cannot_be_in_a_text_need_not_be_looked_for(text: str) -> None:
    def found(pattern: re.Pattern[str]) -> list[tuple[object, ...]]:
        return [(match.span(), match.lastgroup) for match in pattern.finditer(text)]

    assert found(redact._marked(text)) == found(redact._pattern())


@settings(max_examples=60)
@given(headers(), st.data())
def test_whatever_member_has_a_name_that_must_not_leave_it_does_not_leave(
    header: Episode, data: st.DataObject
) -> None:
    document = to_document(header)
    named = [path for path in places(document) if isinstance(path[-1], str)]
    assert_clean(keyed(document, data.draw(st.sampled_from(named)), data.draw(marked)))


def assert_clean(document: Any) -> None:
    """Check that a header leaves without what was planted and valid, or is told to stay."""
    try:
        found = scrub(document, NAMES)
    except (KeyError, TypeError, AttributeError):
        return  # no header: `facts_of` tells it as damage
    if not found.problems:
        assert leaks(found.document) == []
        assert problems_of(from_document(Episode, found.document)) == []


@pytest.mark.parametrize("marker", MARKED)
@pytest.mark.parametrize("texts", [(), ("/home/zoe/x",)])
def test_free_text_is_redacted_and_the_episode_goes(marker: str, texts: tuple[str, ...]) -> None:
    document: Any = to_document(small(1))
    told = f"pick {marker} up"
    document["instructions"] = [told, *texts]
    document["embodiment"] = told
    document["extra"] = {"operator": told, told: 1}
    document["events"] = [
        {"kind": told, "start_ns": 0, "stop_ns": None, "text": told, "attributes": {"who": told}}
    ]
    document["provenance"] |= {
        "format": told,
        "revision": told,
        "selector": told,
        "warnings": [told],
        "evidence": {"author": told},
        "options": {"rate_hz": 30, "note": told},
    }
    document["provenance"]["sources"][0]["uri"] = f"/home/zoe/{told}" + "/x.hdf5" * (
        "/" in marker or "\\" in marker
    )
    document["provenance"]["ledger"].append(
        {"field": told, "fate": "dropped", "to": [], "how": told, "lossless": None, "error": {"note": told}}
    )
    document["clocks"]["steps"]["source"] = told
    spec = document["streams"]["action"]["spec"]
    spec |= {"description": told, "frame": told, "axes": [f"{told} {i}" for i in range(7)]}
    spec["attributes"] = {"intrinsics": [1.5, told], "serial": told, "order_evidence": told}
    spec["contract"]["evidence"] = told
    found = scrub({**document, "unknown_member": told}, NAMES)
    assert found.problems == ()
    assert leaks(found.document) == []
    assert b"zoe" not in canonical(found.document)
    assert found.document["streams"]["action"]["spec"]["attributes"]["intrinsics"][0] == 1.5
    assert found.document["instructions"][0].startswith("pick [")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("known", ["NFC", "NFD"])
def test_a_name_is_found_however_its_letters_are_composed(form: Any, known: Any) -> None:
    redactor = Redactor((normalize(known, "José Núñez"),))
    assert redactor.text(normalize(form, "as josé núñez does")) == "as [name] does"


def test_a_second_pass_changes_nothing() -> None:
    document: Any = to_document(small(1))
    document["instructions"] = [f"{one} and {other}" for one in MARKED for other in MARKED]
    once = scrub(document, NAMES).document
    assert scrub(once, NAMES).document == once


@settings(max_examples=50)
@given(headers())
def test_every_header_can_leave_once_it_is_scrubbed(header: Episode) -> None:
    found = scrub(to_document(header))
    assert found.problems == ()
    assert from_document(Episode, found.document).rights == Rights()


@pytest.mark.parametrize(
    "name", ["alice@lab.org", "hf_AbCdEfGhIjKlMnOpQrStUv", "robot7.lab.local", "10.0.0.7"]
)
def test_a_stream_whose_very_name_must_not_leave_keeps_its_episode(name: str) -> None:
    document: Any = to_document(small(1))
    document["streams"][name] = document["streams"].pop("phase")
    document["streams"][name]["spec"]["name"] = name
    document["provenance"]["ledger"] = []
    assert scrub(document).problems


def test_what_tells_a_reader_what_the_values_mean_stays() -> None:
    texts = [
        "same as /observations/qpos; see record_sim_episodes.py of github.com/tonyzhaozh/act",
        "https://github.com/huggingface/lerobot/blob/8d969eef6ecad3c29a3a629280e686cf0c3f5d5a/a.py",
        "grasp the cup at 12:30, 3.5 cm/s; and/or 1e-3 N·m",
        "observation.images.top is observation.images.cam_high",
        "抓起杯子",
        "stamps of /cmd_vel, std::vector<float>, v1.2.3",
    ]
    document: Any = to_document(small(1))
    document["provenance"]["ledger"].append(
        {
            "field": "/observations/qpos",
            "fate": "dropped",
            "to": [],
            "how": "double",
            "lossless": None,
            "error": None,
        }
    )
    document["instructions"] = texts
    found = scrub(document).document
    assert found["instructions"] == texts
    assert found["provenance"]["ledger"][-1]["field"] == "/observations/qpos"


def test_every_field_of_a_header_is_told_what_to_do_with() -> None:
    for kind, table in TABLES.items():
        fields = {f.name for f in dataclasses.fields(kind) if f.metadata.get("document", True)}
        assert fields == set(table), kind
    assert set(RIGHTS) == {f.name for f in dataclasses.fields(Rights)}


@pytest.mark.parametrize(
    "text",
    [
        "a" * 90_000,
        "a." * 45_000,
        "/a" * 45_000,
        "a@" * 45_000,
        "eyJ-" * 20_000,
        "+1 " * 30_000,
        "1:" * 45_000,
    ],
)
def test_no_text_takes_long(text: str) -> None:
    start = time.process_time()
    Redactor(NAMES).text(text)
    assert time.process_time() - start < 5


# --- rights records ----------------------------------------------------------------------------------------

PRIVATE = {
    "holder": [
        {"name": "Ada Lovelace", "kind": "person", "id": "https://orcid.org/0000-0001"},
        {"name": "Lab", "kind": "org"},
    ],
    "attribution": [
        {"title": "Kitchen", "creators": ["A. Author"]},
        {"title": "Bath", "creators": ["Ada Lovelace"], "cite": "Ada Lovelace 2026", "suppressed": True},
    ],
    "acquisition.agreement": [{"id": "contract with Ada Lovelace", "expires": "2030-01-01T00:00:00Z"}],
    "people": {
        "present": "operator",
        "consent": "recorded-publication",
        "minors": "none",
        "form": [{"sha256": "a" * 64, "scope": "signed by Ada Lovelace", "date": "2026-01-31"}],
    },
    "licence.statements": [
        {"url": "https://intranet.corp/wiki/grace4/x", "quoted": "ask dave6@lab.example.org"}
    ],
    "source": [{"uri": "/home/alice/x.hdf5", "sha256": "a" * 64}],
    "signoff": [{"by": "Ada Lovelace", "at": "2026-05-01T09:00:00Z"}],
    "review": [
        {"who": "Ada Lovelace", "at": "2026-05-01T09:00:00Z", "verdict": "agree", "note": "10.20.30.41"}
    ],
}


def test_a_public_record_names_nobody_who_did_not_ask_for_it_and_decides_the_same() -> None:
    record = Rights.from_document(but(PRIVATE, OPEN_DOCUMENT))
    assert reasons(record, now=NOW) == ()
    public = public_rights(record)
    assert leaks(public) == []
    assert reasons(public, now=NOW) == ()
    told = Rights.from_document(public)
    assert {holder.name for holder in told.holder} == {"Lab", NOT_NAMED}
    assert {credit.title for credit in told.attribution} == {"Kitchen", "Bath"}
    assert [credit.creators for credit in told.attribution if not credit.suppressed] == [("A. Author",)]
    assert told.review == ()
    assert names_to_remove(record) == NAMES


def test_a_full_record_has_a_public_form() -> None:
    public = public_rights(Rights.from_document(FULL))
    assert "signature" not in public
    assert Rights.from_document(public).licence.expression == "CC-BY-4.0"


@settings(max_examples=60)
@given(st.data())
@example(data=None)
def test_no_text_of_a_record_leaves_with_what_must_not_leave(data: Any) -> None:
    document = but({}, FULL)
    words = (
        "url quoted title cite op tool params method terms uri media_type role name id note scope revision"
    )
    texts = [path for path in places(document) if path[-1] in words.split() or "law" in path]
    for path in texts:
        marker = "/home/alice/recordings/run7.hdf5" if data is None else data.draw(marked)
        if "\n" not in marker:
            document = put(document, path, f"see {marker}"[:60])
    record = Rights.from_document(document)
    # The name of a holder is no secret; names of others are the test's above.
    assert [secret for secret in leaks(public_rights(record)) if secret != "Lovelace"] == []


def test_the_same_record_has_the_same_public_form() -> None:
    assert public_rights(OPEN) == public_rights(rights())
