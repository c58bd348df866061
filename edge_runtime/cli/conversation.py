"""A conversation: what was said so far, in the journal under a name. Knows no model that answers and no screen."""

import time
from pathlib import Path
from typing import Self

import msgspec

from edge_runtime.cli.output import write_private
from edge_runtime.journal import Generation, Journal
from edge_runtime.options import Message
from edge_runtime.parts import tokenizer_source
from edge_runtime.text import AnswerText
from outrider import catalog
from outrider.errors import InvalidParameter
from outrider.tokens import TextCodec

__all__ = ["Conversation"]

SHOWN = 5  # names in a sentence


class Conversation:
    """`messages` are what was said and heard; of a conversation without a journal nothing else remains."""

    def __init__(self, journal: Journal | None, name: str, messages: list[Message]) -> None:
        self.name = name
        self.messages = messages
        self._journal = journal
        self._codecs: dict[str, TextCodec] = {}  # by vocabulary

    @classmethod
    def begin(cls, journal: Journal | None, name: str | None, system: str | None) -> Self:
        """A new one. Raises InvalidParameter for a name that is taken, or that nobody could read."""
        if name is not None and not (name.strip() and name.isprintable()):
            raise InvalidParameter(f"a conversation cannot be called {name!r}; give a name that can be printed")
        taken = {conversation.name for conversation in journal.conversations()} if journal else set()
        if name in taken:
            raise InvalidParameter(f"there is a conversation {name!r} already; go on with it: --continue {name}")
        if name is None:
            stamp = name = time.strftime("%Y%m%d-%H%M%S")
            number = 1
            while name in taken:
                number += 1
                name = f"{stamp}-{number}"
        return cls(journal, name, [{"role": "system", "content": system}] if system else [])

    @classmethod
    def resume(cls, journal: Journal, name: str | None) -> Self:
        """The one of that name, or the latest. Raises InvalidParameter, JournalError, NotHere for a vocabulary."""
        names = [one.name for one in journal.conversations()]
        if name is None:
            name = next((each for each in reversed(names) if any(map(_is_chat, journal.generations(each)))), None)
        if name is None:
            raise InvalidParameter("no conversation is in the journal yet; begin one without --continue")
        if name not in names:
            latest = ", ".join(names[-SHOWN:]) or "none yet"
            raise InvalidParameter(f"no conversation is called {name!r}; the latest: {latest}")
        found = cls(journal, name, [])
        found.reload()
        return found

    @property
    def said(self) -> list[str]:
        """What the user said, in order."""
        return [message["content"] for message in self.messages if message["role"] == "user"]

    def answered(self, prompt: str, answer: str) -> None:
        """An answer that is empty leaves no trace: templates want turns to alternate."""
        if answer:
            self.messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]

    def stopped(self) -> None:
        """The user stopped the latest answer."""
        if self._journal is not None:
            self._journal.stop(self.name)

    def waiting(self) -> list[Generation]:
        """Answers with provisional tokens, or cut short."""
        generations = self._journal.generations(self.name) if self._journal else []
        return [one for one in generations if one.provisional_ids or one.finish is None]

    def reload(self) -> None:
        """What was said and heard, as the journal has it now."""
        if self._journal is None:
            return
        messages: list[Message] = []
        for generation in self._journal.generations(self.name):
            if _is_chat(generation):
                asked = generation.asked.messages
                messages += [] if messages else asked[:-1]
                messages += [asked[-1], {"role": "assistant", "content": self._text(generation)}]
        self.messages = messages

    def save(self, file: Path) -> None:
        """As Markdown, or as JSON where the file is called so. Raises InvalidParameter; keeps a file that is there."""
        if file.suffix == ".json":
            data = msgspec.json.encode({"conversation": self.name, "messages": self.messages}) + b"\n"
        else:
            said = [f"**{message['role']}**\n\n{message['content'].strip()}\n" for message in self.messages]
            data = "\n".join([f"# {self.name}\n", *said]).encode()
        if file.exists():
            raise InvalidParameter(f"{file} is there already; save under another name")
        write_private(file, data)

    def _text(self, generation: Generation) -> str:
        vocabulary = generation.asked.vocabulary
        if vocabulary not in self._codecs:
            self._codecs[vocabulary] = TextCodec(catalog.find(tokenizer_source("", vocabulary)))
        text = AnswerText(self._codecs[vocabulary], generation.asked.stop)
        return "".join(text.append(token_id) for token_id in generation.token_ids) + text.flush()


def _is_chat(generation: Generation) -> bool:
    """Whether it has something to go on from."""
    return bool(generation.asked.messages and generation.token_ids)
