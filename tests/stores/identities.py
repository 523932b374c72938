"""Identities that a client may invent."""

HOSTILE = (
    "",
    " ",
    "a",
    "a,model=b",
    "a;team=b",
    "a%3Bteam%3Db",
    "*",
    "a:b",
    "{a}",
    "}{litellm_parallel_limits}:lease:x",
    "a\nb",
    "a\r\n\0b",
    "ä🙂",
    "\ud800",
    "\udfff",
    "x" * 10_000,
    "x" * 9_999 + "y",
)
"""Each stands for a party of its own."""
