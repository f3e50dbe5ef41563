"""Which variables and arguments hold secrets (keys, tokens, passwords), and texts without them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

#: What is shown in place of a secret.
HIDDEN: Final = "***"

_WORDS: Final = frozenset({
    "apikey", "auth", "authorization", "bearer", "cookie", "cred", "creds", "credential", "credentials",
    "dsn", "key", "keys", "pass", "passphrase", "passwd", "password", "passwords", "pat", "pgpass", "pwd",
    "secret", "secrets", "token",
})  # fmt: skip
#: Written without a line between the words: ``ACCESSKEY``, ``PGPASSWORD``, ``accessToken``.
_ENDS: Final = ("key", "token", "secret", "password", "passwd", "credentials")
#: The folders that every shell has, whose names a word of the table ends.
_NO_SECRET: Final = frozenset({"PWD", "OLDPWD"})
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
#: ``scheme://user:password@host``, and ``scheme://token@host``.
_IN_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<who>[^\s/?#@'\"]+)@")
#: Those that say what they are: GitHub's, Hugging Face's, Slack's, AWS's, OpenAI's, JSON web tokens.
_ALONE = re.compile(
    r"\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|hf_\w{20,}|xox[abeprs]-[\w-]{10,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|sk-[\w-]{20,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
#: Shorter ones (``1``, ``yes``) would be found everywhere.
_LEAST = 4


def is_secret(name: str) -> bool:
    """Whether a variable of that name holds one."""
    return name not in _NO_SECRET and any(
        word in _WORDS or word.endswith(_ENDS) for word in map(str.lower, _CAMEL.split(name))
    )


def is_secret_argument(name: str) -> bool:
    """Whether the argument does: ``--wandb-api-key``, but not ``--moe-token-dispatcher-type``."""
    words = [word.lower() for word in _CAMEL.split(name) if word]
    return bool(words) and (words[-1] in _WORDS - {"keys"} or words[-1].endswith(_ENDS))


class Secrets:
    """Hides the secrets of some environments wherever their values stand.

    Args:
        environments: variables by name.
    """

    def __init__(self, *environments: Mapping[str, str]) -> None:
        values = {
            value
            for environment in environments
            for name, value in environment.items()
            if is_secret(name) and len(value) >= _LEAST
        }
        # The longest first: one may be part of another.
        found = sorted(values, key=lambda value: (-len(value), value))
        self._values = re.compile("|".join(map(re.escape, found))) if found else None

    def variable(self, name: str, value: str) -> str:
        """What is shown of a variable; an empty one is no secret."""
        return HIDDEN if value and is_secret(name) else self.text(value)

    def words(self, words: list[str]) -> list[str]:
        """A command line, without the values of arguments such as ``--api-key``."""
        shown, hide = [], False
        for word in words:
            option, equals, value = word.partition("=")
            is_option = word.startswith("-")
            if hide and not is_option:
                shown.append(HIDDEN)
            elif is_option and equals and is_secret_argument(option):
                shown.append(f"{option}={HIDDEN if value else ''}")
            elif not is_option and equals and re.fullmatch(r"\w+", option):  # env NAME=value program
                shown.append(f"{option}={self.variable(option, value)}")
            else:
                shown.append(self.text(word))
            hide = is_option and not equals and is_secret_argument(word)
        return shown

    def text(self, text: str) -> str:
        """Any text."""
        if self._values is not None:
            text = self._values.sub(HIDDEN, text)
        text = _IN_URL.sub(_without_password, text)
        return _BEARER.sub(rf"\1 {HIDDEN}", _ALONE.sub(HIDDEN, text))


def _without_password(found: re.Match[str]) -> str:
    user, colon, _ = found["who"].partition(":")
    return f"{found['scheme']}{user + colon if colon else ''}{HIDDEN}@"
