"""`youtu chat` on a terminal, as a person uses it; keys are pressed and the screen is read."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.client.cli.terminal import Terminal
from tests.client.cli.test_main import YOUTU, environment
from tests.client.fake_triton import FakeTriton
from tests.client.test_client import SILENT, UNENDING
from tests.limits import WAIT_S

CTRL_C, CTRL_D, CTRL_J, ALT_ENTER, UP = "\x03", "\x04", "\n", "\x1b\r", "\x1b[A"
Start = Callable[..., Terminal]


@pytest.fixture
def start(fake: FakeTriton, tmp_path: Path) -> Iterator[Start]:
    """Starts `youtu chat` with arguments; keywords are environment variables. Waits for its first prompt."""
    started: list[Terminal] = []

    def chat(*args: str, hint: str = "Ctrl-D quits", **env: str) -> Terminal:
        home = {"XDG_STATE_HOME": str(tmp_path), "TERM": "xterm-256color", **env}
        terminal = Terminal([*YOUTU, "chat", *args], environment(fake, **home), columns=160)
        started.append(terminal)
        terminal.wait(hint)
        if home["TERM"] != "dumb":
            terminal.prompt()
        return terminal

    yield chat
    for terminal in started:
        terminal.kill()


def roles(fake: FakeTriton, at: int) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in fake.calls[at].inputs["messages"]]


def test_a_conversation_outlives_ctrl_c_and_a_refusal(fake: FakeTriton, start: Start) -> None:
    terminal = start("--system", "be kind")
    assert "youtu-demo. A fake" in terminal.screen.text
    terminal.ask("hello", "You said: hello")
    terminal.type(UNENDING + "\r")
    terminal.wait("t3 ")
    terminal.type(CTRL_C)
    terminal.wait("(stopped)")
    fake.calls[1].wait_cancelled()
    terminal.prompt()
    terminal.ask("and now", "You said: and now")
    terminal.ask('fake:{"queue_full": true}', "queue is full")
    terminal.ask("again", "You said: again")
    terminal.ask("/reset", "(cleared")
    terminal.ask("fresh", "You said: fresh")
    terminal.type("/quit\r")
    assert terminal.end() == 0

    assert roles(fake, 0) == [("system", "be kind"), ("user", "hello")]
    kept = roles(fake, 2)
    assert kept[1:4] == [("user", "hello"), ("assistant", "You said: hello"), ("user", UNENDING)]
    assert kept[4][0] == "assistant"
    assert kept[4][1].startswith("t0 t1 t2 t3 ")
    assert kept[5] == ("user", "and now")
    # The question that was refused is not part of the conversation.
    assert roles(fake, 4)[-2:] == [("assistant", "You said: and now"), ("user", "again")]
    assert roles(fake, 5) == [("system", "be kind"), ("user", "fresh")]


def test_ctrl_c_before_the_first_word(fake: FakeTriton, start: Start) -> None:
    terminal = start()
    terminal.type(SILENT + "\r")
    (call,) = fake.wait_calls(1)
    terminal.type(CTRL_C)
    terminal.wait("/retry asks again")
    call.wait_cancelled()
    terminal.prompt()


def test_ctrl_c_at_an_empty_prompt_ends_the_second_time(start: Start) -> None:
    terminal = start()
    terminal.type(CTRL_C)
    terminal.wait("Press Ctrl-C again")
    terminal.prompt()
    terminal.ask("hello", "You said: hello")
    terminal.type(CTRL_C)  # not the second in a row
    terminal.wait("Press Ctrl-C again")
    terminal.prompt()
    terminal.type(CTRL_C)
    assert terminal.end() == 130


def test_ctrl_c_keeps_what_was_typed_for_the_arrow(fake: FakeTriton, start: Start) -> None:
    terminal = start()
    terminal.type("a long question")
    terminal.wait("> a long question")
    terminal.type(CTRL_C)
    terminal.prompt()
    assert "once more" not in terminal.screen.text
    terminal.type(UP)
    terminal.wait("> a long question")
    terminal.type("\r")
    terminal.wait("You said: a long question")


def test_ctrl_d_ends(start: Start) -> None:
    terminal = start()
    terminal.type(CTRL_D)
    assert terminal.end() == 0


def test_several_lines_typed_and_pasted(fake: FakeTriton, start: Start) -> None:
    terminal = start()
    terminal.ask(f"one{CTRL_J}two{ALT_ENTER}三", "You said: one")
    assert roles(fake, 0) == [("user", "one\ntwo\n三")]
    terminal.type("\x1b[200~def f():\r\n\treturn 退货\r\n\x1b[201~")
    terminal.wait("退货")
    assert len(fake.calls) == 1, "a paste is sent before Enter is pressed"
    terminal.type("\r")
    terminal.wait("You said: def")
    assert roles(fake, 1)[-1] == ("user", "def f():\n\treturn 退货")


def test_what_is_typed_during_an_answer_waits_for_the_prompt(fake: FakeTriton, start: Start) -> None:
    terminal = start()
    terminal.type(UNENDING + "\r")
    terminal.wait("t3 ")
    terminal.type("next question\r")
    terminal.read(0.3)
    assert "next" not in terminal.screen.text, "it is echoed into the answer"
    terminal.type(CTRL_C)
    terminal.wait("You said: next question")


def test_history_is_kept_for_the_next_time_and_for_nobody_else(start: Start, tmp_path: Path) -> None:
    terminal = start()
    terminal.ask(f"two{CTRL_J}lines", "You said: two")
    terminal.type("/quit\r")
    assert terminal.end() == 0
    assert (tmp_path / "youtu" / "history").stat().st_mode & 0o777 == 0o600
    terminal = start()
    terminal.type(UP + UP)
    terminal.wait("> two\n  lines")


def test_history_can_be_searched(fake: FakeTriton, start: Start) -> None:
    terminal = start()
    terminal.ask("the needle", "You said: the needle")
    terminal.ask("hay", "You said: hay")
    terminal.type("\x12need")
    terminal.wait("the needle")
    terminal.type("\r")
    terminal.read(0.3)
    assert len(fake.calls) == 2, "what was found is sent before it was looked at"
    terminal.type("\r")
    terminal.wait("You said: the needle")


def test_retry_after_a_refusal_sends_the_same(fake: FakeTriton, start: Start) -> None:
    terminal = start()
    terminal.ask("/retry", "(no question asked yet)")
    terminal.ask("hello", "You said: hello")
    question = 'fake:{"fail_at": 1, "fail_times": 1, "pieces": ["good ", "again"]}'
    terminal.ask(question, "/retry sends it again")
    assert "(interrupted)" in terminal.screen.text
    terminal.ask("/retry", "good again")
    assert roles(fake, 2) == roles(fake, 1)
    terminal.ask("/retry", "good again")
    terminal.ask("thanks", "You said: thanks")
    assert roles(fake, 4)[-3:] == [("user", question), ("assistant", "good again"), ("user", "thanks")]


def test_a_retry_that_fails_costs_no_answer(fake: FakeTriton, start: Start) -> None:
    terminal = start()
    terminal.ask("hello", "You said: hello")
    fake.queue_full = True
    terminal.ask("/retry", "queue is full")
    fake.queue_full = False
    terminal.ask("more", "You said: more")
    assert roles(fake, 2) == [("user", "hello"), ("assistant", "You said: hello"), ("user", "more")]


def until_it_is_back(terminal: Terminal, text: str, answer: str) -> None:
    """Ask until the client has found the server again."""
    until = time.monotonic() + WAIT_S
    while True:
        terminal.type(text + "\r")
        terminal.wait_until(lambda: answer in terminal.new or "sends it again" in terminal.new, answer)
        terminal.prompt()
        if answer in terminal.new:
            return
        assert time.monotonic() < until, terminal.screen.text


def test_a_server_that_dies_and_comes_back(fake: FakeTriton, start: Start) -> None:
    terminal = start()
    terminal.type(UNENDING.replace("unending", "tokens").replace("true", "50") + "\r")
    terminal.wait("t3 ")
    fake.stop()
    terminal.wait("/retry sends it again")
    terminal.prompt()
    fake.start()
    until_it_is_back(terminal, "/retry", "t49")


def test_without_a_server_it_says_so_and_goes_on(fake: FakeTriton, start: Start) -> None:
    fake.stop()
    terminal = start()
    assert "no connection to" in terminal.screen.text
    fake.start()
    until_it_is_back(terminal, "hello", "You said: hello")


def test_system_is_shown_set_and_removed(fake: FakeTriton, start: Start) -> None:
    terminal = start("--system", "be kind")
    terminal.ask("/system", "(system prompt: be kind)")
    terminal.ask("/system  be brief", "(system prompt: be brief)")
    terminal.ask("one", "You said: one")
    terminal.ask("/system -", "(system prompt: none)")
    terminal.ask("two", "You said: two")
    assert roles(fake, 0)[0] == ("system", "be brief")
    assert roles(fake, 1)[0] == ("user", "one")


def test_save_and_load(fake: FakeTriton, start: Start, tmp_path: Path) -> None:
    file, other = tmp_path / "talk.json", tmp_path / "other.json"
    other.write_text("mine")
    terminal = start("--system", "be kind")
    terminal.ask("hello", "You said: hello")
    terminal.ask(f"/save {file}", "(saved to")
    terminal.ask(f"/save {file}", "(saved to")  # its own file again
    terminal.ask(f"/save {other}", "exists. Replace it? (y/n)")
    terminal.ask("n", "(not saved)")
    assert other.read_text() == "mine"
    assert file.stat().st_mode & 0o777 == 0o600
    kept = json.loads(file.read_text())
    assert (kept["format"], kept["version"]) == ("youtu-conversations", 2)
    (conversation,) = kept["conversations"]
    first, last = conversation["messages"]
    assert (conversation["system"], conversation["title"], conversation["leaf"]) == (
        "be kind",
        "hello",
        last["id"],
    )
    assert (first["role"], first["content"], first["parent"]) == ("user", "hello", None)
    assert (last["role"], last["content"], last["parent"]) == ("assistant", "You said: hello", first["id"])
    terminal = start()
    terminal.ask(f"/load {tmp_path / 'none'}", "No such file")
    terminal.ask(f"/load {other}", "is not JSON")
    terminal.ask(f"/load {file}", "You said: hello")
    assert "> hello" in terminal.screen.text
    terminal.ask("more", "You said: more")
    assert [role for role, _ in roles(fake, 1)] == ["system", "user", "assistant", "user"]
    terminal.ask(f"/save {other}", "exists. Replace it? (y/n)")
    terminal.ask("y", "(saved to")
    again = json.loads(other.read_text())["conversations"][0]
    assert again["id"] == conversation["id"]  # the page knows it again
    assert len(again["messages"]) == 4


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"turns": []}', 'has no "messages" list'),
        ('{"messages": [], "system": 1}', 'its "system" is not text'),
        ('["hello"]', "messages[0] is not an object"),
        ('[{"role": "user", "content": 1}]', "role and content of messages[0] must be text"),
        ('[{"role": "assistant", "content": "x"}]', "turn 1 has role 'assistant', not user"),
        ("\\ud800", "is not JSON"),
    ],
)
def test_a_file_that_is_no_conversation(content: str, says: str, tmp_path: Path) -> None:
    from youtu_cli.conversation import Conversation, ConversationError

    file = tmp_path / "file.json"
    file.write_text(content)
    with pytest.raises(ConversationError) as failure:
        Conversation.read(file)
    assert says in str(failure.value)
    assert str(file) in str(failure.value)


def test_messages_as_the_apis_take_them_are_a_conversation(tmp_path: Path) -> None:
    from youtu_cli.conversation import Conversation

    file = tmp_path / "file.json"
    file.write_text('[{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]')
    assert Conversation.read(file) == Conversation("s", [{"role": "user", "content": "q"}])


def test_a_crash_loses_nothing(fake: FakeTriton, start: Start, tmp_path: Path) -> None:
    """kill -9 in the midst of an answer: what was said is there, and the question waits for /retry."""
    terminal = start("--system", "be kind")
    terminal.ask("hello", "You said: hello")
    question = 'fake:{"tokens": 30, "stepped": true}'
    terminal.type(question + "\r")
    fake.wait_calls(2)[1].step(4)
    terminal.wait("t3")
    terminal.kill()
    (kept,) = (tmp_path / "youtu" / "chats").glob("*.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    terminal = start("--continue")
    assert "/retry asks again" in terminal.screen.text
    terminal.type("/retry\r")
    fake.wait_calls(3)[2].step(30)
    terminal.wait("t29")
    terminal.prompt()
    assert roles(fake, 2) == [
        *[("system", "be kind"), ("user", "hello"), ("assistant", "You said: hello"), ("user", question)]
    ]
    terminal.type("/quit\r")
    assert terminal.end() == 0
    terminal = start()
    terminal.ask("/load", "t29")
    terminal.ask("/reset", "(cleared")
    terminal.ask("other", "You said: other")
    terminal.ask("/load", "t29")


def test_continue_without_anything_to_continue(start: Start) -> None:
    assert "there is no earlier conversation" in start("--continue").screen.text


def test_a_state_folder_that_cannot_be_written_is_reported_once(start: Start, tmp_path: Path) -> None:
    (tmp_path / "youtu").write_text("in the way")
    terminal = start()
    assert "input history cannot be saved" in terminal.screen.text
    terminal.ask("hello", "You said: hello")
    terminal.ask("more", "You said: more")
    assert terminal.screen.text.count("cannot be saved to disk") == 1


def test_only_so_many_conversations_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from youtu_cli import conversation

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(conversation, "MAX_KEPT", 3)
    for number in range(6):
        conversation.Autosave().save(
            conversation.Conversation(None, [{"role": "user", "content": str(number)}])
        )
        time.sleep(0.01)
    files = sorted((tmp_path / "youtu" / "chats").iterdir())
    kept = [conversation.Conversation.read(file).messages[0]["content"] for file in files]
    assert kept == ["3", "4", "5"]


def test_thinking_is_folded_and_can_be_shown(fake: FakeTriton, start: Start) -> None:
    terminal = start()
    script = 'fake:{"thinking": true, "pieces": ["why", " not?", "</thi", "nk>", "**yes**"], "stepped": true}'
    terminal.type(script + "\r")
    (call,) = fake.wait_calls(1)
    call.step(2)
    terminal.wait("Thinking … ")
    terminal.wait("why not?")
    call.step(3)
    terminal.wait("Thought for ")
    terminal.wait(" s; /thinking shows it")
    terminal.prompt()
    assert "why not?" not in terminal.new.replace(script, "")
    assert "</think>" not in terminal.new.replace(script, "")
    assert terminal.screen.style("yes").bold
    assert roles(fake, 0)  # asked once
    terminal.ask("/thinking", "why not?")
    terminal.ask("more", "You said: more")
    assert roles(fake, 1)[1] == ("assistant", "**yes**")


def test_stopped_while_it_thinks_there_is_no_answer(fake: FakeTriton, start: Start) -> None:
    terminal = start()
    terminal.type(UNENDING.replace("{", '{"thinking": true, ') + "\r")
    terminal.wait("Thinking … ")
    terminal.type(CTRL_C)
    terminal.wait("(no answer; /retry asks again)")
    terminal.prompt()
    terminal.ask("more", "You said: more")
    assert roles(fake, 1) == [("user", "more")]


def test_markdown_in_colour_or_without(start: Start) -> None:
    script = 'fake:{"pieces": ["# Title\\n\\n- **bo", "ld**\\n\\n```python\\nreturn 1\\n```"]}'
    terminal = start()
    terminal.ask(script, "return 1")
    assert terminal.screen.style("return 1").fg != "default"
    terminal = start(NO_COLOR="1")
    terminal.ask(script, "return 1")
    assert {char.fg for row in terminal.screen.rows for char in row} == {"default"}


def test_a_cut_answer_says_so(start: Start) -> None:
    terminal = start("--max-tokens", "3")
    terminal.ask('fake:{"tokens": 9}', "(cut off at the length limit)")


def test_commands_are_helped_and_completed(fake: FakeTriton, start: Start) -> None:
    terminal = start()
    terminal.ask("/help", "Alt-Enter")
    for command in ("/retry", "/system", "/save", "/load", "/reset", "/thinking", "/quit"):
        assert command in terminal.new
    terminal.ask("/he\t", "Alt-Enter")
    terminal.ask("/helpless", "unknown command /helpless")
    terminal.ask(" /etc/passwd, what is it?", "You said: /etc/passwd")
    assert len(fake.calls) == 1


def test_an_answer_steers_no_terminal(start: Start) -> None:
    terminal = start()
    seen = len(terminal.raw)
    terminal.ask(r'fake:{"pieces": ["\u001b]0;ti", "tle\u0007 \u009b2J ok"]}', "2J ok")
    assert b"\x1b]" not in terminal.raw[seen:]
    assert "\x9b" not in terminal.raw[seen:].decode()


def test_a_dumb_terminal_gets_plain_lines(fake: FakeTriton, start: Start) -> None:
    terminal = start(TERM="dumb")
    terminal.type("hello **you**\n")
    terminal.wait("You said: hello **you**")
    terminal.type(UNENDING + "\n")
    terminal.wait("t3 ")
    terminal.type(CTRL_C)
    terminal.wait("(stopped)")
    terminal.type("/quit\n")
    assert terminal.end() == 0
    assert b"\x1b" not in terminal.raw


WITHOUT_EXTRA = """
import sys
sys.modules["rich"] = sys.modules["prompt_toolkit"] = None
from youtu_cli.__main__ import main
sys.exit(main())
"""


def test_without_the_extra_it_says_what_to_install_and_works(fake: FakeTriton, tmp_path: Path) -> None:
    env = environment(fake, XDG_STATE_HOME=str(tmp_path), TERM="xterm-256color")
    terminal = Terminal([sys.executable, "-c", WITHOUT_EXTRA, "chat"], env, columns=120)
    try:
        terminal.wait("pip install 'youtu-client[cli]'")
        terminal.wait("Ctrl-D quits")
        terminal.type("hello **you**\r")
        terminal.wait("You said: hello **you**")
        terminal.type(UNENDING + "\r")
        terminal.wait("t3 ")
        terminal.type(CTRL_C)
        terminal.wait("(stopped)")
        terminal.type("/help\r")
        terminal.wait("/thinking")
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    finally:
        terminal.kill()


def test_ask_on_a_terminal_is_in_colour_and_ends_its_line(fake: FakeTriton) -> None:
    env = environment(fake, TERM="xterm-256color")
    terminal = Terminal([*YOUTU, "ask", 'fake:{"pieces": ["**bo", "ld**"]}'], env)
    assert terminal.end() == 0
    assert terminal.screen.text == "bold"
    assert terminal.screen.style("bold").bold
    terminal = Terminal([*YOUTU, "ask", UNENDING], env)
    terminal.wait("t3 ")
    terminal.type(CTRL_C)
    assert terminal.end() == 130
    assert terminal.screen.text.endswith("(stopped)")


def test_a_conversation_of_the_page_is_taken_up(tmp_path: Path) -> None:
    """The path that the page shows, of the conversation that was changed last; thinking stays out."""
    from youtu_cli.conversation import Conversation

    def message(name: str, parent: str | None, role: str) -> dict[str, object]:
        return {"id": name, "parent": parent, "role": role, "content": name, "created": 1, "reasoning": "hm"}

    old = {"id": "o", "title": "old", "updated": 1, "leaf": "x", "messages": [message("x", None, "user")]}
    shown = [message("q", None, "user"), message("a", "q", "assistant"), message("b", "q", "assistant")]
    new = {"id": "n", "title": "new", "updated": 2, "leaf": "b", "system": "s", "messages": shown}
    file = tmp_path / "file.json"
    text = {"format": "youtu-conversations", "version": 2, "conversations": [new, old], "presets": []}
    file.write_text(json.dumps(text))
    made = Conversation.read(file)
    assert made == Conversation(
        "s", [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]
    )
    assert made.name == "n"
    file.write_text(json.dumps({**text, "conversations": []}))
    from youtu_cli.conversation import ConversationError

    with pytest.raises(ConversationError, match="contains no conversation"):
        Conversation.read(file)


def test_a_chinese_locale_is_spoken_to_in_chinese(fake: FakeTriton, start: Start, tmp_path: Path) -> None:
    terminal = start(LC_ALL="", LANG="zh_CN.UTF-8", hint="Ctrl-D 退出")
    terminal.ask("/help", "重新发送上一个问题")
    terminal.ask("你好", "You said: 你好")
    terminal.ask("/none", "没有 /none 这个命令")
    (tmp_path / "x.json").write_text("{}")
    terminal.ask(f"/save {tmp_path / 'x.json'}", "已存在，是否覆盖？")
    terminal.ask("是", "已保存到")


def test_the_plainest_locale_works(fake: FakeTriton, start: Start) -> None:
    """The fault: a locale that knows ASCII only must not break on Chinese."""
    terminal = start(LC_ALL="C", LANG="zh_CN.UTF-8")
    terminal.ask("**注意：**请先备份", "注意：请先备份")
    assert "UnicodeEncodeError" not in terminal.screen.text


def test_every_sentence_has_its_chinese() -> None:
    """The fault: a sentence without a translation would end the chat in a Chinese locale."""
    import ast

    from youtu_cli.chat import COMMANDS, HINT, KEYS, UNFOLD
    from youtu_cli.words import CHINESE

    used = {*COMMANDS.values(), HINT, KEYS, UNFOLD, "cut off at the length limit", "stopped", "interrupted"}
    for file in (Path(__file__).parents[3] / "client" / "youtu_cli").glob("*.py"):
        tree = ast.parse(file.read_text())
        values = {
            target.id: node.value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say":
                given = node.args[0]
                text = (
                    given.value if isinstance(given, ast.Constant) else values.get(getattr(given, "id", ""))
                )
                used |= {text} if isinstance(text, str) else set()
    assert used == set(CHINESE)
