"""Free text without what tells of machines and people: paths, hosts, addresses, secrets, numbers, names.

A text that comes out has none of the marked kinds left. What cannot be told from a pattern (a first name in a
sentence) is not found here: docs/publish.md says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from unicodedata import normalize

_PUBLIC_HOSTS = (
    "arxiv.org|creativecommons.org|dataverse.harvard.edu|doi.org|figshare.com|github.com|gitlab.com"
    "|huggingface.co|hf.co|kaggle.com|opendatacommons.org|openreview.net|opensource.org|orcid.org|osf.io"
    "|ror.org|spdx.org|w3.org|zenodo.org|apache.org|cdla.dev|ucum.org"
)
"""Hosts whose pages are public by their nature; a reference to one is worth keeping."""
_IS_PUBLIC_HOST = re.compile(rf"(?:www\.)?(?:{_PUBLIC_HOSTS.replace('.', '[.]')})", re.IGNORECASE)

_TOP_LEVEL = (
    "com|org|net|edu|gov|mil|int|info|biz|io|ai|dev|app|cloud|tech|xyz|site|online|eu|cn|tw|hk|jp|kr|sg|my|th|vn|id|in"
    "|uk|ie|fr|de|nl|be|lu|ch|at|it|es|pt|pl|cz|se|no|fi|dk|is|ru|ua|gr|tr|il|ae|sa|za|au|nz|ca|us|mx|br|ar|cl"
    "|local|lan|internal|intranet|corp|home|localdomain|localhost|private|example|invalid|test"
)
"""Last labels that make a dotted name a host: the common top-level domains, but for those that are
endings of source files (.py, .md, .sh, .rs, .cc), and those of private networks (RFC 6762, appendix G)."""

_ENDS_LIKE_A_HOST = re.compile(
    r"\.(?:com|org|net|edu|gov|local|lan|internal|intranet|corp|localdomain)\Z", re.IGNORECASE
)
_IS_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}")
_IS_PRIVATE_HOST = re.compile(
    r"\.(?:local|lan|internal|intranet|corp|home|localdomain|localhost|private|invalid|test)\Z|^intranet\.",
    re.IGNORECASE,
)

_ROOTS = (
    r"home\d*|Users|root|mnt|media|tmp|var|opt|srv|usr|etc|private|Volumes|nfs\w*|scratch\w*|work\w*|export\w*"
    r"|gpfs\w*|lustre\w*|proj\w*|storage\w*|raid\w*|cluster\w*|hdd\w*|ssd\w*|disk\w*|proc|dev|run|shared?"
)
"""First folders of a Unix machine: a path below one is of a machine, even where places in files are usual."""

_EDGE = r"(?<![A-Za-z0-9_.~@-])"
_STOP = r"\s\"'<>|;,()\[\]{}`"

_SECRETS = (
    r"-----BEGIN [A-Z0-9 ]{1,40}-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)",
    r"eyJ[\w-]{4,2000}\.[\w-]{4,2000}(?:\.[\w-]*)?",
    r"hf_[A-Za-z0-9]{16,}",
    r"gh[pousr]_[A-Za-z0-9]{16,}",
    r"github_pat_\w{16,}",
    r"glpat-[\w-]{16,}",
    r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}",
    r"AIza[\w-]{30,}",
    r"xox[abeoprs]-[\w-]{10,}",
    r"sk-[\w-]{16,}",
    r"(?:password|passwd|secret|token|api[_-]?key)\s*[=:]\s*\S+",
)
_PHONES = (
    r"(?<![\w+])\+\d[\d ()./-]{6,}\d",
    r"(?<![\w.-])\(?\d{3}\)?[-. ]\d{3}[-. ]\d{4}(?![\w-])",
    r"(?<!\d)1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?!\d)",
    r"(?<![\w.-])0\d{2,4}[-/ ]\d{5,8}(?!\w)",
)
_ADDRESSES = (
    r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])",
    r"(?<![\w:])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![\w:])",
    r"(?<![\w.])(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}(?![\w.])",
    r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}(?![\w:])",
    r"(?<![\w:])(?=[0-9A-Fa-f:]*\d)(?:[0-9A-Fa-f]{1,4}:){1,6}(?::[0-9A-Fa-f]{1,4}){1,6}(?![\w:])",
)
_KINDS: dict[str, tuple[str, ...]] = {
    "secret": (rf"(?<![A-Za-z0-9])(?:{'|'.join(_SECRETS)})",),
    "url": (rf"[A-Za-z][A-Za-z0-9+.-]{{0,20}}://[^{_STOP}]+",),
    "email": (rf"[^{_STOP}:@/\\=]{{1,64}}@[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*",),
    "path": (
        rf"\\\\[^{_STOP}\\]+\\[^{_STOP}]*",
        rf"(?<![A-Za-z0-9])[A-Za-z]:[\\/][^{_STOP}]*",
        rf"(?<![\w.])~[\w.-]*/[^{_STOP}]*",
        rf"(?:\$\{{?HOME\}}?|%USERPROFILE%)[^{_STOP}]*",
        rf"(?:home\d*|Users)[/\\][^{_STOP}]+",
    ),
    "rooted": (rf"{_EDGE}/[^{_STOP}/:]+(?:/[^{_STOP}:]*)*",),
    "address": _ADDRESSES,
    "phone": _PHONES,
    "host": (
        r"(?:host(?:name)?|node|machine|serial(?:[ _-]?(?:no|number))?)\s*[=:]\s*[\w.-]+",
        rf"(?<![\w.-])(?:\w[\w-]{{0,62}}\.){{1,16}}(?:{_TOP_LEVEL})(?![\w-]|\.\w)",
    ),
    # With the rest of a dotted name that it may be the beginning of: a host is found whole or not at all.
    "blob": (r"[A-Za-z0-9+/_=-]{32,}(?:\.[\w-]{1,31}(?![\w-]))*",),
}


@cache
def _pattern(*without: str) -> re.Pattern[str]:
    groups = (f"(?P<{k}>{'|'.join(patterns)})" for k, patterns in _KINDS.items() if k not in without)
    return re.compile("|".join(groups), re.ASCII | re.DOTALL | re.IGNORECASE)


_NEEDS: Mapping[str, re.Pattern[str]] = {
    "url": re.compile("://"),
    "email": re.compile("@"),
    "path": re.compile(r"[\\/$%]"),
    "rooted": re.compile("/"),
    "address": re.compile(r":|[.][^.]*[.]|(?:-[^-]*){5}"),
    "host": re.compile("[.:=]"),
}
"""What each text of a kind has in it; most texts have little of it, and are not searched for those kinds."""


def _marked(text: str) -> re.Pattern[str]:
    """Return the pattern of all kinds that can be in a text."""
    return _pattern(*(kind for kind, mark in _NEEDS.items() if mark.search(text) is None))


_INSIDE = {
    "rooted": _pattern("url", "rooted"),
    "host": _pattern("url", "rooted", "host", "blob"),
    "blob": _pattern("url", "rooted", "blob"),
}
"""What is looked for within something that is kept: a long harmless run may have an address in it."""
_WORDS = {"rooted": "path", "email": "e-mail", "url": "link", "blob": "secret"}
_UNDER_ROOT = re.compile(rf"/(?:{_ROOTS})(?:/|\Z)", re.ASCII)
_HEX = re.compile(r"(?:[0-9a-f]{2}){16,}|(?:[0-9A-F]{2}){16,}")
_PASSES = 5
GONE = "[removed]"

Keep = frozenset[str]


@dataclass(frozen=True, slots=True)
class Redactor:
    """Redacts texts of one kind of source.

    Attributes
    ----------
    names
        Names of people that nobody asked to be named.
    inner
        What looks like paths of a machine and is known to be places within the source's files.
    """

    names: tuple[str, ...] = ()
    inner: Keep = frozenset()

    def text(self, text: str) -> str:
        """Return a text with each marked thing replaced by a word for its kind in brackets."""
        return _redacted(text, self.names, self.inner, False)

    def place(self, text: str) -> str:
        """Return a place within a source's file, such as ``/observations/qpos``, redacted like any text.

        Such places look like absolute paths; those below a usual root of a machine count as such.
        """
        return _redacted(text, self.names, self.inner, True)

    def is_clean(self, text: str) -> bool:
        """Tell whether a text has nothing marked in it."""
        return self.text(text) == text

    def is_clean_name(self, name: str) -> bool:
        """Tell whether a dotted name of a stream has nothing marked in it.

        Its last part may well be a country's domain (``joint.id``); only what no stream ends in tells a host.
        """
        inner = frozenset() if _ENDS_LIKE_A_HOST.search(name) else frozenset({name})
        return Redactor(self.names, inner).is_clean(name)

    def page(self, url: str) -> str:
        """Return the page on which something was stated to the public; a bare name if it cannot be public."""
        scheme, _, rest = url.partition("://")
        host, _, path = rest.partition("/")
        public = _IS_HOST.fullmatch(host) and not _IS_PRIVATE_HOST.search(host)
        plain = scheme in {"http", "https"} and _is_plain_path(path)
        return url if public and plain and self.text(path) == path else self.file_name(url)

    def file_name(self, uri: str) -> str:
        """Return where a file comes from: a link if that is to a public host, else the file's bare name."""
        if _is_public_link(uri) and self.is_clean(uri):
            return uri
        name = self.text(re.split(r"[/\\?#]", uri.rstrip("/\\"))[-1])
        return name or "file"


def private_names(people: Iterable[str], credited: Iterable[str]) -> tuple[str, ...]:
    """Return the names that must not leave: those of people, but for those who are credited."""
    named = {name.casefold() for name in credited}
    return tuple(sorted({name for name in people if len(name.strip()) > 1 and name.casefold() not in named}))


@lru_cache(maxsize=1 << 16)
def _redacted(text: str, names: tuple[str, ...], inner: Keep, within: bool) -> str:  # noqa: FBT001
    found = text
    for _ in range(_PASSES):
        before, found = found, _once(found, names, inner, within=within)
        if before == found:
            return found
    return GONE


def _once(text: str, names: tuple[str, ...], inner: Keep, *, within: bool) -> str:
    if names:
        text = _names_pattern(names).sub("[name]", text)
    if len(text) < 4:  # the shortest of marked things is longer
        return text

    def replaced(match: re.Match[str], judges: Mapping[str, Judge] = _JUDGES) -> str:
        kind = match.lastgroup or ""
        told = match[0]
        if kind not in judges or not judges[kind](told, inner, within):
            return f"[{_WORDS.get(kind, kind)}]"
        inside = _JUDGES_OF_PARTS if kind == "rooted" else judges
        return told if kind not in _INSIDE else _INSIDE[kind].sub(lambda part: replaced(part, inside), told)

    return _marked(text).sub(replaced, text)


@lru_cache(maxsize=64)
def _names_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    # File systems and people write one letter as one character or as two (Unicode, annex 15).
    forms = {normalize(form, name) for name in names for form in ("NFC", "NFD")}.union(names)
    longest_first = sorted(forms, key=lambda name: (-len(name), name))
    return re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)


def _is_public_link(told: str, _inner: Keep = frozenset(), _within: bool = False) -> bool:  # noqa: FBT001, FBT002
    """Tell whether a link's host is public by nature, and it holds neither user nor query nor secret."""
    scheme, _, rest = told.partition("://")
    host, _, path = rest.partition("/")
    return (
        scheme.lower() in {"http", "https"}
        and _IS_PUBLIC_HOST.fullmatch(host) is not None
        and _is_plain_path(path)
    )


def _is_plain_path(path: str) -> bool:
    """Tell whether a link's path holds neither user nor query nor secret; the hash of a commit is none."""
    plain = re.fullmatch(r"[\w./:+%-]*", path, re.ASCII)
    return bool(plain) and _INSIDE["rooted"].search(re.sub(r"\b[0-9a-f]{40}\b", "", path)) is None


def _is_place(told: str, inner: Keep, within: bool) -> bool:  # noqa: FBT001
    """Tell what cannot be a machine's path: a single name, or a place that is known to be within a file."""
    if _UNDER_ROOT.match(told):
        return False
    bare = told.rstrip("./")
    return within or bare.count("/") < 2 or bare in inner


def _is_no_host(told: str, inner: Keep, _within: bool) -> bool:  # noqa: FBT001
    known = told in inner and not _ENDS_LIKE_A_HOST.search(told)
    stream = known or told.startswith(("observation.", "action."))
    return stream or _IS_PUBLIC_HOST.fullmatch(told) is not None


def _is_no_host_of_a_path(told: str, _inner: Keep, within: bool) -> bool:  # noqa: FBT001
    """Tell a part of a place such as ``joint.id`` or ``camera.info`` from a host.

    Of two labels the last may be any word; of more, it is hardly ever a domain's.
    """
    member = told.count(".") == 1 and not re.search("[=:]", told) and not _ENDS_LIKE_A_HOST.search(told)
    return member or _is_no_host(told, frozenset(), within)


def _is_words(told: str, _inner: Keep, _within: bool) -> bool:  # noqa: FBT001
    """Tell a long run of words from one of base64 or hexadecimal digits that looks drawn at random."""
    run = told.partition(".")[0]
    if _HEX.search(run):
        return False
    kinds = ["0" if c.isdigit() else "a" if c.islower() else "A" if c.isupper() else "-" for c in run]
    changes = sum(one != other for one, other in pairwise(kinds))
    return not {"0", "a", "A"} <= set(kinds) or changes * 4 < len(run)


Judge = Callable[[str, Keep, bool], bool]
_JUDGES: Mapping[str, Judge] = {
    "url": _is_public_link,
    "rooted": _is_place,
    "host": _is_no_host,
    "blob": _is_words,
}
"""Whether what is marked may stay, from the text, what is known to be within files, and where it stands."""
_JUDGES_OF_PARTS: Mapping[str, Judge] = {**_JUDGES, "host": _is_no_host_of_a_path}
