"""Keys of hosted models: where they are looked for, and how they stay out of everything that is written.

A key is named by a variable, such as OPENAI_API_KEY. It is read from the environment or else, where the
package keyring is installed, from the system's keyring: `keyring set rmft OPENAI_API_KEY`.
"""

from __future__ import annotations

import os
import re

from rmft.errors import EndpointError

SERVICE = "rmft"
MASKED = re.compile(r"\S*\*{3,}\S*")  # how servers write a part of a key that they refuse
HIDDEN = "[key]"


class Key:
    """A secret and the variable that it came from; only `reveal` shows it."""

    __slots__ = ("_secret", "variable")

    def __init__(self, variable: str, secret: str) -> None:
        """Raises EndpointError when `secret` can't be a key."""
        secret = secret.strip()
        if not (secret and secret.isascii() and secret.isprintable() and " " not in secret):
            raise EndpointError(
                f"What {variable} holds is no key: it is empty or has spaces or characters beyond ASCII."
            )
        self.variable = variable
        self._secret = secret

    def reveal(self) -> str:
        """The secret, for the header of a request and nothing else."""
        return self._secret

    def __repr__(self) -> str:
        return f"Key({self.variable})"

    def __reduce__(self) -> str:
        raise TypeError("A key can't be stored or sent to another process.")


def hide(key: Key | None, text: str) -> str:
    """`text` without the key, whole or as servers mask one."""
    whole = text if key is None else text.replace(key.reveal(), HIDDEN)
    return MASKED.sub(HIDDEN, whole)


def find_key(variable: str) -> Key:
    """The key named `variable`, from the environment or the keyring. Raises EndpointError if in neither."""
    secret = os.environ.get(variable) or _from_keyring(variable)
    if secret is None:
        raise EndpointError(
            f"There is no key: {variable} is neither in the environment nor in the keyring. Set it, for "
            f"instance with: export {variable}=..., or: keyring set {SERVICE} {variable}"
        )
    return Key(variable, secret)


def _from_keyring(variable: str) -> str | None:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ModuleNotFoundError:
        return None
    try:
        return keyring.get_password(SERVICE, variable)
    except KeyringError:  # there is none on this machine, or it is locked
        return None
