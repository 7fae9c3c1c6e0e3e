"""What several test files need."""


def pair(number: int, **more) -> dict:
    """A small TRL preference record that passes every check."""
    return {"prompt": f"question {number}?", "chosen": f"good answer {number}", "rejected": f"bad {number}"} | more
