"""Mistakes of the embedding: the wrong row, or the right row times something."""

from __future__ import annotations

import math

import numpy as np

from llama_ref.golden.mistake import Mistake
from llama_ref.golden.passes import Moment, Session
from llama_ref.ops.embed import embed


def rows_of_ids(m: Moment, ids: list[int]) -> np.ndarray:
    """Return the rows of the table for other ids."""
    return embed(np.array(ids), m.model.weights.embedding_VD, dtype=m.computed.dtype)


def _next_row(m: Moment) -> np.ndarray:
    V = m.model.config.vocab_size
    return rows_of_ids(m, [(token + 1) % V for token in m.case.ids])


def _previous_token(m: Moment) -> np.ndarray:
    return rows_of_ids(m, [0, *m.case.ids[:-1]])


def _ids_differ(session: Session) -> bool:
    return session.case.ids != (0, *session.case.ids[:-1])


MISTAKES = (
    Mistake(
        "embedding-scaled",
        "embedding times sqrt(D)",
        "Each embedding is multiplied by the square root of the model width.",
        "Gemma does this and Llama does not: look behind the lookup for sqrt(hidden_size), often in"
        " a loader that serves both families.",
        {"embed": lambda m: m.computed * math.sqrt(m.computed.shape[-1])},
    ),
    Mistake(
        "embedding-next-row",
        "embedding of id + 1",
        "Each token gets the embedding of the next id.",
        "An off-by-one in the lookup: tokens counted from 1, a row added in front of the table for"
        " padding, or a shard of the vocabulary that begins one row late.",
        {"embed": _next_row},
    ),
    Mistake(
        "embedding-of-previous-token",
        "tokens shifted by one",
        "Each token gets the embedding of the one before it, the first that of id 0.",
        "A begin token was put in front of ids that were meant to be run as they are, or the runner"
        " shifts its inputs as a training loop does.",
        {"embed": _previous_token},
        _ids_differ,
    ),
)
