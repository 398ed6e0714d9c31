from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.unit.docs.markdown import DOCUMENTS, anchor, links, sections


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_linked_to_is_there(document: Path) -> None:
    for target in links(document):
        if target.startswith(("http://", "https://")):
            continue
        name, _, fragment = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        assert file.is_relative_to(ROOT), f"{target} leads out of the repository"
        assert file.exists(), f"{target} is not there"
        if fragment:
            assert fragment in map(anchor, sections(file)), f"{target}: no such heading"


def test_the_documents_are_found() -> None:
    names = {str(path.relative_to(ROOT)) for path in DOCUMENTS}
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "demo/README.md", "docs/architecture.md"} <= names
    assert any("astronaut.png" in target for target in links(ROOT / "README.md"))


@pytest.mark.parametrize(
    ("heading", "fragment"),
    [
        ("The embedded model", "the-embedded-model"),
        ("`Timings`: seconds of an image", "timings-seconds-of-an-image"),
        ("In work, or not", "in-work-or-not"),
    ],
)
def test_anchors_are_those_of_github(heading: str, fragment: str) -> None:
    assert anchor(heading) == fragment
