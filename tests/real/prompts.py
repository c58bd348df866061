"""Eight prompts, code and talk, for the tests on real weights."""

PROMPTS = [
    "Write a Python function that returns the n-th Fibonacci number.",
    "Write a Python function that checks whether a string is a palindrome, ignoring case and punctuation.",
    "Translate to French: The library opens at nine, but the reading room is closed on Mondays.",
    "Explain in a few sentences why the sea is salty.",
    "Rename x to total in this code:\ndef f(a):\n    x = 0\n    for b in a:\n        x = x + b\n    return x",
    "Give me three ideas for a birthday present for a friend who likes to cook.",
    "Write a SQL query that counts the orders of each customer in the table orders(id, customer_id, price).",
    "A train leaves at 9:40 and arrives at 13:05. How long is the journey? Think step by step.",
]
