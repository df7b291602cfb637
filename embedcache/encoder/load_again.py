"""Load the encoder of a cache, a run or an index again. Its content must be the same; its name may differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedcache.common.encoder_schema import imported_name
from embedcache.common.outputs import poolings_in
from embedcache.encoder.encoder import Encoder
from embedcache.encoder.poolings import MODEL
from embedcache.errors import EmbedcacheError


class OtherEncoderError(EmbedcacheError):
    """A different encoder is where the right one was looked for."""


def refuse_imported(about: dict[str, Any], owner: str) -> None:
    """Raise EmbedcacheError where vectors were imported, so that their encoder is not here."""
    if (name := imported_name(about)) is not None:
        raise EmbedcacheError(
            f"the vectors of {owner} were imported ({name}), so no text can be encoded here: give vectors of the same "
            "encoder, as in predict RUN --input new.npy, or search CACHE --file new.npy or --row N"
        )


def encoder_of(
    about: dict[str, Any],
    owner: str,
    *poolings: str,
    model: str | Path | None = None,
    has_option: bool = False,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> Encoder:
    """Load the encoder of a cache, a run or an index.

    Args:
        about: what the owner records: "source", "identity", and "model" if it has vectors of that name.
        owner: the owner's name in messages.
        poolings: the poolings that the encoder will compute.
        model: where the encoder is now, if it has moved.
        has_option: whether the user's command has a --model option that a message can name.
        device: see ``Encoder.load``.
        trust_remote_code: see ``Encoder.load``.

    Raises:
        EmbedcacheError: as ``load_again``.
    """
    refuse_imported(about, owner)
    tuned = "tuned" in about["identity"]  # then it is its base that may have moved
    try:
        return load_again(
            str(about["source"] if tuned else model or about["source"]),
            about["identity"],
            owner,
            base=model if tuned else None,
            device=device,
            trust_remote_code=trust_remote_code,
            about=about.get(MODEL) if MODEL in poolings_in(poolings) else None,
        )
    except EmbedcacheError as error:
        if not has_option or (model is not None and isinstance(error, OtherEncoderError)):
            raise
        raise EmbedcacheError(f"{error}; pass the encoder's folder with --model FOLDER") from None


def load_again(
    source: str,
    identity: dict[str, Any],
    owner: str,
    *,
    device: str = "auto",
    trust_remote_code: bool = False,
    about: dict[str, Any] | None = None,
    base: str | Path | None = None,
) -> Encoder:
    """Load the encoder with this identity, to make vectors that are comparable with those of ``owner``.

    Args:
        source: the folder, or the hub name.
        identity: what ``owner`` recorded (see ``identify``).
        owner: the owner's name in messages.
        device: see ``Encoder.load``.
        trust_remote_code: see ``Encoder.load``.
        about: how the vectors called ``model`` are made; None where they are not needed.
        base: where the base of a tuned encoder is now, if it has moved.

    Raises:
        EmbedcacheError: it is not found, a different encoder is now at ``source`` (OtherEncoderError), or the identity
            is damaged.
    """
    for name in ("max_length", "compute_dtype"):
        if name not in identity:
            raise EmbedcacheError(f"{owner} is damaged: its encoder's {name} is missing; make it again")
    settings: dict[str, Any] = {"max_length": identity["max_length"], "dtype": identity["compute_dtype"]}
    settings |= {"device": device, "trust_remote_code": trust_remote_code, "model": about}
    before = ("prompt", "lower_case", "chunk", "task", "kept")
    settings |= {name: identity[name] for name in before if name in identity}
    if "code" in identity and not trust_remote_code:
        raise EmbedcacheError(
            f"the encoder of {owner} has its own Python code: if you trust it, pass --trust-remote-code"
        )

    def check(now: dict[str, Any]) -> None:
        if differs := _differences(identity, now):
            raise OtherEncoderError(
                f"the encoder at {source} is not the one that made {owner}: its {' and '.join(differs)} changed; "
                "restore the old one, or run extract again with this one"
            )

    return Encoder.load(source, **settings, check=check, base=base)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The names of what differs between two identities: of files, where a part consists of files."""
    names = []
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            names += [name for name in sorted(was.keys() | now.keys()) if was.get(name) != now.get(name)]
        elif was != now:
            names.append(key)
    return names
