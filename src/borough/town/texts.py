"""How long a text may be: what agents are told and what they answer is kept whole, so it has a limit."""

from borough.core.errors import Invalid

MAX_TEXT_BYTES = 1_048_576
"""The longest task, message, result or reason: 1 MiB of UTF-8."""


def bounded(text: str, pointer: str) -> str:
    """Return ``text`` if it is not too long; ``pointer`` says where in the request it stands (RFC 6901).

    Raises:
        Invalid: it has more than ``MAX_TEXT_BYTES`` (``text_too_long``).
    """
    # Most texts are short: only those that could be too long are encoded to be measured.
    if len(text) * 4 > MAX_TEXT_BYTES and (size := len(text.encode())) > MAX_TEXT_BYTES:
        raise Invalid(
            f"the text is {size} bytes long; at most {MAX_TEXT_BYTES} are kept",
            code="text_too_long",
            resolution="put the long part into a file and name the file",
            details={"pointer": pointer},
        )
    return text
