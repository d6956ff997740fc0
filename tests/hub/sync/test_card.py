"""What a visitor of a public place sees: card, index, Croissant; all of the open subset and of no more."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from teleopen.hub.store import Store
from teleopen.hub.sync import index as index_module
from teleopen.hub.sync.card import CARD, card, gate_members, licence_members, size_category
from teleopen.hub.sync.croissant import CROISSANT, croissant
from teleopen.hub.sync.describe import describer
from teleopen.hub.sync.index import INDEX, THUMBNAIL, Overview, Row, thumbnail
from teleopen.hub.sync.markup import Yaml, code, quoted, shown, table, yaml_block
from teleopen.hub.sync.tree import MANIFEST, PublicEpisode, Published
from teleopen.schemas import LICENCES, Array, StreamSpec, hub_id

from tests.hub.sync.publishing import NOW, OPEN, Place, planned, small, store_of
from tests.hub.sync.world import MARKER, make_world

HOSTILE = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("-`|<>&\\\"'#:[]()!*_~\n\r\t\x00\x1b\x7f\x85\u2028\u202e\ufeff"),
    ),
    max_size=60,
) | st.sampled_from(
    [
        "---",
        "\n---\nlicense: mit\n",
        "<script>alert(1)</script>",
        "![x](javascript:alert)",
        "`</code><img src=x onerror=y>`",
        "| a | b |\n|---|---|",
        "{{ x }} {% y %}",
        "!!python/object:os.system",
        "# head",
        "1. one",
        "&lt;b&gt;",
        "https://evil.example/x",
    ]
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Give a store of three episodes, of which the second stays closed."""
    found = store_of(tmp_path, *(small(seed) for seed in range(3)))
    found.set_rights(OPEN, ["0", "2"])
    return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Give an empty target."""
    return Place(tmp_path / "public")


def header_of(raw: bytes) -> dict[str, Any]:
    """Read a card's metadata as the Hub does: YAML between the first two lines of dashes."""
    found = re.match(rb"---\n(.*?\n)---\n", raw, re.DOTALL)
    assert found
    told: dict[str, Any] = yaml.safe_load(found[1])
    return told


def rows_of(raw: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(io.BytesIO(raw)).to_pylist()
    return found


def files(place: Place) -> dict[str, bytes]:
    return {path: (place.folder / path).read_bytes() for path in (CARD, INDEX, CROISSANT)}


# --- of the open subset, and no more ----------------------------------------------------------------------


def test_the_documents_tell_of_what_is_published_only(store: Store, place: Place) -> None:
    place.take(planned(store, describe=describer()))
    made = files(place)
    assert [row["id"] for row in rows_of(made[INDEX])] == [store.ids[0], store.ids[2]]
    for raw in made.values():
        assert store.ids[1].encode() not in raw
        assert b"do task 1" not in raw
    header = header_of(made[CARD])
    assert header["license"] == "cc-by-4.0"
    assert header["size_categories"] == ["n<1K"]
    assert header["task_categories"] == ["robotics"]
    assert "LeRobot" not in header["tags"]
    (config,) = header["configs"]
    assert config["data_files"] == [{"split": "train", "path": INDEX}]
    body = made[CARD].decode()
    assert "2 episodes" in body
    assert "teleopen view 'hf://datasets/lab/kitchen#0'" in body
    assert "| do task 0 | 1 |" in body


def test_no_mark_of_what_stays_is_in_any_file(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    tree = planned(world.store, describe=describer()).files()
    assert set(tree.files) >= {CARD, INDEX, CROISSANT}
    for path, blob in tree.files.items():
        assert MARKER.encode() not in path.encode() + blob.read(), path


def test_a_row_tells_what_a_reader_of_the_store_finds(store: Store, place: Place) -> None:
    place.take(planned(store, describe=describer()))
    public = place.store()
    for row in rows_of(files(place)[INDEX]):
        episode = public.episode(row["id"])
        assert row["task"] == episode.instructions[0]
        assert (row["steps"], row["rate"]) == (episode.clocks["steps"].length, 30)
        assert row["duration_s"] == pytest.approx(12 / 30)
        assert row["segment"] == public.state.episodes[row["id"]].segment
        assert row["licence"] == "CC-BY-4.0"
        assert row["cameras"] == ["observation.images.top"]
        picture = Image.open(io.BytesIO(row["thumbnail"]["bytes"]))
        frame = episode.streams["observation.images.top"].values(0, 1)[0]
        assert np.abs(np.asarray(picture, np.int16) - frame).mean() < 12


def test_the_index_tells_the_viewer_which_column_is_a_picture(store: Store, place: Place) -> None:
    place.take(planned(store, describe=describer()))
    schema = pq.read_schema(io.BytesIO(files(place)[INDEX]))
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names
    assert features["thumbnail"] == {"_type": "Image"}


def test_no_picture_is_made_of_a_camera_that_stays(tmp_path: Path, place: Place) -> None:
    episode = small(1, cameras=("alpha", "beta"))
    alpha = episode.streams["observation.images.alpha"]
    spec = replace(alpha.spec, attributes={"rights": {"tier": "gated"}})
    shut = {**episode.streams, spec.name: replace(alpha, spec=spec)}
    store = store_of(tmp_path, replace(episode, streams=shut))
    store.set_rights(OPEN)
    place.take(planned(store, describe=describer()))
    (row,) = rows_of(files(place)[INDEX])
    assert row["cameras"] == ["observation.images.beta"]
    shown_picture = np.asarray(Image.open(io.BytesIO(row["thumbnail"]["bytes"])), np.int16)
    beta = episode.streams["observation.images.beta"].values(0, 1)[0]
    assert np.abs(shown_picture - beta).mean() < 12
    assert b"alpha" not in place.raw()


# --- the same again ---------------------------------------------------------------------------------------


def test_publishing_again_sends_nothing_and_decodes_nothing(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place.take(planned(store, describe=describer()))
    monkeypatch.setattr(index_module, "thumbnail", _never)
    assert not planned(store, place.state(), day=1, describe=describer()).changed
    # Nor does somebody without anything kept: the index that lies there has the pictures.
    fresh = planned(store, place.state(), day=2, describe=describer(), cache=tmp_path / "fresh")
    assert not fresh.changed


def test_only_new_segments_are_decoded(store: Store, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.take(planned(store, describe=describer()))
    before = {row["id"]: row for row in rows_of(files(place)[INDEX])}
    store.write([small(7)])
    store.set_rights(OPEN, ["3"])
    made = []

    def counted(frame: Array) -> bytes:
        made.append(frame.shape)
        return thumbnail(frame)

    monkeypatch.setattr(index_module, "thumbnail", counted)
    place.take(planned(store, place.state(), day=1, describe=describer()))
    after = {row["id"]: row for row in rows_of(files(place)[INDEX])}
    assert len(made) == 1
    assert len(after) == 3
    assert all(after[episode] == row for episode, row in before.items())


def test_what_only_the_target_has_keeps_its_row(store: Store, place: Place, tmp_path: Path) -> None:
    place.take(planned(store, describe=describer()))
    other = store_of(tmp_path / "other", small(9))
    other.set_rights(OPEN)
    place.take(planned(other, place.state(), day=1, describe=describer()))
    assert {row["id"] for row in rows_of(files(place)[INDEX])} == {store.ids[0], store.ids[2], other.ids[0]}
    assert all(row["thumbnail"] for row in rows_of(files(place)[INDEX]))


def test_a_torn_cache_is_made_again(store: Store, place: Place, tmp_path: Path) -> None:
    told = planned(store, describe=describer(), cache=tmp_path / "cache")
    for kept in (tmp_path / "cache/thumbnails").iterdir():
        kept.write_bytes(kept.read_bytes()[:50])
    again = planned(store, describe=describer(), cache=tmp_path / "cache")
    assert told.tree_digest == again.tree_digest


def test_withdrawing_takes_the_row_and_says_so(store: Store, place: Place) -> None:
    place.take(planned(store, describe=describer()))
    gone = store.ids[0]
    store.withdraw([gone], "consent")
    place.take(planned(store, place.state(), day=1, describe=describer()))
    made = files(place)
    assert all(gone.encode() not in raw for raw in made.values())
    assert b"Withdrawn so far: 1" in made[CARD]
    assert gone.encode() in (place.folder / MANIFEST).read_bytes()


def _never(_frame: object) -> bytes:
    raise AssertionError("a picture was made again")


@pytest.mark.parametrize("shape", [(480, 640, 3), (1000, 100, 3), (40, 30, 1), (1, 1, 3)])
def test_thumbnails_are_small_and_the_same_each_time(shape: tuple[int, int, int]) -> None:
    frame = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    made = thumbnail(frame)
    size = Image.open(io.BytesIO(made)).size
    assert size[0] <= THUMBNAIL[0]
    assert size[1] <= THUMBNAIL[1]
    assert made == thumbnail(frame)


# --- licences ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("licence", sorted(id for id, row in LICENCES.items() if row.grant != "closed"))
def test_a_licence_is_told_in_the_hubs_words_or_as_another_with_a_link(licence: str) -> None:
    told = licence_members(licence)
    if hub_id(licence) == "other":
        assert told == {
            "license": "other",
            "license_name": licence.lower(),
            "license_link": LICENCES[licence].url,
        }
    else:
        assert told == {"license": LICENCES[licence].hub_id}
    assert told["license"] not in {"cc", "bsd", "gpl", "lgpl", "gfdl", "unknown"}


def test_several_licences_at_once_and_those_of_the_operator_are_others() -> None:
    assert licence_members("CC-BY-4.0 AND MIT")["license"] == "other"
    assert licence_members("LicenseRef-Lab-1")["license_name"] == "licenseref-lab-1"


@pytest.mark.parametrize(
    ("count", "word"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1_000, "1K<n<10K"),
        (99_999, "10K<n<100K"),
        (100_000, "100K<n<1M"),
        (10**8, "n>10M"),
    ],
)
def test_size_categories_are_the_hubs_words(count: int, word: str) -> None:
    assert size_category(count) == word


def test_a_gate_tells_the_purpose_limits_and_asks_for_no_more() -> None:
    limits = {"purpose": {"limits": ["research-only", "region:DE", "time-limit:2030-01-01"]}}
    told = gate_members([episode_of("x", limits)])
    assert "research only" in str(told["extra_gated_prompt"])
    assert "in DE only" in str(told["extra_gated_prompt"])
    assert "2030-01-01" in str(told["extra_gated_prompt"])
    assert told["extra_gated_fields"] == {"I agree to these conditions": "checkbox"}
    free = gate_members([episode_of("x", {})])
    assert "extra_gated_fields" not in free
    assert "no condition" in str(free["extra_gated_prompt"])


def test_the_text_of_a_gate_is_on_the_card_of_a_gated_target_only(store: Store) -> None:
    for gated in (False, True):
        raw = planned(store, describe=describer(gated=gated)).files().files[CARD].read()
        assert ("extra_gated_prompt" in header_of(raw)) == gated


# --- strangers' words -------------------------------------------------------------------------------------


@given(HOSTILE, HOSTILE)
def test_yaml_reads_back_as_the_very_text(key: str, text: str) -> None:
    inner: list[Yaml] = [{"a": text, key or "k": True}]
    told: dict[str, Yaml] = {"name": text, "list": [text, "x"], "inner": inner, "none": []}
    block = yaml_block(told)
    assert all(line.isprintable() for line in block.split("\n"))
    assert yaml.safe_load(block) == _without_surrogates(told)
    assert "\n---" not in block


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(one) for one in value]
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    return value


@given(HOSTILE)
def test_a_shown_text_is_one_line_without_html_or_open_marks(text: str) -> None:
    for made in (shown(text), code(text)):
        assert "\n" not in made
        assert not re.search(r"[<>]", made)
        assert made.isprintable()
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`\[\]*_]", shown(text))
    assert not re.match(r"[-+=>#]|\d+[.)]", shown(text))
    assert table(("a", "b"), [[shown(text), code(text)]]).count("\n") == 3


def episode_of(id: str, record: dict[str, Any]) -> PublicEpisode:
    return PublicEpisode(
        id=id,
        segment="0" * 32,
        content="0" * 64,
        licence="CC-BY-4.0",
        tier="open",
        record="1" * 64,
        rights=record,
    )


def _no_headers() -> Iterator[tuple[str, dict[str, Any]]]:
    return iter(())


def published(text: str) -> tuple[Published, Overview]:
    """Return what would be described if every text of a recording were this one."""
    credited = {"attribution": [{"creators": [text], "title": text, "cite": text}], "licence": {}}
    row = Row(
        id="x",
        task=text,
        robot=text,
        licence="CC-BY-4.0",
        outcome="success",
        duration_s=1.0,
        steps=30,
        cameras=(),
        rate=30.0,
        segment="0" * 32,
        attribution=text,
    )
    spec = StreamSpec(name="action", kind="low_dim", dtype="float32", shape=(2,), unit=(text or "1",))
    return Published(
        target=f"hf://datasets/lab/{text}",
        dataset="d",
        version=1,
        licence="CC-BY-4.0",
        policy="open-v1",
        time=NOW,
        tool="teleopen",
        episodes={"x": episode_of("x", credited)},
        segments={},
        headers=_no_headers,
        changed="2026-06-01T12:00:00.000000Z",
        first_frame=lambda _episode, _stream: np.zeros((4, 4, 3), np.uint8),
        read_previous=lambda _path: None,
        cache=Path("unused"),
    ), Overview((row,), {"action": spec})


@settings(max_examples=50)
@given(HOSTILE.filter(lambda text: not re.search("[\ud800-\udfff]", text)))
def test_a_card_says_what_strangers_say_and_does_not_do_it(text: str) -> None:
    about, told = published(text)
    raw = card(about, told, gated=True)
    header = header_of(raw)
    assert header["license"] == "cc-by-4.0"
    if text:
        assert header["pretty_name"] == text
    assert not re.search(rb"<[a-zA-Z/!?]", raw)
    lines = raw.decode().split("\n")
    assert lines.count("---") == 2
    assert sum(line.startswith("```") for line in lines) == 4
    assert [line for line in lines if line.startswith("## ")] == [
        "## Use",
        "## Streams",
        "## Tasks",
        "## Robots",
        "## Licence",
        "## Attribution",
        "## Contact, and taking back",
    ]
    json.loads(croissant(about, told, b"index"))


def test_a_quoted_text_spells_out_what_cannot_be_seen() -> None:
    assert quoted('a"\\\n\u202e\U0001f916\U000e0001') == '"a\\"\\\\\\x0A\\u202E\U0001f916\\U000E0001"'


# --- Croissant --------------------------------------------------------------------------------------------


def test_croissant_tells_licence_people_and_files(store: Store, place: Place) -> None:
    place.take(planned(store, describe=describer()))
    told = json.loads(files(place)[CROISSANT])
    assert told["license"] == ["https://spdx.org/licenses/CC-BY-4.0"]
    assert told["rai:personalSensitiveInformation"]
    (file,) = told["distribution"]
    assert file["contentUrl"] == INDEX
    names = [field["name"] for field in told["recordSet"][0]["field"]]
    assert names == pq.read_schema(io.BytesIO(files(place)[INDEX])).names


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what it is made with
def test_mlcroissant_reads_the_rows(store: Store, place: Place) -> None:
    mlc = pytest.importorskip(
        "mlcroissant", reason="mlcroissant is not installed; it validates croissant.json"
    )
    place.take(planned(store, describe=describer()))
    dataset = mlc.Dataset(jsonld=str(place.folder / CROISSANT))
    assert not dataset.metadata.ctx.issues.errors
    rows = list(dataset.records("episodes"))
    assert {row["episodes/id"].decode() for row in rows} == {store.ids[0], store.ids[2]}
