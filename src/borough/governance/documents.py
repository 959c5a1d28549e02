"""Documents from strangers: plain values and nothing else, out of YAML and into it.

The library that reads YAML is loaded with the first document: a daemon without any starts without it.
"""

from borough.core.errors import Invalid

LONGEST_DOCUMENT_BYTES = 262_144

Plain = str | int | float | bool | None | dict[str, "Plain"] | list["Plain"]


def load_document(text: str) -> Plain:
    """Return the one YAML document in ``text``.

    Raises:
        Invalid: it is not YAML or not of the plain kind (``invalid_yaml``), or too long (``document_too_long``).
    """
    if len(text.encode(errors="replace")) > LONGEST_DOCUMENT_BYTES:
        raise Invalid(
            "the document is too long",
            code="document_too_long",
            reason=f"{LONGEST_DOCUMENT_BYTES} bytes are the most",
            resolution="shorten it",
        )
    from borough.governance.yaml_documents import read  # noqa: PLC0415 - see the module

    return read(text)


def dump_document(document: Plain) -> str:
    """Return ``document`` as YAML that ``load_document`` reads as the same."""
    from borough.governance.yaml_documents import write  # noqa: PLC0415 - see the module

    return write(document)
