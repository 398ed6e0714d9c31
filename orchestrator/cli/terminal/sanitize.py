"""Text of others, made safe for a terminal."""


def sanitize(text: str, limit: int = 200) -> str:
    """`text` on one line of at most `limit` characters, without the control codes that terminals obey."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
