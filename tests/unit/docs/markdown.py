"""Markdown as tests need it: headings with what stands below them, and links."""

import re
from pathlib import Path

from tests.conftest import ROOT

DOCUMENTS = sorted(path for folder in (".", "docs", "demo") for path in (ROOT / folder).glob("*.md"))
"""What readers of the repository open."""

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?:\]\(|(?:src|href)=\")([^)\s\"]+)")


def sections(path: Path) -> dict[str, str]:
    """The text below each heading, up to the next heading of any level; code blocks are no headings."""
    found: dict[str, str] = {}
    heading, fenced = "", False
    for line in path.read_text().splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("#") and not fenced:
            heading = line.lstrip("#").strip()
            assert heading not in found, f"{path.name} has two headings {heading!r}, so links to them are ambiguous"
        found[heading] = found.get(heading, "") + line + "\n"
    return found


def links(path: Path) -> list[str]:
    """The targets of all links and pictures outside of code blocks."""
    return _LINK.findall(_FENCE.sub("", path.read_text()))


def anchor(heading: str) -> str:
    """The fragment under which GitHub finds a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower().replace("`", ""))
    return kept.replace(" ", "-")
