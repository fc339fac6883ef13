"""What the terminal says of itself, in Chinese where the locale is (LC_ALL, LC_MESSAGES, LANG).

The English sentence is the key, so that code reads as what it says. Messages of the server stay as they are.
"""

from __future__ import annotations

import os

CHINESE = {
    "this list": "显示本列表",
    "send the last question again": "重新发送上一个问题",
    "show the model's thinking before its last answer": "显示上一次回答之前的思考过程",
    "show the system prompt; TEXT sets it, - removes it": "显示系统提示词；加文字设置，加 - 删除",
    "save the conversation to FILE, as JSON": "把对话以 JSON 格式保存到文件",
    "continue the conversation in FILE; without FILE, the last one": "继续文件中的对话；无文件名时继续上一次",
    "clear the conversation and start again": "清空对话，重新开始",
    "quit; so do Ctrl-D and pressing Ctrl-C twice": "退出；也可按 Ctrl-D，或按两次 Ctrl-C",
    "/help lists the commands, Ctrl-C stops an answer, Ctrl-D quits": (
        "/help 列出命令，Ctrl-C 停止回答，Ctrl-D 退出"
    ),
    "; /thinking shows it": "；输入 /thinking 查看",
    "Enter sends, Alt-Enter or Ctrl-J starts a new line, the arrow keys recall earlier input": (
        "Enter 发送，Alt-Enter 或 Ctrl-J 换行，方向键取回以前的输入"
    ),
    "(Press Ctrl-C again or Ctrl-D to quit)": "（再按一次 Ctrl-C 或按 Ctrl-D 退出）",
    "(stopped)": "（已停止）",
    "(unknown command {name}; see /help. Start with a space to send it as a question.)": (
        "（没有 {name} 这个命令，/help 列出全部命令；前面加一个空格则作为问题发送）"
    ),
    "(no answer; /retry asks again)": "（没有得到回答；/retry 重新提问）",
    "/reset starts again, ": "/reset 重新开始，",
    "/retry sends it again": "/retry 重新发送",
    "this conversation cannot be saved to disk: {error}": "对话未能保存到磁盘：{error}",
    "(no question asked yet)": "（还没有提过问题）",
    "(no thinking)": "（没有思考过程）",
    "(system prompt: {system})": "（系统提示词：{system}）",
    "none": "无",
    "{file} exists. Replace it? (y/n)": "{file} 已存在，是否覆盖？（y/n）",
    "(not saved)": "（未保存）",
    "(saved to {file})": "（已保存到 {file}）",
    "({count} turns from {file})": "（{count} 条消息，来自 {file}）",
    "(the last question has no answer; /retry asks again)": "（最后的问题还没有回答；/retry 重新提问）",
    "(cleared; /load restores it)": "（已清空；/load 可以恢复）",
    "there is no earlier conversation": "没有更早的对话",
    "cut off at the length limit": "达到长度上限",
    "stopped": "已停止",
    "interrupted": "已中断",
    "(thinking)": "（正在思考）",
    "Thinking … {seconds} s": "正在思考 … {seconds} 秒",
    "Thought for {seconds} s": "思考了 {seconds} 秒",
    "… {seconds} s": "… {seconds} 秒",
    "for multi-line input, history and colour: pip install 'youtu-client[cli]'": (
        "安装 pip install 'youtu-client[cli]' 后可多行输入、保留历史并显示颜色"
    ),
    "input history cannot be saved: {error}": "输入的内容无法记录：{error}",
    "not ready: {servers}": "尚未就绪：{servers}",
    "the question is empty": "问题为空",
}


def is_chinese() -> bool:
    """What the locale says."""
    names = (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return (next(filter(None, names), "") or "").lower().startswith("zh")


def say(text: str, **values: object) -> str:
    """A sentence in the user's language, with values in its places."""
    return (CHINESE[text] if is_chinese() else text).format(**values)
