"""`python -m benchmarks.peers`: which peers run here, and why the others do not.

`--try PART` also asks those with PART in their name one code and one chat prompt at each of their settings, one run
each: enough to see that they work, not to compare them.
"""

import argparse

from benchmarks.peers.base import PeerFailed
from benchmarks.peers.known import all_peers, stored_weights, this_machine
from benchmarks.peers.libraries import APART
from outrider import catalog
from outrider.tokens import TextCodec

PROMPTS = {
    "code": "Complete this Python function:\n```python\ndef is_prime(number: int) -> bool:\n```",
    "chat": "Write a short, friendly email that moves a meeting with a supplier from Tuesday to Thursday.",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--try", dest="part")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.install:
        for library in APART:
            if library.reason():
                library.install()
    peers = all_peers(stored_weights(), this_machine(options.threads))
    for peer in peers:
        print(f"{peer.name}: {peer.reason() or ', '.join(peer.settings)}")
    if options.part is None:
        return
    codec = TextCodec(catalog.find(stored_weights().onnx_target.name))
    for peer in [peer for peer in peers if options.part in peer.name and not peer.reason()]:
        for setting in peer.settings:
            try:
                opened = peer.open(setting)
            except PeerFailed as failed:
                print(f"{peer.name}, {setting}: {failed}")
                continue
            try:
                for kind, text in PROMPTS.items():
                    prompt_ids = codec.encode_chat([{"role": "user", "content": text}])
                    opened.generate(prompt_ids, 8)
                    answer = opened.generate(prompt_ids, options.max_tokens)
                    speed = (len(answer.token_ids) - 1) / answer.seconds
                    print(
                        f"{peer.name}, {setting}, {kind}: {speed:.1f} tokens/s, first after {answer.first_s:.2f} s, "
                        f"{len(answer.token_ids)} tokens, {answer.num_passes} passes, "
                        f"{codec.decode(answer.token_ids)[:60]!r}",
                        flush=True,
                    )
            except PeerFailed as failed:
                print(f"{peer.name}, {setting}: {failed}")
            finally:
                opened.close()


if __name__ == "__main__":
    main()
