"""Counts are said with the right number of letters s."""

import pytest

from MambaSegLib.wording import counted


@pytest.mark.parametrize("count, text", [(0, "0 cases"), (1, "1 case"), (2, "2 cases"), (1000, "1000 cases")])
def test_singular_and_plural(count, text):
    assert counted(count, "case") == text


def test_other_plurals():
    assert counted(1, "class", "classes") == "1 class" and counted(3, "class", "classes") == "3 classes"
    assert counted(1, "Schnitt", "Schnitte") == "1 Schnitt" and counted(2, "Schnitt", "Schnitte") == "2 Schnitte"
