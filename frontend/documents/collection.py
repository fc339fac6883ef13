"""All documents that a request can name: those that its caller sent, and the knowledge base."""

from __future__ import annotations

import json
import os
from pathlib import Path

from serve.run_folder import VARIABLE
from serve.settings import Settings

from .folder import Folder
from .library import Document, Library, id_of
from .reader import Contents, Reader

KNOWLEDGE = "knowledge"
"""By this name a request asks for all documents of the folder."""


class NotThere(LookupError):
    """What is named is not there; the message says what helps."""


class NotYet(Exception):
    """The knowledge base is being read for the first time."""


class Collection:
    """One per process; threads share it. Reads the folder in the background, if the settings name one."""

    def __init__(self, settings: Settings) -> None:
        self._reader = Reader(settings.document_seconds, settings.document_memory)
        self.library = Library()
        self.folder: Folder | None = None
        if settings.documents_dir is not None:
            run = os.environ.get(VARIABLE)
            cache = Path(run, "documents") if run else None
            self.folder = Folder(settings.documents_dir, self._reader, settings.document_size, cache)
            self.folder.start()

    def read(self, owner: str, name: str, data: bytes) -> Document:
        """Read this file and keep it for its owner. Raises Unreadable, Busy."""
        id = id_of(owner, name, data)
        known = self.library.get(owner, id)
        if known is not None:
            return known
        document = Document(id, name, Contents.from_json(json.loads(self._reader.read(data, name))))
        self.library.add(owner, document)
        return document

    def named(self, owner: str, name: str) -> list[Document]:
        """The documents behind a name of a request. Raises NotThere, NotYet."""
        if name == KNOWLEDGE:
            return self._knowledge()
        document = self.library.get(owner, name)
        if document is None:
            raise NotThere("send it to POST /documents again")
        return [document]

    def _knowledge(self) -> list[Document]:
        if self.folder is None:
            raise NotThere("YOUTU_DOCUMENTS_DIR names no folder for it")
        state = self.folder.state
        if not state.complete:
            raise NotYet
        if not state.documents:
            raise NotThere("its folder holds nothing that can be read")
        return list(state.documents)
