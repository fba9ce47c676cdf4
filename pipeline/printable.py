"""Text from a database, a server or a message, made harmless for a terminal."""


def printable(text: str) -> str:
    r"""The text on one line, each character that a terminal may obey or hide as its escape: ``\x1b``, ``\n``, ``\u202e``.

    Whoever may write a text that others print could otherwise move their cursor, hide lines or forge them, or turn the direction of
    reading. Letters and signs of all scripts, and the space, stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
