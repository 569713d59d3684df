"""The pages that are made from the code are those of this code, and the others link to what is there."""

import re
from pathlib import Path

import pytest

from luthier.cli.methods import as_markdown, found, operations
from luthier.model.rules import all_rules

ROOT = Path(__file__).parents[2]


def test_the_methods_page_is_current():
    """`luthier methods --markdown > docs/methods.md` brings it up to date."""
    assert (ROOT / "docs" / "methods.md").read_text() == as_markdown()


@pytest.mark.parametrize("package", found())
def test_every_method_says_in_one_line_what_it_is(package):
    for name, line in found()[package]:
        assert 15 < len(line) <= 130, name


@pytest.mark.parametrize(
    "page", [p.name for p in ROOT.glob("*.md")] + [f"docs/{p.name}" for p in ROOT.glob("docs/*.md")]
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target


def test_every_operation_with_a_rule_is_listed():
    listed = [name for names in operations().values() for name in names]
    assert sorted(listed) == sorted(all_rules())
    assert "conv2d" in operations()["conv"]
    assert all(f"`{name}`" in as_markdown() for name in ("conv2d", "scaled_dot_product_attention"))
