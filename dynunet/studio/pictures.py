"""Pictures and sounds as addresses that hold them, so that no file is served by its name."""

from base64 import b64encode

__all__ = ["address"]


def address(content: bytes, kind: str = "image/png") -> str:
    """A ``data:`` address."""
    return f"data:{kind};base64,{b64encode(content).decode()}"
