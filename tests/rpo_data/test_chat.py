import doctest

from rpo_data import chat


def test_docstring_examples_hold():
    result = doctest.testmod(chat)
    assert result.attempted > 0
    assert result.failed == 0
