"""`youtu chat`: a conversation in the terminal, and its commands.

Each question and each answer is on disk as soon as it is there (`conversation`), so that neither a crash nor
a server that fails loses one. How lines are read is `editor`'s, how answers look `answer`'s.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from youtu_client import Client, InvalidRequest, Sampling, YoutuError

from .answer import Reply, show_reply, view
from .conversation import Autosave, Conversation, ConversationError, with_system
from .editor import Read, editor
from .terminal import print_error, printable
from .words import say

COMMANDS = {
    "/help": "this list",
    "/retry": "send the last question again",
    "/thinking": "show the model's thinking before its last answer",
    "/system": "show the system prompt; TEXT sets it, - removes it",
    "/save": "save the conversation to FILE, as JSON",
    "/load": "continue the conversation in FILE; without FILE, the last one",
    "/reset": "clear the conversation and start again",
    "/quit": "quit; so do Ctrl-D and pressing Ctrl-C twice",
}
HINT = "/help lists the commands, Ctrl-C stops an answer, Ctrl-D quits"
UNFOLD = "; /thinking shows it"
KEYS = "Enter sends, Alt-Enter or Ctrl-J starts a new line, the arrow keys recall earlier input"


def chat(client: Client, *, system: str | None, resume: bool, options: Sampling) -> int:
    """Converse until the user ends it; returns the exit code. Errors are printed, and the chat goes on."""
    with editor(list(COMMANDS)) as read:
        session = Chat(client, Conversation(system), options, read)
        try:
            model = client.model_info()
            session.print(f"{model.id}. {model.description}")
        except YoutuError as error:
            print_error(str(error))
        session.print(say(HINT))
        if resume:
            session.handle("/load")
            session.conversation.system = system or session.conversation.system
        return _loop(session, read)


def _loop(session: Chat, read: Read) -> int:
    warned = False
    while True:
        try:
            text = read()
        except EOFError:
            session.print("")
            return 0
        except KeyboardInterrupt:
            if warned:
                return 130
            warned = True
            session.print(say("(Press Ctrl-C again or Ctrl-D to quit)"))
            continue
        warned = False
        if text.strip() in ("/quit", "/exit"):
            return 0
        try:
            session.handle(text)
        except KeyboardInterrupt:  # just before an answer, or just behind it
            session.print(say("(stopped)"))


class Chat:
    """One running chat: its conversation, and the commands, each a method."""

    def __init__(self, client: Client, conversation: Conversation, options: Sampling, read: Read) -> None:
        self.conversation = conversation
        self._client = client
        self._options = options
        self._read = read
        self._autosave = Autosave()
        self._can_save = True
        self._own_files: set[Path] = set()
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
            unknown = "(unknown command {name}; see /help. Start with a space to send it as a question.)"
            self.print(say(unknown, name=name))
            return
        try:
            getattr(self, name[1:])(rest[0].strip() if rest else "")
        except ConversationError as error:
            print_error(str(error))
        except OSError as error:
            print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))

    def print(self, text: str) -> None:
        """A line of our own."""
        sys.stdout.write(printable(text) + "\n")
        sys.stdout.flush()

    def _ask(self, question: str) -> None:
        turns = self.conversation.messages
        if self.conversation.unanswered:
            turns.pop()  # it failed, and was not sent again
        turns.append({"role": "user", "content": question})
        self._save()
        self._answer(turns)

    def _answer(self, turns: list[dict[str, str]]) -> None:
        """Ask the server for the answer to `turns`, which end in a question, and keep it."""
        messages = with_system(self.conversation.system, turns)
        reply = show_reply(self._client, messages, self._options, say(UNFOLD))
        if reply.end != "failed" and reply.text.strip():
            self.conversation.messages = [*turns, {"role": "assistant", "content": reply.text}]
            self._save()
        self._thinking = reply.thinking
        if reply.failure is not None:
            self._explain(reply)
        elif self.conversation.unanswered:
            self.print(say("(no answer; /retry asks again)"))

    def _explain(self, reply: Reply) -> None:
        anew = isinstance(reply.failure, InvalidRequest) and len(self.conversation.messages) > 1
        ways = (say("/reset starts again, ") if anew else "") + say("/retry sends it again")
        print_error(f"{reply.failure} ({ways})")

    def _save(self) -> None:
        try:
            self._autosave.save(self.conversation)
        except OSError as error:
            if self._can_save:
                print_error(say("this conversation cannot be saved to disk: {error}", error=error))
            self._can_save = False

    def _agrees(self) -> bool:
        try:
            return self._read().strip().lower() in ("y", "yes", "是", "好")
        except (EOFError, KeyboardInterrupt):
            return False

    # The commands.

    def help(self, _rest: str) -> None:
        for name, text in COMMANDS.items():
            self.print(f"  {name:<10} {say(text)}")
        self.print(f"  {say(KEYS)}")

    def retry(self, _rest: str) -> None:
        turns = self.conversation.messages
        if not turns:
            self.print(say("(no question asked yet)"))
            return
        # The old answer stays until there is a new one.
        self._answer(turns if self.conversation.unanswered else turns[:-1])

    def thinking(self, _rest: str) -> None:
        self.print(self._thinking or say("(no thinking)"))

    def system(self, rest: str) -> None:
        if rest:
            self.conversation.system = None if rest == "-" else rest
            self._save()
        self.print(say("(system prompt: {system})", system=self.conversation.system or say("none")))

    def save(self, rest: str) -> None:
        file = Path(rest or time.strftime("youtu-%Y%m%d-%H%M%S.json")).expanduser()
        if file.exists() and file.resolve() not in self._own_files:
            self.print(say("{file} exists. Replace it? (y/n)", file=file))
            if not self._agrees():
                self.print(say("(not saved)"))
                return
        self.conversation.write(file)
        self._own_files.add(file.resolve())
        self.print(say("(saved to {file})", file=file))

    def load(self, rest: str) -> None:
        file = Path(rest).expanduser() if rest else self._autosave.latest()
        self.conversation = Conversation.read(file)
        self._autosave.start_new()
        if rest:
            self._own_files.add(file.resolve())
        turns = self.conversation.messages
        self.print(say("({count} turns from {file})", count=len(turns), file=file))
        for turn in turns[-2:]:
            if turn["role"] == "user":
                self.print("> " + turn["content"].replace("\n", "\n  "))
            else:
                shown = view()
                shown.add_text(turn["content"])
                shown.end("")
        if self.conversation.unanswered:
            self.print(say("(the last question has no answer; /retry asks again)"))

    def reset(self, _rest: str) -> None:
        self.conversation = Conversation(self.conversation.system)
        self._autosave.start_new()
        self.print(say("(cleared; /load restores it)"))
