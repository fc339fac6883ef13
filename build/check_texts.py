"""What `make check-model` reads to a model: paragraphs and questions that no model has seen."""

from __future__ import annotations

PARAGRAPHS = {
    "zh": (
        "上个月，镇上的旧图书馆终于重新开门了。工人们花了半年时间修补屋顶，换掉漏风的窗户，还在一"
        "楼铺上了木地板。第一天来的人不多，大多是附近的老人和放学的孩子。王老师带着她的学生坐在靠"
        "窗的桌子旁，每人挑了一本书。有个男孩选的是讲鲸鱼的画册，他看得很慢，每一页都要问好几个问"
        "题：鲸鱼为什么会唱歌？它们睡觉的时候会不会沉下去？王老师没有马上回答，而是让他先猜一猜，"
        "再到书里找答案。过了一会儿，男孩高兴地跑回来说，鲸鱼睡觉时只有半个大脑在休息，另外半个大"
        "脑负责呼吸。傍晚的时候下起了小雨，大家都不急着回家，馆长给每个人倒了一杯热茶。"
    ),
    "en": (
        "The bakery on the corner opens at six, but the lights are on long before that. Every morning"
        " the owner, a quiet woman called Martha, mixes the dough for the rolls and lets it rest "
        "while she sweeps the floor. The first customer is usually the bus driver, who buys two rolls"
        " and a cup of coffee and tells her about the traffic. After him come the nurses from the "
        "hospital, tired from the night shift, and then the children on their way to school. When it "
        "rains, they all stand inside and wait, and the small room becomes warm and loud. Last winter"
        " the oven broke, and for three days there was no bread. People came anyway. They stood in "
        "front of the empty shelves and talked, and on the third day somebody brought a cake from "
        "home. Martha says that was the day she understood what she was selling."
    ),
    "code": (
        "def group_by_length(words):\n"
        '    """Return a dictionary from length to the sorted list of words of that length."""\n'
        "    groups = {}\n"
        "    for word in words:\n"
        "        length = len(word)\n"
        "        if length not in groups:\n"
        "            groups[length] = []\n"
        "        groups[length].append(word)\n"
        "    for length in groups:\n"
        "        groups[length].sort()\n"
        "    return groups\n\n\n"
        "def longest(words):\n"
        '    """Return the longest word, or None if there are no words."""\n'
        "    best = None\n"
        "    for word in words:\n"
        "        if best is None or len(word) > len(best):\n"
        "            best = word\n"
        "    return best\n\n\n"
        'if __name__ == "__main__":\n'
        '    words = ["tree", "house", "sun", "river", "sky"]\n'
        "    for length, group in sorted(group_by_length(words).items()):\n"
        '        print(length, ", ".join(group))\n'
        "    print(longest(words))\n"
    ),
}

# A sentence to be ended, the right end first.
QUESTIONS = {
    "zh": (
        ("中国的首都是", ("北京", "东京", "巴黎", "伦敦")),
        ("一年有十二个", ("月", "周", "天", "小时")),
        ("一个星期有七", ("天", "年", "月", "岁")),
        ("雪通常是", ("白色的", "黑色的", "绿色的", "紫色的")),
        ("鱼生活在", ("水里", "树上", "火里", "云上")),
        ("我们用耳朵来", ("听", "看", "吃", "走")),
        ("二加二等于", ("四", "九", "七", "一")),
        ("太阳从东方", ("升起", "吃饭", "唱歌", "睡觉")),
        ("医生在", ("医院", "火山", "冰箱", "月球")),
        ("下雨的时候要带", ("雨伞", "烤箱", "钢琴", "石头")),
        ("热的反义词是", ("冷", "红", "快", "甜")),
        ("狗是一种", ("动物", "水果", "颜色", "数字")),
    ),
    "en": (
        ("The opposite of hot is", (" cold", " green", " loud", " seven")),
        ("The capital of France is", (" Paris", " Tokyo", " Cairo", " Toronto")),
        ("The capital of Japan is", (" Tokyo", " Madrid", " Oslo", " Lima")),
        ("Fish live in", (" water", " trees", " ovens", " clouds")),
        ("Bees make", (" honey", " bread", " paper", " glass")),
        ("We hear with our", (" ears", " elbows", " knees", " hair")),
        ("A year has twelve", (" months", " weeks", " minutes", " days")),
        ("Two plus two is", (" four", " nine", " twenty", " one")),
        ("Ice is frozen", (" water", " wood", " sand", " iron")),
        ("A doctor works in a", (" hospital", " submarine", " volcano", " bakery")),
        ("You sleep in a", (" bed", " bottle", " pencil", " drawer")),
        ("The Earth goes around the", (" Sun", " corner", " table", " song")),
    ),
    "code": (
        ("def square(x):\n    return x *", (" x", " def", " for", " import")),
        ("for i in range(", ("10", "def", "while", "return")),
        ("import os\n\nos.path.", ("join", "import", "lambda", "yield")),
        ("if a is not None:\n    return", (" a", " def", " elif", " class")),
        ("class Dog:\n    def __init__(", ("self", "return", "import", "while")),
        ('print("Hello,', (" world", " def", " return", " import")),
    ),
}
