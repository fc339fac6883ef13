"""What the terminal says of itself, in Chinese where the locale is (LC_ALL, LC_MESSAGES, LANG).

The English sentence is the key, so that code reads as what it says. Messages of the server stay as they are.
"""

from __future__ import annotations

import os

CHINESE = {
    "this list": "显示本列表",
    "send the last question again": "重新发送上一个问题",
    "show what the model thought before its last answer": "显示上一次回答之前的思考过程",
    "show the system prompt; with TEXT set it, with - remove it": "显示系统提示词；加文字设置，加 - 删除",
    "keep the conversation in FILE, as JSON": "把对话以 JSON 格式保存到文件",
    "go on with the one in FILE; without FILE, with the last one": "继续文件中的对话；无文件名时继续上一次",
    "forget the conversation and begin anew": "清空对话，重新开始",
    "end; so do Ctrl-D, and Ctrl-C twice": "退出；也可按 Ctrl-D，或按两次 Ctrl-C",
    "/help lists the commands, Ctrl-C stops an answer, Ctrl-D ends": (
        "/help 列出命令，Ctrl-C 停止回答，Ctrl-D 退出"
    ),
    "; /thinking shows it": "；输入 /thinking 查看",
    "Enter sends, Alt-Enter or Ctrl-J begins a new line, the arrows bring old lines back": (
        "Enter 发送，Alt-Enter 或 Ctrl-J 换行，方向键取回以前的输入"
    ),
    "(Ctrl-C once more ends, so does Ctrl-D)": "（再按一次 Ctrl-C 或按 Ctrl-D 退出）",
    "(stopped)": "（已停止）",
    "({name} is no command; /help lists them. With a blank before it, it is a question.)": (
        "（没有 {name} 这个命令，/help 列出全部命令；前面加一个空格则作为问题发送）"
    ),
    "(no answer; /retry asks again)": "（没有得到回答；/retry 重新提问）",
    "/reset begins anew, ": "/reset 重新开始，",
    "/retry sends it again": "/retry 重新发送",
    "this conversation is not kept on disk: {error}": "对话未能保存到磁盘：{error}",
    "(nothing was asked yet)": "（还没有提过问题）",
    "(no thoughts)": "（没有思考过程）",
    "(system prompt: {system})": "（系统提示词：{system}）",
    "none": "无",
    "{file} exists. Replace it? (y/n)": "{file} 已存在，是否覆盖？（y/n）",
    "(not saved)": "（未保存）",
    "(saved to {file})": "（已保存到 {file}）",
    "({count} turns from {file})": "（{count} 条消息，来自 {file}）",
    "(it has no answer; /retry asks for one)": "（最后的问题还没有回答；/retry 重新提问）",
    "(forgotten; /load brings it back)": "（已清空；/load 可以恢复）",
    "there is no earlier conversation": "没有更早的对话",
    "cut off at the limit": "达到长度上限",
    "stopped": "已停止",
    "broken off": "已中断",
    "(thinking)": "（正在思考）",
    "Thinking … {seconds} s": "正在思考 … {seconds} 秒",
    "Thought for {seconds} s": "思考了 {seconds} 秒",
    "… {seconds} s": "… {seconds} 秒",
    "several lines, history and colour come with: pip install 'youtu-client[cli]'": (
        "安装 pip install 'youtu-client[cli]' 后可多行输入、保留历史并显示颜色"
    ),
    "what is typed is not remembered: {error}": "输入的内容无法记录：{error}",
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
