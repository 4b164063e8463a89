"""What may be chosen of the server: where it listens, who may ask, and how much at a time."""

from dataclasses import dataclass

from moestream.declare import option

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How the server listens; ``api_keys`` are those of all sources, once they were read."""

    host: str = option("127.0.0.1", "Listen on this address.", metavar="HOST")
    port: int = option(
        8080, "Listen on this port; 0 takes a free one.", least=0, most=65535, metavar="PORT"
    )
    parallel: int = option(
        4,
        "Answer so many requests at a time.",
        flags=("-np", "--parallel"),
        least=1,
        most=256,
        metavar="N",
    )
    waiting: int = option(
        64,
        "Let so many more wait; others are told to come again.",
        least=0,
        most=65536,
        metavar="N",
    )
    alias: tuple[str, ...] = option(
        (),
        "Call the model so in the API, the first time instead of its name; may be repeated.",
        flags=("-a", "--alias"),
        metavar="NAME",
    )
    api_key: tuple[str, ...] = option(
        (),
        "Answer only who gives this key; may be repeated. MOESTREAM_API_KEY shows it to nobody "
        "who lists processes.",
        metavar="KEY",
    )
    api_key_file: str | None = option(
        None, "Take keys from a file too, one a line.", kind=str, metavar="FILE"
    )
    cors: tuple[str, ...] = option(
        (),
        "Let web pages of this origin ask, as https://chat.example; localhost and * are any of "
        "this machine, and any at all; may be repeated.",
        metavar="ORIGIN",
    )
    allowed_host: tuple[str, ...] = option(
        (),
        "Answer to this name too, which a browser or a proxy sends as Host; may be repeated.",
        metavar="NAME",
    )
    keep_noise: bool = option(
        False,
        "Leave in prompts what clients put before them and change at each request, as Claude "
        "Code's billing header; then nothing of such a prompt is found again.",
    )
    no_page: bool = option(
        False, "Show no page at /, where one talks to the model and sees its experts at work."
    )
    insecure: bool = option(False, "Listen beyond this machine without a key.")
    max_body: int = option(
        32 << 20, "Refuse requests larger than N bytes.", least=1024, metavar="N", rare=True
    )

    @property
    def is_local(self) -> bool:
        """Whether nobody else's machine can reach it."""
        return self.host in LOOPBACK or self.host.startswith("127.")
