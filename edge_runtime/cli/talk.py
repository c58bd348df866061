"""The chat's loop: a message is answered, a line that begins with a slash is done. Opens no model and no link itself.

On a terminal an error is told and the chat goes on; elsewhere it is the end, as for any command.
"""

import asyncio
import shlex
from collections.abc import Callable
from contextlib import suppress

from edge_runtime.cli.chat_modes import MODES, Modes
from edge_runtime.cli.conversation import Conversation
from edge_runtime.cli.lines import MessageReader
from edge_runtime.cli.output import console
from edge_runtime.cli.screen import LEGEND, Screen
from edge_runtime.cli.show import show
from edge_runtime.cli.sync import resume, tell_resumed
from edge_runtime.journal import Journal
from edge_runtime.options import Options
from edge_runtime.report import Report
from outrider.choice import SamplingParams
from outrider.errors import InvalidParameter, JournalBusy, OutriderError
from outrider.user_path import user_path

__all__ = ["COMMANDS", "Talk"]

COMMANDS = {
    "/help": "what there is",
    "/mode [NAME]": "who answers; one of " + ", ".join(MODES),
    "/stats": "figures of the last answer and of all",
    "/offline": "cut the link, to see what then happens",
    "/online": "switch the link on again",
    "/sync": "have the target confirm or put right what was answered without it",
    "/save FILE": "write the conversation, as Markdown or as .json",
    "/new": "begin another conversation",
    "/quit": "end; so does Ctrl-D",
}


class Talk:
    """One chat, over several conversations perhaps. `options` and `params` are those of every answer."""

    def __init__(
        self,
        modes: Modes,
        conversation: Conversation,
        journal: Journal | None,
        params: SamplingParams,
        options: Options,
        *,
        system: str | None = None,
        as_json: bool = False,
    ) -> None:
        self._modes = modes
        self._conversation = conversation
        self._journal = journal
        self._params = params
        self._options = options
        self._system = system
        self._as_json = as_json
        self._reports: list[Report] = []
        self._is_over = False
        self._reader = MessageReader(conversation.said, [name.split()[0] for name in COMMANDS])
        self._does: dict[str, Callable[..., None]] = {
            "/help": self._help,
            "/mode": self._mode,
            "/stats": self._stats,
            "/offline": lambda: self._cut(is_cut=True),
            "/online": lambda: self._cut(is_cut=False),
            "/sync": self._sync,
            "/save": self._save,
            "/new": self._new,
            "/quit": self._quit,
        }

    def run(self) -> None:
        """Until the end of the input, or /quit. Raises what goes wrong, where there is no terminal."""
        if self._reader.is_terminal:
            _note(f"conversation {self._conversation.name}, {self._where()}; /help tells more, Ctrl-D ends")
        while not self._is_over:
            try:
                message = self._reader.read(f"{self._where()}> ")
                if message.startswith("/"):
                    self._do(message)
                elif message.strip():
                    self._answer(message)
            except EOFError:
                return
            except KeyboardInterrupt:
                if not self._reader.is_terminal:
                    raise
                _note("/quit or Ctrl-D ends the chat")
            except OutriderError as error:
                if not self._reader.is_terminal:
                    raise
                console.print(f"outrider: {error} [{error.code}]")

    def _answer(self, message: str) -> None:
        """Ctrl-C stops the answer; what was said of it until then stays."""
        screen = Screen(is_silent=self._as_json, has_colors=True)
        messages = [*self._conversation.messages, {"role": "user", "content": message}]
        options: Options = {**self._options, "conversation": self._conversation.name}
        options["is_strict"] = self._modes.mode in ("strict", "cloud")
        answers = self._modes.runtime.generate_several(messages, self._params, n=1, **options)
        try:
            finished = asyncio.run(
                show(
                    answers, self._params.seed, as_json=self._as_json, screen=screen, is_kept=self._journal is not None
                )
            )
            if finished is not None:
                self._reports.append(finished.report)
        except KeyboardInterrupt:
            self._break_off(screen)
            _note("stopped")
            with suppress(OutriderError):  # then sync finishes it, sometime
                self._conversation.stopped()
        except OutriderError:
            self._break_off(screen)
            raise
        finally:
            self._conversation.answered(message, screen.text)

    def _break_off(self, screen: Screen) -> None:
        if screen.text and not self._as_json:
            screen.end()
            print(flush=True)

    def _do(self, line: str) -> None:
        try:
            name, *words = shlex.split(line)
        except ValueError:
            raise InvalidParameter("a quotation mark is not closed; close it") from None
        if name not in self._does:
            raise InvalidParameter(f"there is no command {name}; /help lists them")
        wants = next(command for command in COMMANDS if command.split()[0] == name).split()[1:]
        if len(words) > len(wants) or (not words and wants and not wants[0].startswith("[")):
            raise InvalidParameter(f"{name} takes {' '.join(wants) or 'nothing after it'}; write it so")
        self._does[name](*words)

    def _help(self) -> None:
        width = max(map(len, COMMANDS))
        for name, meaning in COMMANDS.items():
            _note(f"{name:<{width}}  {meaning}")
        _note('A line that ends with \\ goes on; so does what stands between lines of """.')
        if self._reader.is_terminal:
            print(LEGEND)

    def _mode(self, name: str | None = None) -> None:
        if name is not None:
            self._modes.choose(name)
        _note(f"{self._where()}: {MODES[self._modes.mode]}")

    def _cut(self, *, is_cut: bool) -> None:
        self._modes.cut(is_cut=is_cut)
        _note("the link is cut" if is_cut else "the link is on")

    def _stats(self) -> None:
        if not self._reports:
            _note("nothing was answered yet")
            return
        count = len(self._reports)
        every = f"{count} answer{'s' if count > 1 else ''}"
        for name, reports in (("last answer", self._reports[-1:]), (every, self._reports)):
            _note(f"{name}: {_figures(reports)}")

    def _sync(self) -> None:
        if not self._modes.has_link or self._modes.is_cut:
            raise InvalidParameter("no verifier is in use; choose mode hybrid, and /online")
        waiting = self._conversation.waiting()
        if not waiting:
            _note("nothing waits to be verified")
        try:
            for generation in waiting:
                with suppress(JournalBusy):  # somebody else has it done just now
                    done = asyncio.run(resume(self._modes.runtime, generation.id))
                    tell_resumed(generation, done, as_json=self._as_json)
        finally:
            self._conversation.reload()

    def _save(self, file: str) -> None:
        self._conversation.save(user_path(file))
        _note(f"{len(self._conversation.messages)} messages are in {file}")

    def _new(self) -> None:
        self._conversation = Conversation.begin(self._journal, None, self._system)
        _note(f"conversation {self._conversation.name}")

    def _quit(self) -> None:
        self._is_over = True

    def _where(self) -> str:
        return self._modes.mode + (", link cut" if self._modes.is_cut else "")


def _note(text: str) -> None:
    console.print(text, style="dim")


def _figures(reports: list[Report]) -> str:
    tokens, passes = sum(one.num_tokens for one in reports), sum(one.num_passes for one in reports)
    drafted, accepted = sum(one.num_drafted for one in reports), sum(one.num_accepted for one in reports)
    provisional = sum(one.num_provisional for one in reports)
    num_bytes = sum(one.bytes_up + one.bytes_down for one in reports)
    return (
        f"{tokens} tokens verified, {provisional} provisional, {sum(one.num_retracted for one in reports)} taken back, "
        f"{passes} passes, {accepted} of {drafted} drafts accepted, {num_bytes} bytes, "
        f"{sum(one.total_ms for one in reports) / 1000:.1f} s"
    )
