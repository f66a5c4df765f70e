"""Reading XML that nobody has checked: bounded depth and number of elements, no DTD, no entities.

The size in bytes is bounded by the caller. NCCL itself allows 256 elements per host.
"""

from __future__ import annotations

from io import BytesIO
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from traces.errors import InputError

MAX_DEPTH = 40
MAX_ELEMENTS = 100_000


def parse_xml(content: bytes) -> Element:
    """Root element of a document.

    >>> parse_xml(b'<system version="1"/>').get("version")
    '1'
    """
    root: Element | None = None
    depth = elements = 0
    try:
        for event, element in iterparse(BytesIO(content), events=("start", "end"), forbid_dtd=True):
            root = element if root is None else root
            depth += 1 if event == "start" else -1
            elements += event == "start"
            if depth > MAX_DEPTH or elements > MAX_ELEMENTS:
                raise InputError(
                    "XML is too deep or too long", expected=f"at most {MAX_DEPTH} levels, {MAX_ELEMENTS:,} elements"
                )
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:
        raise _refusal(error) from None
    if root is None:
        raise InputError("XML has no element")
    return root


def _refusal(error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    if isinstance(error, DefusedXmlException):
        return InputError(
            "XML with a DTD or entities is refused", got=type(error).__name__, remedy="remove the DOCTYPE"
        )
    return InputError("XML is malformed", got=str(error), remedy="dump the file again with NCCL_TOPO_DUMP_FILE")


def integer(element: Element, attribute: str, default: int) -> int:
    """Decimal or 0x-hexadecimal attribute; ``default`` where it is missing or empty."""
    text = element.get(attribute, "").strip()
    try:
        return int(text, 0) if text else default
    except ValueError:
        raise InputError(
            f"attribute {attribute} of <{element.tag}> is not a whole number", got=repr(text[:40])
        ) from None


def number(element: Element, attribute: str, default: float) -> float:
    """Attribute that may have a fraction; ``default`` where it is missing, empty or not finite."""
    text = element.get(attribute, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        raise InputError(f"attribute {attribute} of <{element.tag}> is not a number", got=repr(text[:40])) from None
    return value if abs(value) < 1e12 else default
