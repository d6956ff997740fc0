"""The dataset card: README.md with the metadata that the Hub reads, made from what is published and no more.

After the Hub's documentation of dataset cards (github.com/huggingface/hub-docs: datasetcard.md, and
docs/hub/datasets-cards.md, datasets-gated.md). Texts come from recordings, so they are strangers' words:
see `markup`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from ...schemas import LICENCES, UNKNOWN, StreamSpec, hub_id
from .index import INDEX, Overview, Row, credit
from .markup import Word, Yaml, code, shown, table, yaml_block
from .tree import PublicEpisode, Published

CARD = "README.md"

_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_SIZE_WORDS = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "n>10M")
_MOST_LISTED = 50
_ON_THE_HUB = re.compile(r"hf://datasets/([^@]+)")

_LIMITS = {
    "non-commercial": "It may not be used commercially.",
    "research-only": "It may be used for research only.",
    "no-redistribution": "It may not be passed on.",
    "no-reidentification": "Nobody may try to find out who the people in it are.",
    "no-weapons": "It may not be used for weapons.",
    "no-surveillance": "It may not be used for surveillance.",
    "no-biometrics": "It may not be used to recognise people.",
    "ethics-approval": "Its use needs the approval of an ethics committee.",
    "cite": "Whoever uses it must cite it.",
    "return-results": "Results must be made known to its holders.",
    "institution-only": "It is for members of institutions only.",
}
"""What each purpose limit of a rights record says to a person; see `teleopen.schemas.rights`."""


def licence_members(licence: str) -> dict[str, Yaml]:
    """Return how a card's metadata tells a licence.

    The Hub knows words of its own, for one licence each; whatever else is ``other`` with name and link. Words
    of the Hub for whole families (``cc``, ``bsd``, ``gpl``) are never used: they say nothing.
    """
    word = hub_id(licence)
    if word != "other":
        return {"license": Word(word)}
    row = LICENCES.get(licence)
    link = row.url if row else "LICENSES"
    return {"license": Word("other"), "license_name": licence.lower().replace(" ", "-"), "license_link": link}


def size_category(count: int) -> Word:
    """Return the Hub's word for so many rows."""
    return Word(_SIZE_WORDS[sum(count >= size for size in _SIZES)])


def gate_members(episodes: Iterable[PublicEpisode]) -> dict[str, Yaml]:
    """Return what a gated repository asks of visitors: the purpose limits on record, and nothing else.

    No answer is asked for beyond the name and address that the Hub tells the owners anyway.
    """
    limits = sorted({limit for one in episodes for limit in one.rights.get("purpose", {}).get("limits", ())})
    if not limits:
        prompt = "Access is by request. The licence holds as it is; asking adds no condition to it."
        return {"extra_gated_heading": "Ask for access", "extra_gated_prompt": prompt}
    told = " ".join(map(_limit, limits))
    return {
        "extra_gated_heading": "Ask for access, and agree to the conditions",
        "extra_gated_prompt": f"These conditions hold besides the licence. {told}",
        "extra_gated_fields": {"I agree to these conditions": "checkbox"},
        "extra_gated_button_content": "Agree and ask for access",
    }


def _limit(limit: str) -> str:
    kind, _, value = limit.partition(":")
    if kind == "region":
        return f"It may be used in {value} only."
    if kind == "time-limit":
        return f"It may be used until {value}."
    return _LIMITS[kind]


def card(published: Published, told: Overview, *, gated: bool = False) -> bytes:
    """Return the card. The same bytes for the same episodes."""
    gate = gate_members(published.episodes.values()) if gated else {}
    header = yaml_block({**_metadata(published, told), **gate})
    return f"---\n{header}---\n\n{_body(published, told)}".encode()


def title_of(published: Published) -> str:
    """Return what the whole is called: the one title that it wants to be named by, or the target's name."""
    titles = {c["title"] for one in published.episodes.values() for c in one.attribution if c.get("title")}
    name = published.target.partition("@")[0].rstrip("/").rsplit("/", 1)[-1]
    return titles.pop() if len(titles) == 1 else name or "Robot demonstrations"


def _metadata(published: Published, told: Overview) -> dict[str, Yaml]:
    return {
        **licence_members(published.licence),
        "pretty_name": title_of(published),
        "task_categories": [Word("robotics")],
        "tags": [Word("robotics"), Word("zarr"), Word("teleopen")],
        "size_categories": [size_category(len(told.rows))],
        "configs": [
            {
                "config_name": Word("episodes"),
                "data_files": [{"split": Word("train"), "path": Word(INDEX)}],
                "default": True,
            }
        ],
    }


# --- the text -----------------------------------------------------------------------------------------------


def _body(published: Published, told: Overview) -> str:
    parts = (
        f"# {shown(title_of(published))}\n",
        _counts(told.rows),
        _use(published.target, told),
        "## Streams\n\n" + _streams(told.streams.values()),
        "## Tasks\n\n" + _counted("task", Counter(row.task for row in told.rows)),
        "## Robots\n\n" + _counted("robot", Counter(row.robot for row in told.rows)),
        _licence(published),
        "## Attribution\n\n" + _credits(published),
        _taking_back(published),
    )
    return "\n".join(parts)


def _counts(rows: tuple[Row, ...]) -> str:
    hours = sum(row.duration_s or 0 for row in rows) / 3600
    outcomes = Counter(row.outcome for row in rows)
    ends = ", ".join(f"{n:,} {o}" for o, n in sorted(outcomes.items()) if o != UNKNOWN)
    steps = sum(row.steps for row in rows)
    length = f"{steps:,} steps, {hours:.2f} hours{f' ({ends})' if ends else ''}"
    return f"""\
{len(rows):,} episodes of robot demonstrations, {length}.
A [Zarr](https://zarr.dev) store in teleopen format 1; [{INDEX}]({INDEX}) has a row for each episode.
"""


def _use(target: str, told: Overview) -> str:
    cameras = [spec.name for spec in told.streams.values() if spec.kind == "video"]
    commands = [name for name in told.streams if name == "action" or name.startswith("action.")]
    names = [*cameras[:1], *(commands[:1] or [name for name in told.streams if name not in cameras][:1])]
    wants = ", ".join(f"{json.dumps(name)}: range({16 if name in commands else 1})" for name in names)
    return f"""\
## Use

Stream windows for training:

```python
from teleopen.hub.train import open_dataset

windows = open_dataset({json.dumps(_in_code(target))}).windows({{{wants}}})
for batch in windows.loader(batch_size=64):
    ...
```

Look at an episode, check the whole, or bring it home:

```sh
teleopen view '{_in_code(target)}#0'
teleopen audit '{_in_code(target)}'
teleopen pull '{_in_code(target)}' my-copy
```
"""


def _in_code(target: str) -> str:
    """Return a target's URL as a line of code may hold it."""
    return re.sub(r"[^\w:/@.,+=-]", "_", target, flags=re.ASCII)


def _streams(specs: Iterable[StreamSpec]) -> str:
    rows = [
        [
            code(spec.name),
            spec.kind,
            code(spec.dtype),
            " × ".join(map(str, spec.shape)) or "scalar",
            shown(", ".join(dict.fromkeys(spec.unit)), 80),
            code(spec.clock),
        ]
        for spec in specs
    ]
    return table(("stream", "kind", "type", "shape", "unit", "clock"), rows)


def _counted(what: str, counts: Mapping[str, int]) -> str:
    often = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rows = [[shown(name) or "not told", f"{count:,}"] for name, count in often[:_MOST_LISTED]]
    rest = len(often) - len(rows)
    more = f"\nand {rest:,} more, which the index tells.\n" if rest else ""
    return table((what, "episodes"), rows) + more


def _licence(published: Published) -> str:
    lines = []
    for id in published.licence.split(" AND "):
        row = LICENCES.get(id)
        lines.append(f"- [{shown(row.name)}]({row.url}), {code(id)}\n" if row else f"- {code(id)}\n")
    return (
        "## Licence\n\nEvery episode here is open under all of:\n\n"
        + "".join(lines)
        + "\n[NOTICE](NOTICE) names the works, LICENSES/ has the full texts, and "
        "[manifest.json](manifest.json) tells for each episode the licence and what it rests on.\n"
    )


def _credits(published: Published) -> str:
    works = {tuple(_credit_lines(c)) for one in published.episodes.values() for c in one.attribution or ({},)}
    return "".join(f"{line}\n" for work in sorted(works) for line in work)


def _credit_lines(told: Mapping[str, object]) -> Iterator[str]:
    yield f"- {shown(credit(told))}"
    if told.get("cite"):
        yield f"  Cite as: {shown(str(told['cite']), 2_000)}"


def _taking_back(published: Published) -> str:
    found = _ON_THE_HUB.match(published.target)
    page = f"https://huggingface.co/datasets/{_in_code(found[1])}/discussions" if found else ""
    whom = f"Write to the [discussions]({page})" if page else "Write to those who hold the rights"
    gone = len(published.tombstones)
    told = f"Withdrawn so far: {gone:,}; the manifest lists them. " if gone else ""
    return f"""\
## Contact, and taking back

{whom} if you are in a recording, hold rights in one, or found something wrong.

What is withdrawn disappears from here with the next publication and leaves a tombstone in the manifest: id,
reason, time. {told}An open licence cannot be revoked for copies that others have; please delete yours of what
was withdrawn: `teleopen pull` does so.
"""
