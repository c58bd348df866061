"""What all messages have in common: the bounds of their fields, and a base that shows no token."""

from typing import Annotated

import msgspec

__all__ = [
    "MAX_DRAFTS",
    "MAX_LOGPROBS",
    "MAX_POSITION",
    "MAX_SENTENCE",
    "Epoch",
    "FewIds",
    "Message",
    "Name",
    "Position",
    "Probability",
]

MAX_POSITION = 2**24
MAX_SENTENCE = 512
MAX_DRAFTS = 256  # tokens in one Draft
MAX_LOGPROBS = 20  # alternatives told for a position

Position = Annotated[int, msgspec.Meta(ge=0, le=MAX_POSITION)]
Epoch = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Name = Annotated[str, msgspec.Meta(max_length=128)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
FewIds = Annotated[bytes, msgspec.Meta(max_length=4 * MAX_DRAFTS)]


class Message(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """Base of all messages; the subclasses' tags are part of the protocol."""

    def __repr__(self) -> str:
        """Of lists the sizes and not the contents: what a log or a traceback shows tells no token."""
        shown = []
        for name in self.__struct_fields__:
            value = getattr(self, name)
            shown.append(f"{name}=<{len(value)}>" if isinstance(value, bytes | list) else f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"
