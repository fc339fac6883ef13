"""`youtu chat`: a conversation in the terminal, and its commands.

Each question and each answer is on disk as soon as it is there (`cli_store`), so that neither a crash nor a
server that fails loses one. How lines are read is `cli_editor`'s, how answers look `cli_answer`'s.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from .cli_answer import Spoken, printable, say, speak, view
from .cli_editor import Read, editor
from .cli_store import Autosave, Conversation, ConversationError
from .cli_talk import with_system
from .client import Client
from .errors import InvalidRequest, YoutuError
from .wire import Sampling

COMMANDS = {
    "/help": "this list",
    "/retry": "send the last question again",
    "/thinking": "show what the model thought before its last answer",
    "/system": "show the system prompt; with TEXT set it, with - remove it",
    "/save": "keep the conversation in FILE, as JSON",
    "/load": "go on with the one in FILE; without FILE, with the last one",
    "/reset": "forget the conversation and begin anew",
    "/quit": "end; so do Ctrl-D, and Ctrl-C twice",
}
HINT = "/help lists the commands, Ctrl-C stops an answer, Ctrl-D ends"
UNFOLD = "; /thinking shows it"
KEYS = "Enter sends, Alt-Enter or Ctrl-J begins a new line, the arrows bring old lines back"


def chat(client: Client, *, system: str | None, resume: bool, options: Sampling) -> int:
    """Converse until the user ends it; returns the exit code. What goes wrong is said, and it goes on."""
    talk = Chat(client, Conversation(system), options)
    with editor(list(COMMANDS)) as read:
        try:
            model = client.model_info()
            talk.tell(f"{model.id}. {model.description}")
        except YoutuError as error:
            say(str(error))
        talk.tell(HINT)
        if resume:
            talk.handle("/load")
            talk.conversation.system = system or talk.conversation.system
        return _converse(talk, read)


def _converse(talk: Chat, read: Read) -> int:
    warned = False
    while True:
        try:
            text = read()
        except EOFError:
            talk.tell("")
            return 0
        except KeyboardInterrupt:
            if warned:
                return 130
            warned = True
            talk.tell("(Ctrl-C once more ends, so does Ctrl-D)")
            continue
        warned = False
        if text.strip() in ("/quit", "/exit"):
            return 0
        try:
            talk.handle(text)
        except KeyboardInterrupt:  # just before an answer, or just behind it
            talk.tell("(stopped)")


class Chat:
    """One running chat: what was said, and the commands, each a method."""

    def __init__(self, client: Client, conversation: Conversation, options: Sampling) -> None:
        self.conversation = conversation
        self._client = client
        self._options = options
        self._autosave = Autosave()
        self._keeps = True
        self._mine: set[Path] = set()
        self._thinking = ""

    def handle(self, text: str) -> None:
        """A line that was typed: a question, or a command where it begins with a slash."""
        if not text.strip():
            return
        if not text.startswith("/"):
            self._ask(text.strip())
            return
        name, *rest = text.split(maxsplit=1)
        if name not in COMMANDS:
            self.tell(f"({name} is no command; /help lists them. With a blank before it, it is a question.)")
            return
        try:
            getattr(self, name[1:])(rest[0].strip() if rest else "")
        except ConversationError as error:
            say(str(error))
        except OSError as error:
            say(f"{error.filename}: {error.strerror}" if error.filename else str(error))

    def tell(self, text: str) -> None:
        """A line of our own."""
        sys.stdout.write(printable(text) + "\n")
        sys.stdout.flush()

    def _ask(self, question: str) -> None:
        turns = self.conversation.messages
        if self.conversation.unanswered:
            turns.pop()  # it failed, and was not sent again
        turns.append({"role": "user", "content": question})
        self._keep()
        self._answer(turns)

    def _answer(self, turns: list[dict[str, str]]) -> None:
        """Ask the server for the answer to `turns`, which end in a question, and keep it."""
        messages = with_system(self.conversation.system, turns)
        spoken = speak(self._client, messages, self._options, UNFOLD)
        if spoken.end != "failed" and spoken.text.strip():
            self.conversation.messages = [*turns, {"role": "assistant", "content": spoken.text}]
            self._keep()
        self._thinking = spoken.thinking
        if spoken.failure is not None:
            self._explain(spoken)
        elif self.conversation.unanswered:
            self.tell("(no answer; /retry asks again)")

    def _explain(self, spoken: Spoken) -> None:
        anew = isinstance(spoken.failure, InvalidRequest) and len(self.conversation.messages) > 1
        say(f"{spoken.failure} ({'/reset begins anew, ' if anew else ''}/retry sends it again)")

    def _keep(self) -> None:
        try:
            self._autosave.keep(self.conversation)
        except OSError as error:
            if self._keeps:
                say(f"this conversation is not kept on disk: {error}")
            self._keeps = False

    # The commands.

    def help(self, _rest: str) -> None:
        for name, text in COMMANDS.items():
            self.tell(f"  {name:<10} {text}")
        self.tell(f"  {KEYS}")

    def retry(self, _rest: str) -> None:
        turns = self.conversation.messages
        if not turns:
            self.tell("(nothing was asked yet)")
            return
        # The old answer stays until there is a new one.
        self._answer(turns if self.conversation.unanswered else turns[:-1])

    def thinking(self, _rest: str) -> None:
        self.tell(self._thinking or "(no thoughts)")

    def system(self, rest: str) -> None:
        if rest:
            self.conversation.system = None if rest == "-" else rest
            self._keep()
        self.tell(f"(system prompt: {self.conversation.system or 'none'})")

    def save(self, rest: str) -> None:
        file = Path(rest or time.strftime("youtu-%Y%m%d-%H%M%S.json")).expanduser()
        if file.exists() and file.resolve() not in self._mine:
            raise ConversationError(f"{file} exists already; give another name")
        self.conversation.write(file)
        self._mine.add(file.resolve())
        self.tell(f"(saved to {file})")

    def load(self, rest: str) -> None:
        file = Path(rest).expanduser() if rest else self._autosave.latest()
        self.conversation = Conversation.read(file)
        self._autosave.renew()
        if rest:
            self._mine.add(file.resolve())
        turns = self.conversation.messages
        self.tell(f"({len(turns)} turns from {file})")
        for turn in turns[-2:]:
            if turn["role"] == "user":
                self.tell("> " + turn["content"].replace("\n", "\n  "))
            else:
                shown = view()
                shown.said(turn["content"])
                shown.end("")
        if self.conversation.unanswered:
            self.tell("(it has no answer; /retry asks for one)")

    def reset(self, _rest: str) -> None:
        self.conversation = Conversation(self.conversation.system)
        self._autosave.renew()
        self.tell("(forgotten; /load brings it back)")
