"""Why a file cannot be read, as a code of `frontend.errors` and a sentence for the person who sent it."""

from __future__ import annotations


class Unreadable(Exception):
    """`code`: one of CODES."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


CODES = {
    "document_damaged": 422,
    "document_empty": 422,
    "document_encrypted": 422,
    "document_too_long": 422,
    "document_too_slow": 422,
    "document_too_big_inside": 422,
    "document_image": 415,
    "document_kind": 415,
}
"""Code to HTTP status."""
